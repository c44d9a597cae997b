package emulator

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Postmark's caps on a page: count, and count and offset together.
const (
	postmarkMaxCount  = 500
	postmarkMaxOffset = 10_000
)

// postmarkPagination is the error for a page that is too large.
const postmarkPagination = 13

// searchOutbound answers GET /messages/outbound as the page "Messages API" says.
func (g postmark) searchOutbound(r *http.Request, _ []byte) *search {
	q := r.URL.Query()
	count, err1 := strconv.Atoi(q.Get("count"))
	offset, err2 := strconv.Atoi(q.Get("offset"))
	switch {
	case err1 != nil || err2 != nil || count < 1 || offset < 0:
		return &search{refused: postmarkUnprocessable(postmarkInvalid, "Parameters 'count' and 'offset' are required.")}
	case count > postmarkMaxCount || count+offset > postmarkMaxOffset:
		return &search{refused: postmarkUnprocessable(postmarkPagination, "'count' is at most 500, and with 'offset' at most 10000.")}
	}
	match, refused := g.filters(r)
	if refused != nil {
		return &search{refused: refused}
	}
	return &search{recipient: q.Get("recipient"), match: match, show: func(found []*sight) *reply {
		slices.Reverse(found) // the newest first
		total := len(found)
		found = found[min(offset, total):min(offset+count, total)]
		messages := []map[string]any{}
		for _, s := range found {
			messages = append(messages, postmarkMessage(s))
		}
		return jsonReply(http.StatusOK, map[string]any{"TotalCount": total, "Messages": messages})
	}}
}

// filters reads what the query asks for. The ledger has no tags and, of the metadata, the message id only; whatever else
// is asked for is not found. Without a stream only the transactional one is searched.
func (g postmark) filters(r *http.Request) (func(*Entry) bool, *reply) {
	from, to := time.Time{}, g.e.now().AddDate(100, 0, 0)
	var all []func(*Entry) bool
	metadata, stream := 0, postmarkStream
	for name := range r.URL.Query() {
		value := r.URL.Query().Get(name)
		ok := true
		switch name = strings.ToLower(name); {
		case strings.HasPrefix(name, "metadata_"):
			metadata++
			mine := name == "metadata_"+ourIDKey
			all = append(all, func(n *Entry) bool { return mine && n.MessageID == value })
		case name == "fromdate":
			from, ok = postmarkDate(value, false)
		case name == "todate":
			to, ok = postmarkDate(value, true)
		case name == "fromemail":
			all = append(all, func(n *Entry) bool { return strings.EqualFold(n.From, value) })
		case name == "subject":
			all = append(all, func(n *Entry) bool { return n.Subject == value })
		case name == "messagestream":
			stream = value
		case name == "tag", name == "status" && value == "queued":
			all = append(all, func(*Entry) bool { return false })
		}
		if !ok {
			return nil, postmarkUnprocessable(postmarkInvalid, "Invalid '"+name+"'.")
		}
	}
	if metadata > 1 {
		return nil, postmarkUnprocessable(postmarkInvalid, "Only one metadata filter is allowed.")
	}
	return func(n *Entry) bool {
		return within(n.At, from, to) && postmarkStreamOf(n) == stream && !slices.ContainsFunc(all, func(f func(*Entry) bool) bool { return !f(n) })
	}, nil
}

// postmarkDate reads a day or a moment in Eastern Time; as an end it takes in all of the day, or of the second.
func postmarkDate(s string, end bool) (time.Time, bool) {
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

func postmarkStreamOf(n *Entry) string { return cmp.Or(n.Stream, postmarkStream) }

func postmarkMessage(s *sight) map[string]any {
	to := []map[string]any{}
	for _, address := range s.To {
		to = append(to, map[string]any{"Email": address, "Name": nil})
	}
	return map[string]any{
		"Tag": "", "MessageID": s.ProviderMessageID, "To": to, "Cc": []any{}, "Bcc": []any{}, "Recipients": s.To,
		"ReceivedAt": postmarkTime(s.At), "From": s.From, "Subject": s.Subject, "Attachments": []string{}, "Status": "Sent",
		"TrackOpens": false, "TrackLinks": "None", "Metadata": orNone(s.args), "MessageStream": postmarkStreamOf(&s.Entry), "Sandboxed": false,
	}
}

// details answers GET /messages/outbound/{messageid}/details.
func (g postmark) details(r *http.Request, _ []byte) *search {
	id := r.PathValue("id")
	return &search{match: func(n *Entry) bool { return n.ProviderMessageID == id }, show: func(found []*sight) *reply {
		if len(found) == 0 {
			return postmarkUnprocessable(701, "This message was not found, or has expired.")
		}
		m := postmarkMessage(found[0])
		m["TextBody"], m["HtmlBody"], m["Body"] = "", "", ""
		events := []map[string]any{}
		for _, h := range found[0].past {
			if kind, details := postmarkHistory(&h); kind != "" {
				events = append(events, map[string]any{
					"Recipient": h.to[0], "Type": kind, "ReceivedAt": postmarkTime(h.at), "Details": details,
				})
			}
		}
		m["MessageEvents"] = events
		return jsonReply(http.StatusOK, m)
	}}
}

// postmarkHistory is one element of MessageEvents.
func postmarkHistory(h *happening) (kind string, details map[string]string) {
	remote := func(message string) map[string]string {
		return map[string]string{
			"DeliveryMessage": message, "DestinationServer": mxOf(h.to[0]), "DestinationIP": remoteIP,
		}
	}
	bounce := func(message string) map[string]string {
		return map[string]string{"Summary": message, "BounceID": strconv.FormatInt(h.number("ID"), 10)}
	}
	switch h.what {
	case wasDelivered:
		return "Delivered", remote("smtp;250 2.0.0 OK " + queueOf(h))
	case wasDeferred:
		return "Transient", remote("smtp;" + textDeferred)
	case wasBounced:
		return "Bounced", bounce("smtp;" + textBounced(h.to[0]))
	case wasSoftBounced:
		return "Bounced", bounce("smtp;" + textFull(h.to[0]))
	case wasComplained:
		return "SpamComplaint", bounce("Spam complaint")
	case wasOpened:
		return "Opened", map[string]string{"Summary": "Email opened with Firefox"}
	case wasClicked:
		return "LinkClicked", map[string]string{"Summary": "Tracked link clicked", "Link": clickedURL, "ClickLocation": "HTML"}
	case wasDeactivated:
		return "SubscriptionChanged", map[string]string{"Origin": "Recipient", "SuppressSending": "True"}
	case wasAccepted, wasDropped:
	}
	return "", nil
}
