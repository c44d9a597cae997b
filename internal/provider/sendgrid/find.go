package sendgrid

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

// The bounds of one look-up. Email Logs can't search for a custom argument. So each message to a recipient in the window is
// opened to see whether it is ours.
const (
	maxSearches = 3  // recipients that are searched for
	maxDetails  = 10 // messages that are opened
	searchLimit = 100
)

// How far SendGrid's clock may be from ours, and how long after our call it may create the message's id.
const (
	windowBefore = time.Minute
	windowAfter  = 5 * time.Minute
)

// logged is a line of POST /v3/logs ("Email Logs", filter all messages).
type logged struct {
	ID     string `json:"sg_message_id"`
	Sender string `json:"from_email"`
}

// opened is the answer of GET /v3/logs/{sg_message_id} ("Email Logs", filter by message id).
type opened struct {
	Sender     string                     `json:"from_email"`
	CustomArgs map[string]json.RawMessage `json:"custom_args"`
	Events     []json.RawMessage          `json:"events"`
}

// Find implements provider.Finder, by Email Logs: it lists messages to a recipient around the time of the call, and looks among
// them for our custom argument. SendGrid takes all recipients of a call or none, so any of them proves it. Several recipients are
// tried, because a dropped one may not be shown. The API key needs access to Email Logs.
func (c *Client) Find(ctx context.Context, q *provider.Query) (provider.Finding, error) {
	if len(q.Recipients) == 0 {
		return provider.Finding{}, &provider.Error{Class: provider.Misconfigured, Detail: "sendgrid: a message without recipients can't be looked up"}
	}
	left := maxDetails
	for _, recipient := range q.Recipients[:min(len(q.Recipients), maxSearches)] {
		lines, err := c.search(ctx, recipient, q)
		if err != nil {
			return provider.Finding{}, lookupError(err)
		}
		for _, line := range lines {
			if ours, known := c.pace.owner(line.ID); known && ours != q.MessageID.String() {
				continue // an earlier look-up opened it
			}
			if left--; left < 0 {
				return provider.Finding{}, &provider.Error{
					Class:  provider.Transient,
					Detail: fmt.Sprintf("sendgrid: more than %d messages to these recipients at that time, and none of those opened is ours", maxDetails),
				}
			}
			f, err := c.open(ctx, line.ID, q)
			if err != nil || f.Found {
				return f, lookupError(err)
			}
		}
	}
	return provider.Finding{}, nil
}

// search lists the messages to one recipient, those of our sender first. The others count too, because the address of From is not
// always shown as we gave it.
func (c *Client) search(ctx context.Context, recipient string, q *provider.Query) ([]logged, error) {
	const layout = "2006-01-02T15:04:05Z"
	query := fmt.Sprintf(`to_email = %s AND sg_message_id_created_at > TIMESTAMP "%s" AND sg_message_id_created_at < TIMESTAMP "%s"`,
		quote(recipient), q.From.Add(-windowBefore).UTC().Format(layout), q.To.Add(windowAfter).UTC().Format(layout))
	var out struct {
		Messages []logged `json:"messages"`
	}
	in := map[string]any{"query": query, "limit": searchLimit}
	if err := c.pace.wait(ctx); err != nil {
		return nil, err
	}
	if err := c.call(ctx, http.MethodPost, "/v3/logs", in, &out); err != nil {
		return nil, err
	}
	if out.Messages == nil {
		return nil, notLogs()
	}
	lines := slices.DeleteFunc(out.Messages, func(l logged) bool { return l.ID == "" })
	foreign := func(l logged) int {
		if strings.EqualFold(l.Sender, q.Sender) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(lines, func(a, b logged) int { return cmp.Compare(foreign(a), foreign(b)) })
	return lines, nil
}

// notLogs is the error for other JSON, which must not prove that there is no message.
func notLogs() error {
	return &provider.Error{Class: provider.Transient, Detail: "sendgrid: not an answer of Email Logs; check base_url"}
}

// quote writes a string of the query language. Its escapes are not documented, and an address of ours holds at most one kind of
// quote.
func quote(s string) string {
	if strings.Contains(s, "'") {
		return `"` + s + `"`
	}
	return "'" + s + "'"
}

// open reads one message and compares its id with ours.
func (c *Client) open(ctx context.Context, id string, q *provider.Query) (provider.Finding, error) {
	if err := c.pace.wait(ctx); err != nil {
		return provider.Finding{}, err
	}
	var m opened
	if err := c.call(ctx, http.MethodGet, "/v3/logs/"+url.PathEscape(id), nil, &m); err != nil {
		return provider.Finding{}, err
	}
	if m.Sender == "" && m.CustomArgs == nil {
		return provider.Finding{}, notLogs()
	}
	ours := fields(m.CustomArgs).text(provider.MessageKey)
	if c.pace.remember(id, ours); ours != q.MessageID.String() {
		return provider.Finding{}, nil
	}
	f := provider.Finding{Found: true, ProviderMessageID: provider.Cut(acceptedID(id))}
	for _, raw := range m.Events {
		raw = withIDs(raw, id, q.MessageID)
		if e := parse(raw); e.Type != mail.EventUnmapped && e.MessageID == q.MessageID {
			f.Payloads = append(f.Payloads, mail.Payload{Raw: raw, Events: []mail.Event{e}})
		}
	}
	return f, nil
}

// withIDs adds the ids of the message to an event of Email Logs, if only the message around it had them.
func withIDs(raw []byte, id string, ours mail.ID) []byte {
	var f fields
	if json.Unmarshal(raw, &f) != nil || f == nil {
		return raw
	}
	if f.text("sg_message_id") != "" && !f.messageID().IsZero() {
		return raw
	}
	if f.text("sg_message_id") == "" {
		f["sg_message_id"], _ = json.Marshal(id) //nolint:errchkjson // a string always encodes
	}
	f[provider.MessageKey], _ = json.Marshal(ours.String()) //nolint:errchkjson // as above
	full, err := json.Marshal(f)
	if err != nil {
		return raw
	}
	return full
}

// lookupError is esphttp.LookupError, except that a listed message that cannot be opened is tried again.
func lookupError(err error) error {
	perr, ok := errors.AsType[*provider.Error](err)
	if ok && perr.Status == http.StatusNotFound && perr.Class == provider.Misconfigured {
		perr.Class = provider.Transient
	}
	return esphttp.LookupError(err)
}

// lookupsPerMinute is how often an API key may read activity ("Email Activity", rate limit). It is separate from the account's
// limits, which are for sends.
const lookupsPerMinute = 6

// maxOpened caps the messages whose owner is remembered.
const maxOpened = 1000

// pace limits the requests in any minute, and remembers whose message was opened. So a look-up that needs more than a minute's
// requests continues where it stopped. It is safe for concurrent use.
type pace struct {
	mu     sync.Mutex
	made   []time.Time       // the last requests, as many as a minute allows
	opened map[string]string // id of a message -> our id in it, "" for none
}

func newPace(perMinute int) *pace {
	return &pace{made: make([]time.Time, perMinute), opened: map[string]string{}}
}

// take makes room for a request at now, or returns how long it has to wait.
func (p *pace) take(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if wait := p.made[0].Add(time.Minute).Sub(now); wait > 0 {
		return wait
	}
	p.made = append(p.made[1:], now)
	return 0
}

// wait waits for room. It returns an error if the context would end before that.
func (p *pace) wait(ctx context.Context) error {
	for {
		wait := p.take(time.Now())
		if wait == 0 {
			return nil
		}
		if end, ok := ctx.Deadline(); ok && time.Until(end) < wait {
			return &provider.Error{
				Class: provider.Throttled, RetryAfter: wait, Detail: "sendgrid: the look-ups that a minute allows are used up",
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return &provider.Error{Class: provider.Transient, Detail: "sendgrid: cancelled while it waited for its turn", Err: ctx.Err()}
		}
	}
}

// owner returns our id in a message that was opened before.
func (p *pace) owner(id string) (ours string, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ours, known = p.opened[id]
	return ours, known
}

func (p *pace) remember(id, ours string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.opened) >= maxOpened {
		clear(p.opened)
	}
	p.opened[id] = ours
}
