package postmark

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

// Postmark's caps on a page: count, and count plus offset.
const (
	maxCount  = 500
	maxOffset = 10_000
)

// pagination is the error for a page that is too large.
const pagination = 13

// searchOutbound answers GET /messages/outbound as described on the page "Messages API".
func (a *api) searchOutbound(r *http.Request, _ []byte) *emulator.Search {
	q := r.URL.Query()
	count, err1 := strconv.Atoi(q.Get("count"))
	offset, err2 := strconv.Atoi(q.Get("offset"))
	switch {
	case err1 != nil || err2 != nil || count < 1 || offset < 0:
		return &emulator.Search{Refused: unprocessable(invalid, "Parameters 'count' and 'offset' are required.")}
	case count > maxCount || count+offset > maxOffset:
		return &emulator.Search{Refused: unprocessable(pagination, "'count' is at most 500, and with 'offset' at most 10000.")}
	}
	match, refused := a.filters(r)
	if refused != nil {
		return &emulator.Search{Refused: refused}
	}
	return &emulator.Search{Recipient: q.Get("recipient"), Match: match, Show: func(found []*emulator.Found) *emulator.Reply {
		slices.Reverse(found) // the newest first
		total := len(found)
		found = found[min(offset, total):min(offset+count, total)]
		messages := []map[string]any{}
		for _, s := range found {
			messages = append(messages, message(s))
		}
		return emulator.JSON(http.StatusOK, map[string]any{"TotalCount": total, "Messages": messages})
	}}
}

// filters reads the conditions of the query. The ledger has no tags and, of the metadata, only the message id; a search for
// anything else finds nothing. Without a stream only the transactional one is searched.
func (a *api) filters(r *http.Request) (func(*emulator.Entry) bool, *emulator.Reply) {
	from, to := time.Time{}, a.host.Now().AddDate(100, 0, 0)
	var all []func(*emulator.Entry) bool
	metadata, stream := 0, stream
	for name := range r.URL.Query() {
		value := r.URL.Query().Get(name)
		ok := true
		switch name = strings.ToLower(name); {
		case strings.HasPrefix(name, "metadata_"):
			metadata++
			mine := name == "metadata_"+emulator.OurID
			all = append(all, func(n *emulator.Entry) bool { return mine && n.MessageID == value })
		case name == "fromdate":
			from, ok = date(value, false)
		case name == "todate":
			to, ok = date(value, true)
		case name == "fromemail":
			all = append(all, func(n *emulator.Entry) bool { return strings.EqualFold(n.From, value) })
		case name == "subject":
			all = append(all, func(n *emulator.Entry) bool { return n.Subject == value })
		case name == "messagestream":
			stream = value
		case name == "tag", name == "status" && value == "queued":
			all = append(all, func(*emulator.Entry) bool { return false })
		}
		if !ok {
			return nil, unprocessable(invalid, "Invalid '"+name+"'.")
		}
	}
	if metadata > 1 {
		return nil, unprocessable(invalid, "Only one metadata filter is allowed.")
	}
	return func(n *emulator.Entry) bool {
		return !n.At.Before(from) && !n.At.After(to) && streamOf(n) == stream && !slices.ContainsFunc(all, func(f func(*emulator.Entry) bool) bool { return !f(n) })
	}, nil
}

// date reads a day or a moment in Eastern Time. As an end it includes the whole day, or the whole second.
func date(s string, end bool) (time.Time, bool) {
	zone, err := time.LoadLocation("America/New_York")
	if err != nil { // a machine without time zones
		zone = time.FixedZone("EST", -5*60*60)
	}
	if t, err := time.ParseInLocation("2006-01-02T15:04:05", s, zone); err == nil {
		if end {
			t = t.Add(time.Second - time.Nanosecond)
		}
		return t, true
	}
	t, err := time.ParseInLocation("2006-01-02", s, zone)
	if err == nil && end {
		t = t.AddDate(0, 0, 1).Add(-time.Nanosecond)
	}
	return t, err == nil
}

func streamOf(n *emulator.Entry) string { return cmp.Or(n.Stream, stream) }

func message(s *emulator.Found) map[string]any {
	to := []map[string]any{}
	for _, address := range s.To {
		to = append(to, map[string]any{"Email": address, "Name": nil})
	}
	return map[string]any{
		"Tag": "", "MessageID": s.ProviderMessageID, "To": to, "Cc": []any{}, "Bcc": []any{}, "Recipients": s.To,
		"ReceivedAt": timeText(s.At), "From": s.From, "Subject": s.Subject, "Attachments": []string{}, "Status": "Sent",
		"TrackOpens": false, "TrackLinks": "None", "Metadata": s.Args, "MessageStream": streamOf(&s.Entry), "Sandboxed": false,
	}
}

// details answers GET /messages/outbound/{messageid}/details.
func (a *api) details(r *http.Request, _ []byte) *emulator.Search {
	id := r.PathValue("id")
	return &emulator.Search{Match: func(n *emulator.Entry) bool { return n.ProviderMessageID == id }, Show: func(found []*emulator.Found) *emulator.Reply {
		if len(found) == 0 {
			return unprocessable(701, "This message was not found, or has expired.")
		}
		m := message(found[0])
		m["TextBody"], m["HtmlBody"], m["Body"] = "", "", ""
		events := []map[string]any{}
		for _, h := range found[0].Past {
			if kind, details := history(&h); kind != "" {
				events = append(events, map[string]any{
					"Recipient": h.To[0], "Type": kind, "ReceivedAt": timeText(h.At), "Details": details,
				})
			}
		}
		m["MessageEvents"] = events
		return emulator.JSON(http.StatusOK, m)
	}}
}

// history is one element of MessageEvents.
func history(h *emulator.Event) (kind string, details map[string]string) {
	remote := func(message string) map[string]string {
		return map[string]string{
			"DeliveryMessage": message, "DestinationServer": emulator.MXOf(h.To[0]), "DestinationIP": emulator.RemoteIP,
		}
	}
	bounce := func(message string) map[string]string {
		return map[string]string{"Summary": message, "BounceID": strconv.FormatInt(h.Number("ID"), 10)}
	}
	switch h.Type {
	case emulator.Delivered:
		return "Delivered", remote("smtp;250 2.0.0 OK " + emulator.QueueID(h))
	case emulator.Deferred:
		return "Transient", remote("smtp;" + emulator.TextDeferred)
	case emulator.Bounced:
		return "Bounced", bounce("smtp;" + emulator.TextBounced(h.To[0]))
	case emulator.SoftBounced:
		return "Bounced", bounce("smtp;" + emulator.TextFull(h.To[0]))
	case emulator.Complained:
		return "SpamComplaint", bounce("Spam complaint")
	case emulator.Opened:
		return "Opened", map[string]string{"Summary": "Email opened with Firefox"}
	case emulator.Clicked:
		return "LinkClicked", map[string]string{"Summary": "Tracked link clicked", "Link": emulator.ClickedURL, "ClickLocation": "HTML"}
	case emulator.Deactivated:
		return "SubscriptionChanged", map[string]string{"Origin": "Recipient", "SuppressSending": "True"}
	case emulator.Accepted, emulator.Dropped:
	}
	return "", nil
}
