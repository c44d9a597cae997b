package smtp

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// crowd are reports that name n recipients, in each form that can name several.
func crowd(n int, verp string) map[string]string {
	form := func(line string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, line, i)
		}
		return b.String()
	}
	const head = "From: MAILER-DAEMON@x\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n"
	multipart := func(kind, fields string) string {
		return head + "Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/" + kind + "\r\n\r\n" + fields + "\r\n--b--\r\n"
	}
	return map[string]string{
		"status":             multipart("delivery-status", form("Final-Recipient: rfc822;a%d@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n")),
		"original recipient": multipart("delivery-status", form("Original-Recipient: rfc822;a%d@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n")),
		"one group":          multipart("delivery-status", form("Final-Recipient: rfc822;a%d@example.org\r\n")+"Action: failed\r\nStatus: 5.1.1\r\n"),
		"exim's field":       head + "X-Failed-Recipients: a@example.org" + form(", a%d@example.org") + "\r\n\r\n550 5.1.1 no such user\r\n",
		"text":               head + "Subject: failure notice\r\n\r\n" + form("<a%d@x.org>:\r\n550 5.1.1 no\r\n\r\n"),
		"complaint":          multipart("feedback-report", "Feedback-Type: abuse\r\nOriginal-Mail-From: <"+verp+">\r\n"+form("Original-Rcpt-To: a%d@x.org\r\n")),
	}
}

// One report settles at most maxSettled recipients, in whatever form it names them, and its result says how many were left
// out.
func TestOneReportSettlesABoundedCrowd(t *testing.T) {
	t.Parallel()
	c, id := verpClient(t), mail.IDAt(sentAt)
	verp := c.verp.address(id)
	for name, raw := range crowd(300, verp) {
		for _, to := range []string{verp, complaintBox + "@bounces.example.com"} {
			b, err := c.Receive(t.Context(), &provider.Hook{Body: []byte(raw), Now: receivedAt, RcptTo: to})
			if to != verp && name != "complaint" {
				if err == nil {
					t.Errorf("%s was taken in the complaint box", name)
				}
				continue
			}
			if err != nil || len(b.Payloads) != 1 {
				t.Errorf("%s: %+v, %v", name, b, err)
				continue
			}
			events := b.Payloads[0].Events
			if len(events) != maxSettled || b.Dropped == 0 {
				t.Errorf("%s: %d events, %d dropped, want %d and the rest", name, len(events), b.Dropped, maxSettled)
			}
			for _, e := range events {
				if !e.ByMessage || e.MessageID != id {
					t.Errorf("%s: %+v is not known by its message alone", name, e)
				}
			}
		}
	}
	for name, raw := range crowd(maxSettled/2, verp) {
		b, err := c.Receive(t.Context(), &provider.Hook{Body: []byte(raw), Now: receivedAt, RcptTo: verp})
		if err != nil || b.Dropped != 0 {
			t.Errorf("%s: %d dropped of a few, %v", name, b.Dropped, err)
		}
	}
}

// Only the address to which a report came says which message it is about, and not the returned headers or the report's own
// fields.
func TestAReportIsAboutTheMessageOfItsAddress(t *testing.T) {
	t.Parallel()
	c, id, other := verpClient(t), mail.IDAt(sentAt), mail.NewID()
	theirs := c.verp.address(other)
	quotes := "X-Sendgate-Recipient: " + theirs + "\r\nReturn-Path: <" + theirs + ">\r\nX-Envelope-To: " + theirs + "\r\nTo: " + theirs +
		"\r\nMessage-ID: <" + other.String() + "@example.com>\r\nIn-Reply-To: <" + other.String() + "@example.com>\r\n"
	for name, raw := range map[string]string{
		"status": "Content-Type: multipart/report; boundary=b\r\n" + quotes + "\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nOriginal-Envelope-Id: " + other.String() +
			"\r\n\r\nFinal-Recipient: rfc822;ann@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n" + quotes + "\r\n--b--\r\n",
		"text": "From: MAILER-DAEMON@x\r\n" + quotes + "\r\n<ann@example.org>:\r\n550 5.1.1 no such user\r\n\r\n--- Below this line is a copy of the message.\r\n\r\n" + quotes,
	} {
		b, err := c.Receive(t.Context(), &provider.Hook{Body: []byte(raw), Now: receivedAt, RcptTo: c.verp.address(id)})
		if err != nil || len(b.Payloads) != 1 {
			t.Errorf("%s: %+v, %v", name, b, err)
			continue
		}
		for _, e := range append(b.Payloads[0].Events, c.Parse(b.Payloads[0].Raw)...) {
			if e.MessageID != id {
				t.Errorf("%s: an event of message %s, want %s", name, e.MessageID, id)
			}
		}
	}
}

// Reports are accepted by HTTP only if the account allows it. The refusal names the setting, whatever was sent, and comes
// before the body is read. LMTP still works.
func TestReportsByHTTPAreOffUnlessTheAccountTakesThem(t *testing.T) {
	t.Parallel()
	c, id := verpClient(t), mail.IDAt(sentAt)
	on, err := New(verpConfig(t, func(cfg *Config) { cfg.ReportsByHTTP = true }))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := New(Config{Host: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	verp := c.verp.address(id)
	header := http.Header{"X-Envelope-To": {verp}, "X-Envelope-From": {"<>"}}
	for name, h := range map[string]provider.Hook{
		"a report":    {Header: header, Body: fixture(t, "exchange", verp)},
		"a complaint": {Header: http.Header{"X-Envelope-To": {"fbl@bounces.example.com"}}, Body: fixture(t, "feedback_loop", verp)},
		"a guess":     {Header: http.Header{"X-Envelope-To": {"b+1@bounces.example.com"}}, Body: []byte("x")},
		"nothing":     {Header: http.Header{}},
	} {
		h.Now = receivedAt
		for _, err := range []error{c.CheckHeader(h.Header, h.Now), second(c.Receive(t.Context(), &h))} {
			refused, ok := errors.AsType[*provider.HookError](err)
			if !ok || refused.Status != http.StatusForbidden || !strings.Contains(refused.Hint, "reports_by_http") {
				t.Errorf("%s by HTTP: %+v, want 403 that names the setting", name, err)
			}
		}
	}
	if err := on.CheckHeader(header, receivedAt); err != nil {
		t.Errorf("turned on: %v", err)
	}
	if refused, ok := errors.AsType[*provider.HookError](plain.CheckHeader(header, receivedAt)); !ok || refused.Reason != "unconfigured" {
		t.Errorf("without a bounce domain: %+v", refused)
	}
	if _, err := c.Receive(t.Context(), &provider.Hook{RcptTo: verp, Body: fixture(t, "exchange", verp), Now: receivedAt}); err != nil {
		t.Errorf("by LMTP: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// A report whose first line is folded changes nothing of what we write on top of it.
func TestAReportContinuesNoneOfOurFields(t *testing.T) {
	t.Parallel()
	c, id := verpClient(t), mail.IDAt(sentAt)
	const report = "From: MAILER-DAEMON@x\r\n\r\n<ann@example.org>:\r\n550 5.1.1 no such user\r\n"
	for _, first := range []string{"", " ", "\t", " \t \t", " 2001-01-01T00:00:00Z\r\n", "\t" + c.verp.address(mail.NewID()) + "\r\n"} {
		b, err := c.Receive(t.Context(), &provider.Hook{Body: []byte(first + report), Now: receivedAt, RcptTo: c.verp.address(id)})
		if err != nil || len(b.Payloads) != 1 || len(b.Payloads[0].Events) != 1 {
			t.Errorf("%q: %+v, %v", first, b, err)
			continue
		}
		for _, e := range append(b.Payloads[0].Events, c.Parse(b.Payloads[0].Raw)...) {
			if e.MessageID != id || !e.At.Equal(receivedAt) {
				t.Errorf("%q: an event of %s at %s, want %s at %s", first, e.MessageID, e.At, id, receivedAt)
			}
		}
	}
}
