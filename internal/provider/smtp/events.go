package smtp

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

var (
	_ provider.EventParser   = (*Client)(nil)
	_ provider.HeaderChecker = (*Client)(nil)
)

// maxReportAge is how old a message may be when a report about it comes. Queues give up within a week.
const maxReportAge = 30 * 24 * time.Hour

// The header fields that hold the envelope of a request over HTTP, because a message does not hold it.
const (
	envelopeTo   = "X-Envelope-To"
	envelopeFrom = "X-Envelope-From"
)

// The fields that we put on top of a report before it is kept, so that Parse needs no envelope.
const (
	keptRecipient = "X-Sendgate-Recipient" // the bounce address of the message that the report is about
	keptReceived  = "X-Sendgate-Received"  // RFC 3339
)

// maxSettled caps the recipients that one report can have events for. Every mail server takes 100 recipients in one transaction
// (RFC 5321 section 4.5.3.1.8), and one report covers one transaction. Without the cap, any one of a thousand recipients could
// write a report about all of them. Recipients beyond the cap are counted and reported, and keep their state.
const maxSettled = 100

// Caps on the stored part of a report, in bytes: the start of the message that is returned, and the body of a bounce in free
// text. Nothing beyond them is read.
const (
	maxOriginal = 8 << 10
	maxFreeBody = 16 << 10
	maxNoBody   = 64 << 10 // of a message without an empty line
)

// Receive implements provider.EventParser for one report, which came by LMTP or, with its envelope in header fields, by HTTP. It
// is authentic if its recipient is our bounce address of a message that is at most 30 days old. It is also authentic if its
// recipient is the complaint box and the complaint quotes such an address. Any other mail to these addresses that is not a
// report (RFC 3834, RFC 6522) is accepted and ignored.
func (c *Client) Receive(_ context.Context, h *provider.Hook) (provider.Batch, error) {
	if h.RcptTo == "" {
		if err := c.CheckHeader(h.Header, h.Now); err != nil {
			return provider.Batch{}, err
		}
	}
	if c.verp == nil {
		return provider.Batch{}, errUnconfigured
	}
	if len(h.Body) > provider.MaxHook {
		return provider.Batch{}, hookError(http.StatusRequestEntityTooLarge, "too_large", nil)
	}
	to, null := envelope(h)
	addr, id, ok := c.about(to, h.Body)
	if !ok {
		return provider.Batch{}, hookError(http.StatusForbidden, "signature", errors.New("recipient is no bounce address of this account"))
	}
	if h.Now.Sub(id.Time()) > maxReportAge {
		return provider.Batch{}, hookError(http.StatusForbidden, "timestamp", errors.New("message was sent more than 30 days ago"))
	}
	raw := keep(addr, h.Now, h.Body)
	r := takeApart(raw)
	switch {
	case !null && !r.isReport():
		return provider.Batch{Note: "no report"}, nil
	case r.isAutoReply():
		return provider.Batch{Note: "automatic reply"}, nil
	}
	events := r.events()
	return provider.Batch{Payloads: []mail.Payload{{Raw: raw, Events: events}}, Dropped: r.dropped}, nil
}

// CheckHeader implements provider.HeaderChecker: reports come by HTTP only if the account allows it. The bounce address is the
// only proof of a report. Every recipient can read it, and anyone on the Internet can post; by LMTP only the relay comes.
func (c *Client) CheckHeader(http.Header, time.Time) error {
	switch {
	case c.verp == nil:
		return errUnconfigured
	case c.cfg.ReportsByHTTP:
		return nil
	}
	return &provider.HookError{
		Status: http.StatusForbidden, Reason: "reports_by_http", Err: errors.New("set reports_by_http to take reports by HTTP"),
		Hint: "reports of a relay come by LMTP; the setting reports_by_http of the account lets them come by HTTP",
	}
}

var errUnconfigured = hookError(http.StatusForbidden, "unconfigured", errors.New("set bounce_domain and verp_key to take reports"))

func hookError(status int, reason string, err error) error {
	return &provider.HookError{Status: status, Reason: reason, Err: err}
}

// Knows reports whether mail for this address is for this account, so that Receive could take it. The server uses it to refuse
// all other recipients before it reads their mail.
func (c *Client) Knows(rcptTo string) bool {
	if c.verp == nil {
		return false
	}
	_, ok := c.verp.open(rcptTo)
	return ok || c.verp.isComplaintBox(rcptTo)
}

// envelope returns the recipient, and whether the sender is the null address, which notifications have (RFC 5321 section
// 4.5.5). Over HTTP a missing sender does not count as null.
func envelope(h *provider.Hook) (to string, null bool) {
	if h.RcptTo != "" {
		return h.RcptTo, h.MailFrom == ""
	}
	to = strings.Trim(h.Header.Get(envelopeTo), " <>")
	from := h.Header.Values(envelopeFrom)
	return to, len(from) > 0 && strings.Trim(from[0], " <>") == ""
}

// about finds the bounce address that a report is about: its recipient or, in the complaint box, the address that the
// complaint quotes. Operators of feedback loops send to one address for all mail.
func (c *Client) about(to string, body []byte) (string, mail.ID, bool) {
	if id, ok := c.verp.open(to); ok {
		return to, id, true
	}
	if !c.verp.isComplaintBox(to) {
		return "", mail.ID{}, false
	}
	r := takeApart(body)
	if r.feedback == nil {
		return "", mail.ID{}, false
	}
	return c.verp.search(append(append(r.feedback, '\n'), r.original...))
}

var (
	statusPart   = regexp.MustCompile(`(?im)^content-type:[ \t]*(?:\r?\n[ \t]+)?message/(?:delivery-status|global-delivery-status|feedback-report)`)
	originalPart = regexp.MustCompile(`(?im)^content-type:[ \t]*(?:\r?\n[ \t]+)?(?:message/rfc822|message/global|text/rfc822-headers)`)
)

// keep makes the stored form of a report: our fields, then the message without most of the returned original. The result is at
// most provider.MaxHook long. Leading blanks are cut: a folded first line would continue our last field.
func keep(addr string, now time.Time, body []byte) []byte {
	body = bytes.TrimLeft(body, " \t")
	end := len(body)
	if status := statusPart.FindIndex(body); status != nil {
		if original := originalPart.FindIndex(body[status[1]:]); original != nil {
			end = status[1] + original[1] + maxOriginal
		}
	} else if head, _, ok := cutHeader(body); ok {
		end = len(head) + maxFreeBody
	} else {
		end = maxNoBody
	}
	raw := []byte(keptRecipient + ": " + addr + "\r\n" + keptReceived + ": " + now.UTC().Format(time.RFC3339) + "\r\n")
	return append(raw, body[:min(end, len(body), provider.MaxHook-len(raw))]...)
}

// Parse implements provider.EventParser. It takes any bytes; a text that says nothing about a delivery is one unmapped event.
func (c *Client) Parse(raw []byte) []mail.Event { return takeApart(raw).events() }

func (r *report) events() []mail.Event {
	base := mail.Event{MessageID: r.messageID(), At: r.date(), ByMessage: true}
	var events []mail.Event
	switch {
	case r.status != nil:
		events = r.deliveries(base)
	case r.feedback != nil:
		events = r.complaints(base)
	}
	if len(events) == 0 {
		events = r.unstructured(base)
	}
	r.dropped = max(len(events)-maxSettled, 0)
	events = events[:len(events)-r.dropped]
	for i := range events {
		events[i].UniqueID = r.uniqueID(&events[i])
	}
	return events
}

// messageID is the id in the bounce address that Receive put on top.
func (r *report) messageID() mail.ID {
	local, _, _ := strings.Cut(strings.ToLower(r.header.Get(keptRecipient)), "@")
	id, _, _ := splitVERP(local)
	return id
}

// cutHeader splits a message at its first empty line.
func cutHeader(b []byte) (head, body []byte, ok bool) {
	crlf, lf := bytes.Index(b, []byte("\r\n\r\n")), bytes.Index(b, []byte("\n\n"))
	switch {
	case crlf >= 0 && (lf < 0 || crlf < lf):
		return b[:crlf+2], b[crlf+4:], true
	case lf >= 0:
		return b[:lf+1], b[lf+2:], true
	default:
		return b, nil, false
	}
}
