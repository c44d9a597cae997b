package mailgun

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// The bounds of a look-up. An item has up to 16 KiB of variables, and an answer is read up to 1 MiB.
const (
	pageItems = 50
	maxPages  = 10
	skew      = time.Minute // between our clock and Mailgun's
)

// eventPage is an answer of the events API. The last page also has a Paging.Next, which leads to an empty page.
type eventPage struct {
	Items  []json.RawMessage `json:"items"`
	Paging struct {
		Next string `json:"next"`
	} `json:"paging"`
}

// Find implements provider.Finder. It uses the logs API first, and then the older events API, which is deprecated but documents a
// filter by message. A message in the logs is found. If the logs do not show it, or can't be read, the events API decides as long
// as it exists: a wrong "not found" would mail somebody twice.
//
// A sending key has no right to look up: Misconfigured.
func (c *Client) Find(ctx context.Context, q *provider.Query) (provider.Finding, error) {
	found, sure, perr := c.findInLogs(ctx, q)
	if found.Found {
		return found, nil
	}
	if perr != nil && perr.Class != provider.Misconfigured {
		return provider.Finding{}, perr
	}
	older, err := c.findInEvents(ctx, q)
	if gone, ok := errors.AsType[*provider.Error](err); ok && ended(gone.Status) {
		switch {
		case sure:
			return found, nil
		case perr != nil && !ended(perr.Status):
			return provider.Finding{}, perr
		}
	}
	return older, err
}

// ended reports whether a status says that the API does not exist, or no longer exists.
func ended(status int) bool {
	return status == http.StatusNotFound || status == http.StatusGone || status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented
}

// findInEvents asks GET /v3/{domain}/events by Message-ID.
func (c *Client) findInEvents(ctx context.Context, q *provider.Query) (provider.Finding, error) {
	var found provider.Finding
	at := "?" + url.Values{
		"message-id": {q.InternetID},
		"begin":      {strconv.FormatInt(q.From.Add(-skew).Unix(), 10)},
		"ascending":  {"yes"}, // no end: later events of the message are useful too
		"limit":      {strconv.Itoa(pageItems)},
	}.Encode()
	for page := 0; page < maxPages && at != ""; page++ {
		var got eventPage
		if perr := c.events(ctx, at, &got); perr != nil {
			return sureOf(found, perr)
		}
		collect(&found, q, got.Items)
		if at = got.next(); len(got.Items) == 0 || at == "" && len(got.Items) < pageItems {
			return found, nil
		}
	}
	return sureOf(found, &provider.Error{
		Class:  provider.Transient,
		Detail: "mailgun: the events API lists more events than are read, none of this call; nothing is proved by that",
	})
}

// sureOf returns what earlier pages proved; otherwise the error.
func sureOf(found provider.Finding, perr *provider.Error) (provider.Finding, error) {
	if found.Found {
		return found, nil
	}
	return provider.Finding{}, perr
}

func (c *Client) events(ctx context.Context, at string, page *eventPage) *provider.Error {
	if perr := c.call(ctx, http.MethodGet, c.cfg.apiBase()+"/"+c.cfg.Domain+"/events"+at, nil, page); perr != nil {
		return perr
	}
	if page.Items == nil {
		return &provider.Error{Class: provider.Misconfigured, Detail: "mailgun: not an answer of the events API; check base_url and domain"}
	}
	return nil
}

// next is the part after /events in the URL of the next page: a token in the path, or a query. The URL itself is not followed:
// the API key would go wherever it points.
func (p *eventPage) next() string {
	u, err := url.Parse(p.Paging.Next)
	if err != nil {
		return ""
	}
	_, token, _ := strings.Cut(u.EscapedPath(), "/events/")
	if strings.Contains(token, "/") || strings.Trim(token, ".") == "" {
		token = ""
	}
	switch {
	case token != "":
		return "/" + token
	case u.RawQuery != "" && strings.HasSuffix(u.Path, "/events"):
		return "?" + u.RawQuery
	}
	return ""
}

// collect adds the items that are about our message. There may be others if the API ignored the filter.
func collect(found *provider.Finding, q *provider.Query, items []json.RawMessage) {
	for _, raw := range items {
		events := parse(raw)
		id, internetID := events[0].MessageID, events[0].ProviderMessageID
		if (id.IsZero() || id != q.MessageID) && (internetID == "" || internetID != q.InternetID) {
			continue
		}
		if !found.Found && slices.ContainsFunc(events, func(e mail.Event) bool { return proves(q, &e) }) {
			found.Found, found.ProviderMessageID = true, internetID
		}
		found.Payloads = append(found.Payloads, mail.Payload{Raw: raw, Events: events})
	}
}

// proves reports whether the event shows that this call arrived. Every attempt of a message has the same Message-ID. So an event
// of another recipient proves nothing, nor does one that may follow an earlier attempt by days.
func proves(q *provider.Query, e *mail.Event) bool {
	if e.At.Before(q.From.Add(-skew)) {
		return false
	}
	switch e.Type {
	case mail.EventAccepted, mail.EventDeferred, mail.EventDelivered, mail.EventBounced, mail.EventRejected:
		return len(q.Recipients) == 0 || slices.ContainsFunc(q.Recipients, func(r string) bool { return mail.FoldAddress(r) == mail.FoldAddress(e.Recipient) })
	case mail.EventUnmapped, mail.EventComplained, mail.EventUnsubscribed, mail.EventOpened, mail.EventClicked, mail.EventFailedUnknown, mail.EventEndpointDisabled:
	}
	return false
}

// The bounds of a search of the logs.
const (
	logItems = 100
	logPages = 10
	logAfter = 5 * time.Minute // how long after the call its first event may still appear
)

// logQuery is the request of POST /v1/analytics/logs ("List logs").
type logQuery struct {
	Start      string    `json:"start"` // RFC 2822
	End        string    `json:"end"`
	Events     []string  `json:"events"`
	Filter     logFilter `json:"filter"`
	Pagination struct {
		Sort  string `json:"sort"`
		Limit int    `json:"limit"`
		Token string `json:"token,omitempty"`
	} `json:"pagination"`
}

type logFilter struct {
	And []logPredicate `json:"AND"`
}

type logPredicate struct {
	Attribute  string     `json:"attribute"`
	Comparator string     `json:"comparator"`
	Values     []logValue `json:"values"`
}

type logValue struct {
	Label string `json:"label"`
	Value string `json:"value"`
}

// logPage is an answer.
type logPage struct {
	Items      []json.RawMessage `json:"items"`
	Pagination struct {
		Next string `json:"next"`
	} `json:"pagination"`
}

// findInLogs reads the domain's log from the call on, because no filter by message is documented there. sure says that the log
// was read to the point after which the call can't appear.
func (c *Client) findInLogs(ctx context.Context, q *provider.Query) (found provider.Finding, sure bool, perr *provider.Error) {
	in := logQuery{
		Start: q.From.Add(-skew).UTC().Format(time.RFC1123Z), End: time.Now().UTC().Format(time.RFC1123Z),
		Events: []string{"accepted", "delivered", "failed", "rejected"},
		Filter: logFilter{[]logPredicate{{Attribute: "domain", Comparator: "=", Values: []logValue{{c.cfg.Domain, c.cfg.Domain}}}}},
	}
	in.Pagination.Sort, in.Pagination.Limit = "timestamp:asc", logItems
	for range logPages {
		var page logPage
		if perr := c.callJSON(ctx, http.MethodPost, strings.TrimSuffix(c.cfg.apiBase(), "/v3")+"/v1/analytics/logs", in, &page); perr != nil {
			return found, false, perr
		}
		if page.Items == nil {
			return found, false, &provider.Error{Class: provider.Misconfigured, Detail: "mailgun: not an answer of the logs API; check base_url"}
		}
		var last time.Time
		for i, raw := range page.Items {
			page.Items[i] = asEvent(raw)
			last = parse(page.Items[i])[0].At
		}
		collect(&found, q, page.Items)
		if page.Pagination.Next == "" || len(page.Items) == 0 {
			return found, true, nil
		}
		if !found.Found && last.After(q.To.Add(logAfter)) {
			return found, true, nil
		}
		in.Pagination.Token = page.Pagination.Next
	}
	return found, false, &provider.Error{
		Class: provider.Misconfigured, Detail: "mailgun: the logs API lists more events than are read, none of this call; nothing is proved by that",
	}
}

// asEvent gives a log item the timestamp of an event: in the log it is a date under another name.
func asEvent(raw json.RawMessage) json.RawMessage {
	var item map[string]json.RawMessage
	var date time.Time
	if json.Unmarshal(raw, &item) != nil || item["timestamp"] != nil || json.Unmarshal(item["@timestamp"], &date) != nil {
		return raw
	}
	item["timestamp"], _ = json.Marshal(float64(date.UnixMilli()) / 1000) //nolint:errchkjson // a number always encodes
	full, err := json.Marshal(item)
	if err != nil {
		return raw
	}
	return full
}
