package smtp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

const testVERPKey = "0123456789abcdef0123456789abcdef"

var (
	sentAt     = time.Date(2026, 11, 24, 9, 59, 0, 0, time.UTC)
	receivedAt = time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC)
)

func verpConfig(t testing.TB, set func(*Config)) Config {
	t.Helper()
	cfg := Config{Host: "127.0.0.1", BounceDomain: "bounces.example.com", VERPKey: seal.NewSecret(testVERPKey)}
	if set != nil {
		set(&cfg)
	}
	return cfg
}

func verpClient(t testing.TB) *Client {
	t.Helper()
	c, err := New(verpConfig(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// fixture reads a report as it comes over the network, with the bounce address of the message in it.
func fixture(t testing.TB, name, verp string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/reports", name+".eml"))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(strings.NewReplacer("\n", "\r\n", "@VERP@", verp).Replace(string(b)))
}

// line is an event on one line.
func line(e mail.Event) string {
	s := fmt.Sprintf("%s %s %s %s", e.Type, e.Name, e.Recipient, e.At.Format("15:04:05"))
	if b := e.Bounce; b != nil {
		s += fmt.Sprintf(" %s/%s %s %s [%s]", b.Class, b.Reason, b.Code, b.Enhanced, b.Text)
	}
	if e.Detail != "" {
		s += " (" + e.Detail + ")"
	}
	return s
}

// reports are the expected events of the fixtures. If a date is before the message was sent, the time of receipt counts.
var reports = map[string][]string{
	// RFC 3464 appendix E, in its order.
	"rfc3464_simple": {"bounced failed louisl@larry.slip.umd.edu 15:00:00 soft/connection 426 4.0.0 [426 connection timed out]"},
	"rfc3464_multi": {
		"bounced failed arathib@vnet.ibm.com 15:00:00 hard/invalid_address 550 5.0.0 [550 'arathib@vnet.IBM.COM' is not a registered gateway user]",
		"deferred delayed johnh@hpnjld.njd.hp.com 15:00:00 soft/undetermined  4.0.0 []",
		"bounced failed wsnell@sdcc13.ucsd.edu 15:00:00 hard/invalid_address 550 5.0.0 [550 user unknown]",
	},
	"rfc3464_gateway": {"bounced failed  15:00:00 soft/undetermined  5.0.0 []"},
	"rfc3464_delayed": {"deferred delayed thomas@de-montfort.ac.uk 15:00:00 soft/undetermined  4.0.0 []"},

	// RFC 5965 appendix B.
	"rfc5965_simple": {"complained abuse  15:00:00"},
	"rfc5965_full":   {"complained abuse user@example.com 15:00:00"},
	"feedback_loop":  {"complained abuse  12:00:00"},

	// As the servers write them.
	"postfix_failed": {
		"bounced failed ann@example.org 10:00:05 hard/invalid_address 550 5.1.1 [550 5.1.1 <ann@example.org>: Recipient address rejected: User unknown]",
		"bounced failed bob@gone.example 10:00:05 hard/invalid_domain  5.4.4 [Host or domain name not found. Name service error for name=gone.example type=A: Host not found]",
	},
	"postfix_delayed": {
		"deferred delayed ann@example.org 14:00:05 soft/connection  4.4.1 [connect to mx.example.org[192.0.2.25]:25: Connection timed out]" +
			" (will retry until Sun, 29 Nov 2026 10:00:03 +0000 (UTC))",
	},
	"postfix_success": {
		"delivered relayed ann+tag@example.org 10:00:05",
		"delivered delivered jürgen@example.org 10:00:05",
		"delivered expanded list@example.org 10:00:05",
	},
	"exchange":      {"bounced failed ann@contoso.example 10:00:07 hard/invalid_address 550 5.1.10 [550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup]"},
	"sendmail":      {"bounced failed ann@example.org 10:00:08 soft/mailbox_full 552 5.2.2 [552 5.2.2 Over quota]"},
	"sendmail_text": {"deferred warning ann@example.org 10:00:08 soft/connection 451 4.4.1 [451 4.4.1 <ann@example.org>... Operation timed out with mx.example.org.]"},
	"qmail": {
		"bounced bounce ann@example.org 10:00:09 hard/invalid_address 550 5.1.1 [Remote host said: 550 5.1.1 <ann@example.org>: User unknown]",
		"bounced bounce bob@example.org 10:00:09 hard/invalid_address  5.1.1 [Sorry, no mailbox here by that name. (#5.1.1)]",
		"bounced bounce full@example.org 10:00:09 soft/mailbox_full   [user is over quota]",
	},
	"exim_text": {"bounced bounce ann@example.org 10:00:10 policy/blocked_policy 550 5.7.1 [550 5.7.1 Service unavailable; client [192.0.2.10] blocked using a list]"},
	"receipt":   {" disposition-notification  10:00:12"},
	"broken": {
		"bounced failed Ann@example.org 15:00:00 hard/inactive 550 5.2.1 [550 Account disabled]",
		" pondered bob@example.org 15:00:00",
	},
}

func TestReportsBecomeEvents(t *testing.T) {
	t.Parallel()
	c, id := verpClient(t), mail.IDAt(sentAt)
	files, err := filepath.Glob("testdata/reports/*.eml")
	if err != nil || len(files) != len(reports)+1 { // a vacation is not kept
		t.Fatalf("fixtures = %d, expectations = %d, %v", len(files), len(reports), err)
	}
	for name, want := range reports {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for ending, raw := range map[string][]byte{
				"CRLF": fixture(t, name, c.verp.address(id)),
				"LF":   bytes.ReplaceAll(fixture(t, name, c.verp.address(id)), []byte("\r\n"), []byte("\n")),
			} {
				b, err := c.Receive(t.Context(), &provider.Hook{Body: raw, Now: receivedAt, RcptTo: c.verp.address(id)})
				if err != nil || len(b.Payloads) != 1 {
					t.Fatalf("%s: Receive = %+v, %v, want one payload", ending, b, err)
				}
				var got []string
				for _, e := range b.Payloads[0].Events {
					got = append(got, line(e))
					if e.MessageID != id || e.UniqueID == "" {
						t.Errorf("%s: message %s, unique id %q", ending, e.MessageID, e.UniqueID)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: events (-want +got):\n%s", ending, diff)
				}
				if diff := cmp.Diff(b.Payloads[0].Events, c.Parse(b.Payloads[0].Raw)); diff != "" {
					t.Errorf("%s: read again (-want +got):\n%s", ending, diff)
				}
			}
		})
	}
}

// TestOddReports has cases that the fixtures of whole servers do not show.
func TestOddReports(t *testing.T) {
	t.Parallel()
	c, id := verpClient(t), mail.IDAt(sentAt)
	const head = "From: MAILER-DAEMON@x.test\nDate: Tue, 24 Nov 2026 10:00:00 +0000\n"
	status := func(fields string) string {
		return "Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n" + fields + "\n"
	}
	const original = "--b\nContent-Type: text/rfc822-headers\n\nSubject: x\nTo: \"Ann, the First\" <ann@example.org>\n"
	for name, tc := range map[string]struct{ raw, want string }{
		"a delay says nothing final": {
			head + status("Final-Recipient: rfc822;ann@example.org\nAction: delayed\nStatus: 5.1.1\n"),
			"deferred delayed ann@example.org 10:00:00 soft/undetermined  5.1.1 []",
		},
		"the reporter's verdict outweighs the last reply": {
			head + status("Final-Recipient: rfc822;ann@example.org\nAction: failed\nStatus: 5.4.7\nDiagnostic-Code: smtp; 450 4.2.0 later\n"),
			"bounced failed ann@example.org 10:00:00 soft/timed_out 450 5.4.7 [450 4.2.0 later]",
		},
		"the last try is when it happened": {
			head + status("Final-Recipient: rfc822;ann@example.org\nAction: relayed\nLast-Attempt-Date: Tue, 24 Nov 2026 10:59:58 +0100\n"),
			"delivered relayed ann@example.org 09:59:58",
		},
		"a try in the future is not": {
			head + status("Final-Recipient: rfc822;ann@example.org\nAction: relayed\nLast-Attempt-Date: Tue, 24 Nov 2026 15:10:00 +0000\n"),
			"delivered relayed ann@example.org 10:00:00",
		},
		"a recipient of another system is left to who knows the message": {
			head + status("Final-Recipient: x400; /G=ann/\nAction: failed\n") + original,
			"bounced failed  10:00:00 soft/undetermined   []",
		},
		"the first part counts": {
			head + status("Final-Recipient: rfc822;ann@example.org\nAction: relayed\n") +
				"--b\nContent-Type: message/delivery-status\n\nFinal-Recipient: rfc822;bob@example.org\nAction: failed\n\n--b--\n",
			"delivered relayed ann@example.org 10:00:00",
		},
		"a report in the original is not this one": {
			head + "Subject: Undelivered\nContent-Type: multipart/mixed; boundary=o\n\n--o\n\n550 5.2.2 no\n" +
				"--o\nContent-Type: message/rfc822\n\nTo: ann@example.org\n" + status("Final-Recipient: rfc822;eve@example.org\nAction: failed\n"),
			"bounced bounce  10:00:00 soft/mailbox_full 550 5.2.2 [550 5.2.2 no]",
		},
		"a wrapped report": {
			head + "Content-Type: multipart/mixed; boundary=a\n\n--a\n" + status("Final-Recipient: rfc822;ann@example.org\nAction: failed\nStatus: 5.1.1\n"),
			"bounced failed ann@example.org 10:00:00 hard/invalid_address  5.1.1 []",
		},
		"words below the paragraph": {
			head + "Subject: failure notice\n\n<ann@example.org>:\nno room\n\n550 5.1.1 is what it means to be unknown\n",
			"bounced bounce ann@example.org 10:00:00 soft/undetermined   [no room]",
		},
		"To of the original does not say who of several it was": {
			head + "Subject: Undelivered mail\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nno such user\n" + original,
			"bounced bounce  10:00:00 hard/invalid_address   [no such user]",
		},
		"nobody named": {
			head + "Subject: Undelivered mail\n\nno such user\n",
			"bounced bounce  10:00:00 hard/invalid_address   [no such user]",
		},
		"a feedback that is none":       {head + "Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/feedback-report\n\nFeedback-Type: not-spam\nOriginal-Rcpt-To: ann@example.org\n", " not-spam ann@example.org 10:00:00"},
		"an opt-out":                    {head + "Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/feedback-report\n\nFeedback-Type: opt-out\nOriginal-Rcpt-To: <ann@example.org>\n", "unsubscribed opt-out ann@example.org 10:00:00"},
		"an empty feedback":             {head + "Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/feedback-report\n\n\n--b--", " unreadable  10:00:00"},
		"an empty status is a bounce":   {head + status(""), "bounced bounce  10:00:00 soft/undetermined   []"},
		"no message":                    {"zebra", " unreadable  15:00:00"},
		"a recipient line of a warning": {"Subject: Warning: delayed 24 hours\nDate: Tue, 24 Nov 2026 10:00:00 +0000\n\n<ann@example.org>\n550 5.1.1 later\n", "deferred warning ann@example.org 10:00:00 soft/undetermined 550 5.1.1 [550 5.1.1 later]"},
	} {
		b, err := c.Receive(t.Context(), &provider.Hook{Body: []byte(tc.raw), Now: receivedAt, RcptTo: c.verp.address(id)})
		if err != nil || len(b.Payloads) != 1 || len(b.Payloads[0].Events) != 1 {
			t.Errorf("%s: Receive = %+v, %v, want one event", name, b, err)
			continue
		}
		if got := line(b.Payloads[0].Events[0]); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// TestReceiveIsForOurBounceAddressesOnly goes through the envelopes, by LMTP and over HTTP.
func TestReceiveIsForOurBounceAddressesOnly(t *testing.T) {
	t.Parallel()
	c, err := New(verpConfig(t, func(cfg *Config) { cfg.ReportsByHTTP = true }))
	if err != nil {
		t.Fatal(err)
	}
	id := mail.IDAt(sentAt)
	ours := c.verp.address(id)
	other, err := New(verpConfig(t, func(cfg *Config) { cfg.VERPKey = seal.NewSecret(strings.Repeat("x", 32)) }))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := New(Config{Host: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	flipped := strings.Replace(ours, "b+0", "b+1", 1)
	header := func(to, from string) http.Header {
		return http.Header{"X-Envelope-To": {to}, "X-Envelope-From": {from}}
	}
	bounce, letter := fixture(t, "qmail", ours), []byte("From: a@example.org\r\nSubject: hello\r\n\r\n550 5.1.1\r\n")
	complaint := fixture(t, "feedback_loop", ours)
	for name, tc := range map[string]struct {
		c      *Client
		h      provider.Hook
		status int
		reason string
		note   bool
	}{
		"lmtp":                       {c: c, h: provider.Hook{RcptTo: ours, Body: bounce}},
		"upper case":                 {c: c, h: provider.Hook{RcptTo: strings.ToUpper(ours), Body: bounce}},
		"http":                       {c: c, h: provider.Hook{Header: header(ours, ""), Body: bounce}},
		"http in brackets":           {c: c, h: provider.Hook{Header: header("<"+ours+">", "<>"), Body: bounce}},
		"a person":                   {c: c, h: provider.Hook{RcptTo: ours, MailFrom: "a@example.org", Body: letter}, note: true},
		"a person over http":         {c: c, h: provider.Hook{Header: header(ours, "<a@example.org>"), Body: letter}, note: true},
		"http without sender":        {c: c, h: provider.Hook{Header: http.Header{"X-Envelope-To": {ours}}, Body: letter}, note: true},
		"report from a person":       {c: c, h: provider.Hook{RcptTo: ours, MailFrom: "a@example.org", Body: fixture(t, "exchange", ours)}},
		"auto-submitted":             {c: c, h: provider.Hook{RcptTo: ours, MailFrom: "a@example.org", Body: fixture(t, "vacation", ours)}, note: true},
		"auto-submitted: no":         {c: c, h: provider.Hook{RcptTo: ours, MailFrom: "a@example.org", Body: append([]byte("Auto-Submitted: no\r\n"), letter...)}, note: true},
		"empty":                      {c: c, h: provider.Hook{RcptTo: ours}},
		"complaint":                  {c: c, h: provider.Hook{RcptTo: "FBL@bounces.example.com", MailFrom: "staff@fbl.example", Body: complaint}},
		"complaint of other's mail":  {c: other, h: provider.Hook{RcptTo: "fbl@bounces.example.com", Body: complaint}, status: 403, reason: "signature"},
		"letter in complaint box":    {c: c, h: provider.Hook{RcptTo: "fbl@bounces.example.com", Body: append(letter, ours...)}, status: 403, reason: "signature"},
		"bounce in complaint box":    {c: c, h: provider.Hook{RcptTo: "fbl@bounces.example.com", Body: fixture(t, "postfix_failed", ours)}, status: 403, reason: "signature"},
		"no recipient":               {c: c, h: provider.Hook{Body: bounce}, status: 403, reason: "signature"},
		"another mailbox":            {c: c, h: provider.Hook{RcptTo: "info@bounces.example.com", Body: bounce}, status: 403, reason: "signature"},
		"another message":            {c: c, h: provider.Hook{RcptTo: flipped, Body: bounce}, status: 403, reason: "signature"},
		"another domain":             {c: c, h: provider.Hook{RcptTo: strings.Replace(ours, "bounces.", "", 1), Body: bounce}, status: 403, reason: "signature"},
		"another key":                {c: other, h: provider.Hook{RcptTo: ours, Body: bounce}, status: 403, reason: "signature"},
		"no bounce domain":           {c: plain, h: provider.Hook{RcptTo: ours, Body: bounce}, status: 403, reason: "unconfigured"},
		"30 days old":                {c: c, h: provider.Hook{RcptTo: ours, Body: bounce, Now: sentAt.Add(30 * 24 * time.Hour)}},
		"over 30 days old":           {c: c, h: provider.Hook{RcptTo: ours, Body: bounce, Now: sentAt.Add(30*24*time.Hour + time.Second)}, status: 403, reason: "timestamp"},
		"largest":                    {c: c, h: provider.Hook{RcptTo: ours, Body: append(bounce, make([]byte, provider.MaxHook-len(bounce))...)}},
		"too large":                  {c: c, h: provider.Hook{RcptTo: ours, Body: make([]byte, provider.MaxHook+1)}, status: 413, reason: "too_large"},
		"forged fields in the mail":  {c: c, h: provider.Hook{RcptTo: flipped, Body: append([]byte("X-Sendgate-Recipient: "+ours+"\r\n"), bounce...)}, status: 403, reason: "signature"},
		"envelope only in mail body": {c: c, h: provider.Hook{Header: http.Header{}, Body: append([]byte("X-Envelope-To: "+ours+"\r\n"), bounce...)}, status: 403, reason: "signature"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := tc.h
			if h.Now.IsZero() {
				h.Now = receivedAt
			}
			b, err := tc.c.Receive(context.Background(), &h)
			if tc.status != 0 {
				refusal, ok := errors.AsType[*provider.HookError](err)
				if !ok || refusal.Status != tc.status || refusal.Reason != tc.reason {
					t.Errorf("err = %v, want %d %s", err, tc.status, tc.reason)
				}
				return
			}
			if err != nil || (b.Note != "") != tc.note || (len(b.Payloads) == 1) == tc.note {
				t.Fatalf("Receive = %d payloads, note %q, %v", len(b.Payloads), b.Note, err)
			}
			for _, p := range b.Payloads {
				if len(p.Events) == 0 || p.Events[0].MessageID != id || len(p.Raw) > provider.MaxHook {
					t.Errorf("events = %+v of %d bytes, want some of message %s", p.Events, len(p.Raw), id)
				}
			}
		})
	}
}

func TestKnowsTheAddressesThatReceiveTakes(t *testing.T) {
	t.Parallel()
	c, id := verpClient(t), mail.NewID()
	for addr, want := range map[string]bool{
		c.verp.address(id):         true,
		"fbl@Bounces.example.com":  true,
		"b+" + c.verp.address(id):  false,
		"info@bounces.example.com": false,
		"":                         false,
		"fbl@example.com":          false,
	} {
		if got := c.Knows(addr); got != want {
			t.Errorf("Knows(%q) = %v, want %v", addr, got, want)
		}
	}
	if (&Client{}).Knows(c.verp.address(id)) {
		t.Error("an account without a bounce domain knows one")
	}
}

// TestKeptReportsAreSmall checks that only large originals are cut away, and not the parts that say what happened.
func TestKeptReportsAreSmall(t *testing.T) {
	t.Parallel()
	c, id := verpClient(t), mail.IDAt(sentAt)
	for name, end := range map[string]string{"exchange": "\r\nhello", "qmail": "not a bounce"} {
		raw := fixture(t, name, c.verp.address(id))
		big := bytes.Replace(raw, []byte(end), []byte(end+strings.Repeat("\r\nContent-Type: message/rfc822 x", 20_000)), 1)
		b, err := c.Receive(t.Context(), &provider.Hook{Body: big, Now: receivedAt, RcptTo: c.verp.address(id)})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range b.Payloads[0].Events {
			got = append(got, line(e))
		}
		if diff := cmp.Diff(reports[name], got); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", name, diff)
		}
		if n := len(b.Payloads[0].Raw); n > 20_000 {
			t.Errorf("%s: kept %d of %d bytes", name, n, len(big))
		}
	}
}

// TestRepetitionsHaveOneID checks that a repeated report is recognised by its Message-ID or else by its bytes, whenever it
// comes, and that two reports are not.
func TestRepetitionsHaveOneID(t *testing.T) {
	t.Parallel()
	c, id := verpClient(t), mail.IDAt(sentAt)
	ids := func(raw []byte, now time.Time) string {
		b, err := c.Receive(t.Context(), &provider.Hook{Body: raw, Now: now, RcptTo: c.verp.address(id)})
		if err != nil {
			t.Fatal(err)
		}
		return b.Payloads[0].Events[0].UniqueID
	}
	for name, change := range map[string][2]string{"exchange": {"e1b1-4a2c@", "e1b1-4a2d@"}, "qmail": {"192.0.2.25 does", "192.0.2.26 does"}} {
		raw := fixture(t, name, c.verp.address(id))
		first := ids(raw, receivedAt)
		if ids(raw, receivedAt.Add(time.Hour)) != first {
			t.Errorf("%s: a repetition has another id", name)
		}
		if ids(bytes.Replace(raw, []byte(change[0]), []byte(change[1]), 1), receivedAt) == first {
			t.Errorf("%s: another report has the same id", name)
		}
	}
}

func TestReportOfManyRecipientsIsCapped(t *testing.T) {
	t.Parallel()
	c := verpClient(t)
	var b strings.Builder
	b.WriteString("From: MAILER-DAEMON@x\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n")
	for i := range 3000 {
		fmt.Fprintf(&b, "Final-Recipient: rfc822;a%d@example.org\r\nAction: failed\r\n\r\n", i)
	}
	failed := "X-Failed-Recipients: a@example.org" + strings.Repeat(",a@example.org", 3000) + "\r\n\r\n550 5.1.1\r\n"
	for name, raw := range map[string]string{"status": b.String(), "text": failed} {
		if got := len(c.Parse([]byte(raw))); got != maxSettled {
			t.Errorf("%s: events = %d, want %d", name, got, maxSettled)
		}
	}
}
