package emulator_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net"
	netmail "net/mail"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/emulator"
)

// lmtpMail is one message to the receiver of bounces.
type lmtpMail struct {
	from, to string
	body     []byte
}

// lmtpInbox is a receiver of bounces. It takes everything unless the test sets another answer.
type lmtpInbox struct {
	URL string

	mu     sync.Mutex
	mails  []lmtpMail
	tries  int
	answer func(n int) error
}

func newLMTPInbox(t *testing.T, answer func(n int) error) *lmtpInbox {
	t.Helper()
	in := &lmtpInbox{answer: answer}
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &lmtpSession{in: in}, nil }))
	s.LMTP = true
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
	in.URL = "lmtp://" + l.Addr().String()
	return in
}

func (in *lmtpInbox) wait(t *testing.T, n int) []lmtpMail {
	t.Helper()
	eventually(t, "the reports", func() bool {
		in.mu.Lock()
		defer in.mu.Unlock()
		return len(in.mails) >= n
	})
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]lmtpMail(nil), in.mails...)
}

type lmtpSession struct {
	in   *lmtpInbox
	mail lmtpMail
}

func (s *lmtpSession) Mail(from string, _ *smtp.MailOptions) error {
	s.mail = lmtpMail{from: from}
	return nil
}

func (s *lmtpSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mail.to = to
	return nil
}

func (s *lmtpSession) Data(r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	s.in.tries++
	if s.in.answer != nil {
		if err := s.in.answer(s.in.tries); err != nil {
			return err
		}
	}
	s.mail.body = body
	s.in.mails = append(s.in.mails, s.mail)
	return nil
}

func (s *lmtpSession) Reset()        {}
func (s *lmtpSession) Logout() error { return nil }

// parts reads a multipart/report (RFC 6522).
func (m *lmtpMail) parts(t *testing.T) (head netmail.Header, kind string, parts map[string]string) {
	t.Helper()
	msg, err := netmail.ReadMessage(bytes.NewReader(m.body))
	if err != nil {
		t.Fatal(err)
	}
	media, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil || media != "multipart/report" {
		t.Fatalf("content type = %q, %v", msg.Header.Get("Content-Type"), err)
	}
	parts = map[string]string{}
	mr := multipart.NewReader(msg.Body, params["boundary"])
	for {
		p, err := mr.NextPart()
		if errors.Is(err, io.EOF) {
			return msg.Header, params["report-type"], parts
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		parts[name] = string(text)
	}
}

// groups reads the groups of fields of a delivery status (RFC 3464 section 2.1).
func statusGroups(t *testing.T, text string) []textproto.MIMEHeader {
	t.Helper()
	var all []textproto.MIMEHeader
	r := textproto.NewReader(bufio.NewReader(strings.NewReader(text)))
	for {
		h, err := r.ReadMIMEHeader()
		if len(h) > 0 {
			all = append(all, h)
		}
		if err != nil {
			return all
		}
	}
}

// relay sends one message with a return path, and options for each recipient.
func (b *server) relay(t *testing.T, sender string, opts *smtp.RcptOptions, to ...string) {
	t.Helper()
	c := b.login(t)
	if err := c.Mail(sender, &smtp.MailOptions{EnvelopeID: "env-1", Return: smtp.DSNReturnHeaders}); err != nil {
		t.Fatal(err)
	}
	for _, r := range to {
		if err := c.Rcpt(r, opts); err != nil {
			t.Fatal(err)
		}
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(mimeMessage)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

const returnPath = "b+0192.abcdefghij@bounces.example.com"

func TestRelayReportsToTheReturnPath(t *testing.T) {
	t.Parallel()
	in := newLMTPInbox(t, nil)
	b := start(t, fast("smtp", emulator.Hook{"url": in.URL}))
	b.relay(t, returnPath, &smtp.RcptOptions{
		Notify: []smtp.DSNNotify{smtp.DSNNotifyFailure}, OriginalRecipientType: smtp.DSNAddressTypeRFC822, OriginalRecipient: "Bounce@example.org",
	}, "bounce+1@example.org", "ann@example.org", "bounce+2@example.org", "defer@example.org")
	m := in.wait(t, 1)[0]
	head, kind, parts := m.parts(t)
	if m.from != "" || m.to != returnPath || kind != "delivery-status" || head.Get("Auto-Submitted") != "auto-replied" {
		t.Errorf("mail from %q to %q, %s, %v", m.from, m.to, kind, head)
	}
	got := statusGroups(t, parts["message/delivery-status"])
	id := b.Ledger()[0].ProviderMessageID
	if len(got) != 3 || got[0].Get("Original-Envelope-Id") != "env-1" || got[0].Get("X-Postfix-Queue-Id") != id {
		t.Fatalf("delivery status = %v", got)
	}
	for i, to := range []string{"bounce+1@example.org", "bounce+2@example.org"} {
		g := got[i+1]
		want := []string{"rfc822; " + to, "rfc822;Bounce@example.org", "failed", "5.1.1"}
		have := []string{g.Get("Final-Recipient"), g.Get("Original-Recipient"), g.Get("Action"), g.Get("Status")}
		if diff := cmp.Diff(want, have); diff != "" || !strings.HasPrefix(g.Get("Diagnostic-Code"), "smtp; 550 5.1.1 <"+to+">") {
			t.Errorf("recipient %d (-want +got):\n%s%s", i, diff, g.Get("Diagnostic-Code"))
		}
	}
	returned := parts["text/rfc822-headers"]
	if !strings.Contains(returned, "Return-Path: <"+returnPath+">") || !strings.Contains(returned, "Message-ID: <m1@") {
		t.Errorf("returned = %q", returned)
	}
	b.settled(t, "smtp", func(s emulator.HookStats) bool { return s.Events == 1 })
}

func TestRelayReportsWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	ask := func(n ...smtp.DSNNotify) *smtp.RcptOptions { return &smtp.RcptOptions{Notify: n} }
	tests := []struct {
		name, to string
		opts     *smtp.RcptOptions
		want     []string // action and status
	}{
		{"delivered, not asked", "ann@example.org", nil, nil},
		{"delivered, asked", "ann@example.org", ask(smtp.DSNNotifySuccess), []string{"relayed 2.0.0"}},
		{"late, not asked", "defer@example.org", nil, []string{"delayed 4.3.0"}},
		{"late, asked", "defer@example.org", ask(smtp.DSNNotifyDelayed, smtp.DSNNotifySuccess), []string{"delayed 4.3.0", "relayed 2.0.0"}},
		{"late, asked for failures", "defer@example.org", ask(smtp.DSNNotifyFailure), nil},
		{"full", "softbounce@example.org", nil, []string{"failed 5.2.2"}},
		{"never", "bounce@example.org", ask(smtp.DSNNotifyNever), nil},
		{"opened", "open@example.org", nil, nil},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			in := newLMTPInbox(t, nil)
			b := start(t, fast("smtp", emulator.Hook{"url": in.URL}))
			b.relay(t, returnPath, tc.opts, tc.to)
			b.settled(t, "smtp", func(s emulator.HookStats) bool { return s.Events == int64(len(tc.want)) })
			var got []string
			for _, m := range in.wait(t, len(tc.want)) {
				_, _, parts := m.parts(t)
				g := statusGroups(t, parts["message/delivery-status"])[1]
				got = append(got, g.Get("Action")+" "+g.Get("Status"))
			}
			slices.Sort(got) // one may overtake the other
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("reports (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRelayPassesAComplaintOn(t *testing.T) {
	t.Parallel()
	in := newLMTPInbox(t, nil)
	b := start(t, fast("smtp", emulator.Hook{"url": in.URL}))
	b.relay(t, returnPath, nil, "complaint@example.org")
	m := in.wait(t, 1)[0]
	_, kind, parts := m.parts(t)
	fields := statusGroups(t, parts["message/feedback-report"])[0]
	if m.to != returnPath || kind != "feedback-report" || fields.Get("Feedback-Type") != "abuse" || fields.Get("Version") != "1" ||
		fields.Get("Original-Rcpt-To") != "<complaint@example.org>" || fields.Get("User-Agent") == "" {
		t.Errorf("report to %q, %s: %v", m.to, kind, fields)
	}
	if !regexp.MustCompile(`(?m)^Subject: .*$`).MatchString(parts["text/rfc822-headers"]) {
		t.Errorf("returned = %q", parts["text/rfc822-headers"])
	}
}

func TestRelayReportsNothingToANullSender(t *testing.T) {
	t.Parallel()
	in := newLMTPInbox(t, nil)
	opt := fast("smtp", emulator.Hook{"url": in.URL})
	opt.EventPace = 300 * time.Millisecond
	b := start(t, opt)
	b.relay(t, "", nil, "bounce@example.org")
	if n := b.Stats()["smtp"].Hooks.Pending; n != 0 {
		t.Errorf("%d events of a null sender are planned", n)
	}
	b.relay(t, returnPath, nil, "bounce@example.org")
	in.wait(t, 1)
	s := b.settled(t, "smtp", func(s emulator.HookStats) bool { return s.Events > 0 })
	if diff := cmp.Diff(emulator.HookStats{Events: 1, Posted: 1, OK: 1, Refused: map[int]int64{}}, s); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

func TestRelayRepeats4yzAndGivesUpOn5yz(t *testing.T) {
	t.Parallel()
	in := newLMTPInbox(t, func(n int) error {
		switch n {
		case 1:
			return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "later"}
		case 3:
			return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "no"}
		}
		return nil
	})
	b := start(t, fast("smtp", emulator.Hook{"url": in.URL}))
	b.relay(t, returnPath, nil, "bounce@example.org")
	in.wait(t, 1)
	b.relay(t, returnPath, nil, "bounce@example.org")
	s := b.settled(t, "smtp", func(s emulator.HookStats) bool { return s.GivenUp == 1 })
	want := emulator.HookStats{Events: 1, Posted: 3, OK: 1, Refused: map[int]int64{451: 1, 550: 1}, Retried: 1, GivenUp: 1}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

func TestRelayKnowsNoSuppressionList(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	c := b.login(t)
	if err := c.Mail("b@example.com", nil); err != nil {
		t.Fatal(err)
	}
	wantReply(t, c.Rcpt("suppressed@example.org", nil), 550, smtp.EnhancedCode{5, 1, 1}, "Recipient address rejected")
}
