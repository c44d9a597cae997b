//go:build linux

package smtp

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mime"
	"github.com/sendgate/sendgate/internal/seal"
)

// TestPostfix sends through a real Postfix and compares what it delivers with what we built, byte for byte.
func TestPostfix(t *testing.T) {
	t.Parallel()
	back := newFeedback(t)
	p := startPostfix(t, back.mainCF(t))
	for name, m := range postfixMessages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := p.client(t, nil, nil)
			receipt, perr := send(deadline(t), t, c, m)
			wantClass(t, "send", perr, provider.Accepted)
			p.logged(t, receipt.ProviderMessageID)
			want, err := mime.Build(m)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(unix(want), ours(t, p.delivered(t, m))); diff != "" {
				t.Errorf("delivered message (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("refusals", func(t *testing.T) {
		t.Parallel()
		postfixRefusals(t, p)
	})
	t.Run("size", func(t *testing.T) {
		t.Parallel()
		m := message("ann@example.org")
		m.Attachments = []mail.Attachment{{Filename: "a", Content: make([]byte, postfixSizeLimit)}}
		_, perr := send(deadline(t), t, p.client(t, nil, nil), m)
		wantClass(t, "too large", perr, provider.Rejected)
		if perr != nil && !perr.Elsewhere {
			t.Error("a size limit of this relay is taken for one of every relay")
		}
	})
	t.Run("dkim", func(t *testing.T) {
		t.Parallel()
		postfixDKIM(t, p)
	})
	t.Run("reports", func(t *testing.T) {
		t.Parallel()
		back.reports(t, p)
	})
	t.Run("parallel", func(t *testing.T) {
		t.Parallel()
		postfixParallel(t, p)
	})
}

func postfixMessages() map[string]*mail.Message {
	rich := message("ann@example.org")
	rich.From.Name, rich.To[0].Name = "Käse & Söhne, GmbH", "Jiří \"Jirka\" Novák"
	rich.Cc = []mail.Address{{Email: "bob@example.org", Name: "株式会社サンプル・カスタマーサポートセンター"}}
	rich.Bcc = []mail.Address{{Email: "hidden@example.org"}}
	rich.ReplyTo = []mail.Address{{Email: "help@example.com"}}
	rich.Subject = "Žluťoučký kůň 🐎 " + strings.Repeat("velmi dlouhý předmět ", 12)
	rich.Text = "Příliš žluťoučký kůň.\n" + strings.Repeat("x", 3000) + "\n"
	rich.HTML = `<p>Příliš <b>žluťoučký</b> kůň. <img src="cid:logo@example.com"></p>`
	rich.Headers = []mail.Header{{Name: "List-Unsubscribe", Value: "<https://u.example.com/" + strings.Repeat("t", 200) + ">"}, {Name: "X-Order", Value: "4 2"}}
	every := make([]byte, 4096)
	for i := range every {
		every[i] = byte(i)
	}
	rich.Attachments = []mail.Attachment{
		{Filename: "účet.pdf", ContentType: "application/pdf", Content: every},
		{Filename: "logo.png", ContentType: "image/png", ContentID: "logo@example.com", Content: []byte("\x89PNG\r\n\x1a\n")},
	}
	dots := message("ann@example.org")
	dots.Text = ".\n..\n.x\n\n.\n\r.\r\r\n.\n\n.\r\n\r\n.\rQUIT\nFrom here\n\ttab \ntrailing space \n." + strings.Repeat("\n.", 3000)
	last := message("ann@example.org")
	last.Text = "a dot at the end\n."
	empty := message("ann@example.org")
	empty.Subject, empty.Text = "", ""
	utf8 := message("jürgen@example.org")
	return map[string]*mail.Message{"rich": rich, "dot lines and bare CR LF": dots, "dot at the end": last, "empty": empty, "smtputf8": utf8}
}

func postfixRefusals(t *testing.T, p *postfix) {
	t.Helper()
	c := p.client(t, nil, nil)
	_, perr := sendTo(t, c, "bad@example.org")
	wantClass(t, "550", perr, provider.BadRecipient)
	if perr != nil && (perr.Code != "5.1.1" || perr.Status != 550) {
		t.Errorf("550: %+v, want status 550 and code 5.1.1", perr)
	}
	_, perr = sendTo(t, c, "later@example.org")
	wantClass(t, "450", perr, provider.Transient)
	_, perr = sendTo(t, c, "x@elsewhere.example.net")
	wantClass(t, "relay access denied", perr, provider.Misconfigured)
	m := message("bad@example.org", "ann@example.org", "later@example.org")
	receipt, perr := send(deadline(t), t, c, m)
	wantClass(t, "mixed", perr, provider.Accepted)
	got := map[string]provider.Class{}
	for _, r := range receipt.Refused {
		got[r.Email] = r.Class
	}
	want := map[string]provider.Class{"bad@example.org": provider.BadRecipient, "later@example.org": provider.Transient}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	p.delivered(t, m)
}

func postfixDKIM(t *testing.T, p *postfix) {
	t.Helper()
	key, record := testKey(t, "rsa")
	c := p.client(t, map[string]seal.Secret{dkimKeyName: seal.NewSecret(key)}, map[string]any{"dkim": map[string]string{"domain": "example.com", "selector": "s"}})
	m := message("ann@example.org")
	m.Subject, m.HTML = "Grüße", "<p>hello</p>"
	_, perr := send(deadline(t), t, c, m)
	wantClass(t, "send", perr, provider.Accepted)
	arrived := strings.ReplaceAll(p.delivered(t, m), "\n", "\r\n")
	if v := verify(t, arrived, func(string) ([]string, error) { return []string{record}, nil }); v.Err != nil {
		t.Errorf("the delivered message does not verify: %v", v.Err)
	}
}

// postfixParallel checks that each of many messages over few connections arrives once.
func postfixParallel(t *testing.T, p *postfix) {
	t.Helper()
	const n = 60
	c := p.client(t, nil, map[string]any{"max_connections": 4, "max_messages_per_connection": 7})
	var wg sync.WaitGroup
	ms := make([]*mail.Message, n)
	for i := range ms {
		ms[i] = message("ann@example.org")
		ms[i].Text = fmt.Sprintf("number %d\n.\n", i)
		wg.Go(func() {
			if _, err := c.Send(deadline(t), sendOf(ms[i])); err != nil {
				t.Errorf("send %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for _, m := range ms {
		want, err := mime.Build(m)
		if err != nil {
			t.Fatal(err)
		}
		if got := ours(t, p.delivered(t, m)); got != unix(want) {
			t.Errorf("message %s arrived changed", m.ID)
		}
	}
	if got := p.count(t, "Subject: Your order", "number "); got != n {
		t.Errorf("delivered = %d, want %d", got, n)
	}
}

// unix is a message as a maildir holds it.
func unix(b []byte) string { return string(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))) }

// ours strips the fields that Postfix put on top, and fails on any other.
func ours(t *testing.T, delivered string) string {
	t.Helper()
	head, rest, ok := strings.Cut(delivered, "\nDate: ")
	if !ok {
		t.Fatalf("no Date in\n%s", delivered)
	}
	for line := range strings.SplitSeq(head, "\n") {
		name, _, _ := strings.Cut(line, ":")
		switch name {
		case "Return-Path", "X-Original-To", "Delivered-To", "Received":
		default:
			if !strings.HasPrefix(line, "\t") {
				t.Errorf("Postfix added %q", line)
			}
		}
	}
	return "Date: " + rest
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
