package smtp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/internal/lmtp"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

// feedback is the surroundings of a Postfix that reports: the next host, which refuses, and our LMTP listener, which has one
// account and keeps its events.
type feedback struct {
	next   *relay
	lmtp   *lmtp.Server
	reader *Client // of the account, for what comes back

	mu      sync.Mutex
	events  []mail.Event
	outages int // how many messages are not stored before one is
}

func newFeedback(t *testing.T) *feedback {
	t.Helper()
	f := &feedback{outages: 1, reader: verpClient(t)}
	f.next = startRelay(t, func(r *relay) {
		r.reply = on(
			"RCPT TO:<gone@remote.example>", "550 5.1.1 <gone@remote.example>: Recipient address rejected: User unknown",
			"RCPT TO:<later@remote.example>", "450 4.2.2 <later@remote.example>: mailbox full for now",
		)
	})
	server, err := lmtp.New(lmtp.Options{Listen: "127.0.0.1:0", Receive: f.receive, Knows: f.reader.Knows, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	f.lmtp = server
	return f
}

// receive is the handler of the listener: the account reads the report, then the events are stored, which fails at first.
func (f *feedback) receive(ctx context.Context, from, to string, body []byte) error {
	b, err := f.reader.Receive(ctx, &provider.Hook{Body: body, Now: time.Now(), MailFrom: from, RcptTo: to})
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.outages > 0 {
		f.outages--
		return errors.New("database is away")
	}
	for _, p := range b.Payloads {
		f.events = append(f.events, p.Events...)
	}
	return nil
}

// of returns the first event of a type for a message, as soon as there is one. Postfix may look at its queue while it
// still holds a report that we put off, and then forgets it for minutes: every three seconds it is asked to try all again.
func (f *feedback) of(t *testing.T, p *postfix, id mail.ID, want mail.EventType) mail.Event {
	t.Helper()
	var found mail.Event
	flushed := time.Now()
	eventually(t, fmt.Sprintf("a report: %s", want), func() bool {
		if time.Since(flushed) > 3*time.Second {
			flushed = time.Now()
			if out, err := exec.Command("postqueue", "-c", filepath.Join(p.dir, "etc"), "-f").CombinedOutput(); err != nil {
				t.Errorf("postqueue -f: %v: %s", err, out)
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, e := range f.events {
			if e.MessageID == id && e.Type == want {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// mainCF is the configuration that docs/postfix.md gives, with our ports, a way to the next host and little patience.
func (f *feedback) mainCF(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile("../../../docs/postfix.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(doc), "\n## main.cf\n\n```\n")
	block, _, _ = strings.Cut(block, "```")
	port := func(a net.Addr) string { return a.String()[strings.LastIndexByte(a.String(), ':')+1:] }
	for from, to := range map[string]string{
		"\nrelay_domains = bounces.example.com\n": "\nrelay_domains = bounces.example.com remote.example\n",
		"lmtp:inet:127.0.0.1:2424 }":              "lmtp:inet:127.0.0.1:" + port(f.lmtp.Addr()) + " } { remote.example = smtp:[127.0.0.1]:" + port(f.next.ln.Addr()) + " }",
		"\ndelay_warning_time = 4h\n":             "\ndelay_warning_time = 1s\n",
	} {
		if !strings.Contains(block, from) {
			t.Fatalf("docs/postfix.md has no %q under main.cf", from)
		}
		block = strings.Replace(block, from, to, 1)
	}
	return block
}

// reports sends through Postfix and waits for its reports about the next host and about its own delivery.
func (f *feedback) reports(t *testing.T, p *postfix) {
	t.Helper()
	c := p.client(t, map[string]seal.Secret{"verp_key": seal.NewSecret(testVERPKey)}, map[string]any{"bounce_domain": "bounces.example.com", "notify_success": true})
	m := message("gone@remote.example", "later@remote.example", "ann@example.org")
	m.Subject = "Reported on"
	receipt, perr := send(deadline(t), t, c, m)
	wantClass(t, "send", perr, provider.Accepted)
	if len(receipt.Refused) > 0 {
		t.Fatalf("refused at once: %+v", receipt.Refused)
	}
	for want, event := range map[mail.EventType]mail.Event{
		mail.EventBounced: {Name: "failed", Recipient: "gone@remote.example", Bounce: &mail.Bounce{
			Class: mail.Hard, Reason: mail.InvalidAddress, Code: "550", Enhanced: "5.1.1",
			Text: "550 5.1.1 <gone@remote.example>: Recipient address rejected: User unknown", Rule: "reply/mailbox_unknown",
		}},
		mail.EventDeferred: {Name: "delayed", Recipient: "later@remote.example", Bounce: &mail.Bounce{
			Class: mail.Soft, Reason: mail.MailboxFull, Code: "450", Enhanced: "4.2.2",
			Text: "450 4.2.2 <later@remote.example>: mailbox full for now", Rule: "reply/mailbox_full",
		}},
		mail.EventDelivered: {Name: "delivered", Recipient: "ann@example.org"},
	} {
		event.Type, event.MessageID, event.ByMessage = want, m.ID, true
		got := f.of(t, p, m.ID, want)
		if diff := cmp.Diff(event, got, cmpopts.IgnoreFields(mail.Event{}, "At", "UniqueID", "Detail")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want, diff)
		}
		if want == mail.EventDeferred && !strings.HasPrefix(got.Detail, "will retry until ") {
			t.Errorf("detail = %q, want until when it is tried", got.Detail)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.outages != 0 {
		t.Error("no report came while the database was away, so none came again")
	}
}
