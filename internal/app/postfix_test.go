//go:build drill

package app

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/api"
)

const (
	bouncesAt   = "bounces.example.com" // the bounce domain of docs/postfix.md
	postfixTime = time.Minute           // for all that is waited for
)

// fate is the status and the events that a message must have in the end. Events are type and source, by name.
type fate struct {
	Status string
	Bounce *api.Bounce
	Events []string
}

func fateOf(m *api.Message) fate {
	f := fate{Status: m.Status, Bounce: m.Recipients[0].Bounce}
	for _, e := range m.Events {
		f.Events = append(f.Events, e.Type+" "+e.Source)
	}
	slices.Sort(f.Events) // reports have times in seconds, our own record is finer
	return f
}

// fates are the outcomes of messages at a relay and its next host. Neither has a suppression list: where an ESP would
// suppress, they bounce.
func fates() map[string]fate {
	sent := "accepted response"
	unknown := &api.Bounce{Class: "hard", Reason: "invalid_address", Code: "550", Enhanced: "5.1.1", Text: "550 5.1.1 User unknown"}
	full := &api.Bounce{Class: "soft", Reason: "mailbox_full", Code: "552", Enhanced: "5.2.2", Text: "552 5.2.2 Mailbox full"}
	later := &api.Bounce{Class: "soft", Reason: "undetermined", Code: "450", Enhanced: "4.2.0", Text: "450 4.2.0 Try again later"}
	return map[string]fate{
		"ann":        {"delivered", nil, []string{sent, "delivered webhook"}},
		"bounce":     {"bounced", unknown, []string{sent, "bounced webhook"}},
		"softbounce": {"bounced", full, []string{sent, "bounced webhook"}},
		"suppressed": {"bounced", unknown, []string{sent, "bounced webhook"}},
		"defer":      {"deferred", later, []string{sent, "deferred webhook"}},
		"complaint":  {"delivered", nil, []string{sent, "delivered webhook"}},
	}
}

func TestAPostfixRelayTellsWhatBecameOfItsMail(t *testing.T) {
	t.Parallel()
	owner := needPostfix(t)
	b, lmtp := newBench(t, benchOptions{}), fixedAddr(t)
	r := b.start(t, "SENDGATE_LMTP_LISTEN="+lmtp)
	unknown := &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "User unknown"}
	next := startNextHost(t, map[string]*smtp.SMTPError{
		"bounce":     unknown,
		"suppressed": unknown,
		"softbounce": {Code: 552, EnhancedCode: smtp.EnhancedCode{5, 2, 2}, Message: "Mailbox full"},
		"defer":      {Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 0}, Message: "Try again later"},
	})
	relay := startPostfix(t, owner, next.addr, lmtp)
	addRelay(t, r, relay)

	until := time.Now().Add(postfixTime)
	ids := map[string]string{}
	for local := range fates() {
		ids[local] = send(t, r.api, letterTo("relay", local+"@example.org"))
	}
	for _, id := range ids {
		becomes(t, r.api, id, time.Until(until), "sent")
	}
	close(next.open) // from here on reports come
	reaches := func(local string, want fate) {
		t.Helper()
		got := fateOf(becomes(t, r.api, ids[local], time.Until(until), want.Status))
		if diff := gocmp.Diff(want, got, cmpopts.IgnoreFields(api.Bounce{}, "Rule")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", local, diff)
		}
	}
	for local, want := range fates() {
		reaches(local, want)
	}

	next.takes("defer")
	complain(t, relay, "complaint@example.org", next.parcel("complaint@example.org"))
	reaches("defer", fate{"delivered", nil, []string{"accepted response", "deferred webhook", "delivered webhook"}})
	reaches("complaint", fate{"complained", nil, []string{"accepted response", "complained webhook", "delivered webhook"}})
	suppresses(t, r.api, "bounce", "suppressed", "complaint")
	becomes(t, r.api, send(t, r.api, letterTo("relay", "softbounce@example.org")), time.Until(until), "bounced") // it may have room again
}

// suppresses checks that the next message to each of them is suppressed at once.
func suppresses(t *testing.T, c *api.Client, locals ...string) {
	t.Helper()
	for _, local := range locals {
		again, err := c.Send(t.Context(), letterTo("relay", local+"@example.org"), "")
		if err != nil {
			t.Fatal(err)
		}
		if again.Status != "suppressed" {
			t.Errorf("a second message to %s is %s, want suppressed", local, again.Status)
		}
	}
}

// complaintForm is a report of a feedback loop in the Abuse Reporting Format (RFC 5965), about a recipient, the sender of the
// envelope and the message.
const complaintForm = `From: <fbl@example.org>
To: <fbl@` + bouncesAt + `>
Subject: FW: Order 0
Date: %[1]s
Message-ID: <complaint.1@example.org>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="part"

--part
Content-Type: text/plain; charset=us-ascii

This is an email abuse report for an email message received from 192.0.2.1.

--part
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: Test/1.0
Version: 1
Original-Mail-From: <%[2]s>
Original-Rcpt-To: <%[3]s>
Source-IP: 192.0.2.1

--part
Content-Type: message/rfc822
Content-Disposition: inline

%[4]s
--part--
`

// complain sends what the recipient's provider sends when they call the message spam: through the relay, to the address
// that it was told in docs/postfix.md.
func complain(t *testing.T, relay, email string, p parcel) {
	t.Helper()
	if !strings.HasSuffix(p.from, "@"+bouncesAt) {
		t.Fatalf("envelope sender = %q, want one at %s", p.from, bouncesAt)
	}
	report := fmt.Sprintf(complaintForm, time.Now().UTC().Format(time.RFC1123Z), p.from, email, strings.ReplaceAll(p.raw, "\r\n", "\n"))
	report = strings.ReplaceAll(report, "\n", "\r\n")
	c, err := smtp.Dial(relay)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SendMail("fbl@example.org", []string{"fbl@" + bouncesAt}, strings.NewReader(report)); err != nil {
		t.Fatalf("send the complaint: %v", err)
	}
}

// nextHost is the mail server behind the relay. It does not report itself (RFC 3461).
type nextHost struct {
	addr string
	open chan struct{}   // closed when it begins to answer at RCPT
	end  <-chan struct{} // of the test

	mu      sync.Mutex
	answers map[string]*smtp.SMTPError // at RCPT, by local part; others are taken
	taken   map[string]parcel          // by recipient
}

// parcel is a message as it arrived: with the sender of its envelope.
type parcel struct{ from, raw string }

func startNextHost(t *testing.T, answers map[string]*smtp.SMTPError) *nextHost {
	t.Helper()
	h := &nextHost{open: make(chan struct{}), end: t.Context().Done(), answers: answers, taken: map[string]parcel{}}
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &nextSession{h: h}, nil }))
	s.Domain = "mx.remote.test"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		_ = l.Close() // Serve may not have begun
		<-done
	})
	h.addr = l.Addr().String()
	return h
}

// takes makes it accept the recipients that it refused before.
func (h *nextHost) takes(local string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.answers, local)
}

func (h *nextHost) parcel(email string) parcel {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.taken[email]
}

type nextSession struct {
	h    *nextHost
	from string
	to   []string
}

func (s *nextSession) Mail(from string, _ *smtp.MailOptions) error {
	s.from, s.to = from, nil
	return nil
}

func (s *nextSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	select {
	case <-s.h.open:
	case <-s.h.end:
	}
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	local, _, _ := strings.Cut(to, "@")
	if refusal, ok := s.h.answers[local]; ok {
		return refusal
	}
	s.to = append(s.to, to)
	return nil
}

func (s *nextSession) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	for _, to := range s.to {
		s.h.taken[to] = parcel{from: s.from, raw: string(raw)}
	}
	return nil
}

func (s *nextSession) Reset()        {}
func (s *nextSession) Logout() error { return nil }
