package emulator_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/sendgate/sendgate/internal/emulator"
)

// dial connects without logging in.
func (b *server) dial(t *testing.T) *smtp.Client {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", b.SMTPAddr())
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	c := smtp.NewClient(conn)
	c.CommandTimeout, c.SubmissionTimeout = 20*time.Second, 20*time.Second
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (b *server) login(t *testing.T) *smtp.Client {
	t.Helper()
	c := b.dial(t)
	if err := c.Auth(sasl.NewPlainClient("", key("smtp", "username"), key("smtp", "password"))); err != nil {
		t.Fatalf("auth: %v", err)
	}
	return c
}

// deliver sends one message over an open connection and returns the reply's text.
func deliver(c *smtp.Client, mime string, to ...string) (string, error) {
	if err := c.Mail("b+1@bounces.example.com", nil); err != nil {
		return "", err
	}
	for _, r := range to {
		if err := c.Rcpt(r, nil); err != nil {
			return "", err
		}
	}
	w, err := c.Data()
	if err != nil {
		return "", err
	}
	if _, err := w.Write([]byte(mime)); err != nil {
		return "", err
	}
	res, err := w.CloseWithResponse()
	if err != nil {
		return "", err
	}
	return res.StatusText, nil
}

func wantReply(t *testing.T, err error, code int, enhanced smtp.EnhancedCode, text string) {
	t.Helper()
	var got *smtp.SMTPError
	if !errors.As(err, &got) || got.Code != code || got.EnhancedCode != enhanced || !strings.Contains(got.Message, text) {
		t.Errorf("error = %#v, want %d %v ...%s...", err, code, enhanced, text)
	}
}

func TestSMTPTakesMessagesOverOneConnection(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	c := b.login(t)
	for _, ext := range []string{"SIZE", "PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "AUTH"} {
		if ok, _ := c.Extension(ext); !ok {
			t.Errorf("EHLO does not offer %s", ext)
		}
	}
	queued := regexp.MustCompile(`Ok: queued as [0-9A-F]{11}$`)
	for range 2 {
		text, err := deliver(c, mimeMessage, "ann@example.org", "Bounce@example.org")
		if err != nil || !queued.MatchString(text) {
			t.Fatalf("deliver = %q, %v", text, err)
		}
		if id := b.Ledger()[len(b.Ledger())-1].ProviderMessageID; !strings.HasSuffix(text, id) {
			t.Errorf("ledger has queue id %q, reply is %q", id, text)
		}
	}
	want := emulator.Entry{
		Provider: "smtp", MessageID: "m1", From: "shop@example.com", Subject: "Grüße", Outcome: "bounce",
		To: []string{"ann@example.org", "Bounce@example.org"},
	}
	b.wantLedger(t, want, want)
	b.wantStats(t, "smtp", emulator.Stats{Requests: 2, Accepted: 2})
}

func TestSMTPChecksTheCredential(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	wantReply(t, b.dial(t).Auth(sasl.NewPlainClient("", key("smtp", "username"), "wrong")), 535, smtp.EnhancedCode{5, 7, 8}, "authentication failed")
	_, err := deliver(b.dial(t), mimeMessage, "ann@example.org")
	wantReply(t, err, 530, smtp.EnhancedCode{5, 7, 0}, "Authentication required")
	b.wantLedger(t)
}

func TestSMTPWithoutUserNeedsNoAuth(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{Credentials: map[string]map[string]string{"smtp": {}}})
	c := b.dial(t)
	if ok, _ := c.Extension("AUTH"); ok {
		t.Error("EHLO offers AUTH")
	}
	if _, err := deliver(c, mimeMessage, "ann@example.org"); err != nil {
		t.Errorf("deliver: %v", err)
	}
}

func TestSMTPRefusesSingleRecipients(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	c := b.login(t)
	if err := c.Mail("", nil); err != nil {
		t.Fatal(err)
	}
	wantReply(t, c.Rcpt("reject+1@example.org", nil), 550, smtp.EnhancedCode{5, 1, 1}, "<reject+1@example.org>: Recipient address rejected")
	wantReply(t, c.Rcpt("ann@-", nil), 501, smtp.EnhancedCode{5, 1, 3}, "Bad recipient address syntax")
	wantReply(t, c.Rcpt("änn@example.org", nil), 553, smtp.EnhancedCode{5, 6, 7}, "SMTPUTF8")
	if err := c.Rcpt("ann@example.org", nil); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("From: a@example.com\r\nTo: x y\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b.wantLedger(t, emulator.Entry{Provider: "smtp", From: "a@example.com", Outcome: "delivered", To: []string{"ann@example.org"}})
}

func TestSMTPCarriesUTF8Addresses(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	c := b.login(t)
	if err := c.Mail("b@example.com", &smtp.MailOptions{UTF8: true}); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("änn@exämple.org", nil); err != nil {
		t.Errorf("Rcpt with SMTPUTF8: %v", err)
	}
}

func TestSMTPRefusesWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	c := b.login(t)
	wantReply(t, c.Mail("b@example.com", &smtp.MailOptions{Size: 10_240_001}), 552, smtp.EnhancedCode{5, 3, 4}, "size")
	line := strings.Repeat("x", 76) + "\r\n"
	_, err := deliver(c, "From: a@example.com\r\n\r\n"+strings.Repeat(line, 10_240_000/len(line)+1), "ann@example.org")
	wantReply(t, err, 552, smtp.EnhancedCode{5, 3, 4}, "size")
	b.wantLedger(t)
}

func TestSMTPTakesChunkedMessages(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{Credentials: map[string]map[string]string{"smtp": {}}})
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", b.SMTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "EHLO x\r\nMAIL FROM:<b@example.com>\r\nRCPT TO:<ann@example.org>\r\n"+
		"BDAT 20\r\n%sBDAT %d LAST\r\n%sQUIT\r\n", mimeMessage[:20], len(mimeMessage)-20, mimeMessage[20:])
	r := bufio.NewScanner(conn)
	var replies []string
	for r.Scan() {
		replies = append(replies, r.Text())
	}
	if got := strings.Join(replies, "\n"); !strings.Contains(got, "250 2.0.0 Ok: queued as ") {
		t.Errorf("replies:\n%s", got)
	}
	if n := len(b.Ledger()); n != 1 {
		t.Errorf("ledger has %d entries, want 1", n)
	}
}

func TestStopEndsSMTPConnections(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	idle, open := b.login(t), b.login(t)
	if err := open.Mail("b@example.com", nil); err != nil {
		t.Fatal(err)
	}
	if err := b.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if idle.Noop() == nil || open.Noop() == nil {
		t.Error("a connection outlived Stop")
	}
	b.wantStats(t, "smtp", emulator.Stats{Requests: 1, Rejected: 1})
}
