package smtp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

func TestSendIsAcceptedWithTheQueueID(t *testing.T) {
	t.Parallel()
	for reply, want := range map[string]string{
		"250 2.0.0 Ok: queued as 4QX17Y2Mz0z1":                 "4QX17Y2Mz0z1",
		"250 2.0.0 Ok: 1432 bytes queued as A1B2C3":            "A1B2C3",
		"250 OK id=1rAbCd-0001xY-2Z":                           "1rAbCd-0001xY-2Z",
		"250 2.0.0 4AN9xQ012345 Message accepted for delivery": "4AN9xQ012345",
		"251 queued as XYZ.":                                   "XYZ",
		"250 fine":                                             "",
	} {
		t.Run(reply, func(t *testing.T) {
			t.Parallel()
			r := startRelay(t, func(r *relay) { r.reply = on(".", reply) })
			receipt, perr := sendTo(t, r.client(nil), "ann@example.org")
			wantClass(t, "send", perr, provider.Accepted)
			if receipt.ProviderMessageID != want {
				t.Errorf("ProviderMessageID = %q, want %q", receipt.ProviderMessageID, want)
			}
		})
	}
}

func TestSendSpeaksOneTransaction(t *testing.T) {
	t.Parallel()
	r := startRelay(t, nil)
	m := message("ann@example.org")
	m.Bcc = []mail.Address{{Email: "hidden@example.net"}}
	_, perr := send(deadline(t), t, r.client(nil), m)
	wantClass(t, "send", perr, provider.Accepted)
	_, body := r.count()
	if body != 1 {
		t.Fatalf("messages = %d, want 1", body)
	}
	r.mu.Lock()
	lines, size := r.lines, len(r.bodies[0])
	r.mu.Unlock()
	want := []string{
		"EHLO gate.example.com",
		fmt.Sprintf("MAIL FROM:<shop@example.com> BODY=8BITMIME SIZE=%d RET=HDRS ENVID=%s", size, m.ID),
		"RCPT TO:<ann@example.org> ORCPT=RFC822;ann@example.org",
		"RCPT TO:<hidden@example.net> ORCPT=RFC822;hidden@example.net",
		"DATA",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("dialogue (-want +got):\n%s", diff)
	}
	if strings.Contains(r.bodies[0], "hidden") {
		t.Error("the hidden recipient shows in the message")
	}
}

func TestBounceAddressIsTheEnvelopeSender(t *testing.T) {
	t.Parallel()
	r := startRelay(t, nil)
	_, perr := sendTo(t, r.client(map[string]any{"envelope_from": "bounces@example.com"}), "ann@example.org")
	wantClass(t, "send", perr, provider.Accepted)
	if got := r.said("MAIL FROM:<bounces@example.com>"); len(got) != 1 {
		t.Errorf("MAIL FROM with the bounce address was said %d times, want once", len(got))
	}
	if got := r.said("RCPT TO:<ann@example.org> NOTIFY=FAILURE,DELAY"); len(got) != 1 {
		t.Errorf("RCPT TO with NOTIFY was said %d times, want once", len(got))
	}
}

func TestSMTPUTF8IsAskedForOnlyWhenAnAddressNeedsIt(t *testing.T) {
	t.Parallel()
	r := startRelay(t, nil)
	c := r.client(map[string]any{"smtputf8": true})
	m := message("ann@example.org")
	m.Subject, m.Text, m.To[0].Name = "Grüße", "Grüße", "Änne"
	_, perr := send(deadline(t), t, c, m)
	wantClass(t, "non-ASCII text", perr, provider.Accepted)
	if got := r.said("MAIL FROM")[0]; strings.Contains(got, "SMTPUTF8") {
		t.Errorf("SMTPUTF8 was asked for without need: %s", got)
	}
	_, perr = sendTo(t, c, "jürgen@example.org")
	wantClass(t, "non-ASCII address", perr, provider.Accepted)
	if got := r.said("MAIL FROM")[1]; !strings.HasSuffix(strings.Split(got, " RET=")[0], " SMTPUTF8") {
		t.Errorf("SMTPUTF8 was not asked for: %s", got)
	}
}

func TestWhatTheRelayDoesNotOfferGoesElsewhere(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) { r.ehlo = []string{"relay.test", "SIZE 2000"} })
	c := r.client(nil)
	big := message("ann@example.org")
	big.Text = strings.Repeat("x", 2000)
	for what, m := range map[string]*mail.Message{"size": big, "smtputf8": message("jürgen@example.org")} {
		_, perr := send(deadline(t), t, c, m)
		wantClass(t, what, perr, provider.Rejected)
		if perr != nil && !perr.Elsewhere {
			t.Errorf("%s: Elsewhere = false, want true", what)
		}
	}
	if said := r.said("MAIL"); len(said) != 0 {
		t.Errorf("said %q, want nothing", said)
	}
	if conns, _ := r.count(); conns != 1 {
		t.Errorf("connections = %d, want 1: neither refusal harms it", conns)
	}
}

func TestAddressesThatWouldSmuggleParametersNeverReachTheWire(t *testing.T) {
	t.Parallel()
	for _, evil := range []string{
		"x> ORCPT=evil@y.z", "x@example.org> NOTIFY=NEVER", "a b@example.org", "a@b.com\r\nBcc: c@d.com", "a\t@example.org",
		"<a@example.org", "a\x00@example.org", "a\u2028@example.org", "", "a\x7f@example.org", "a\xff@example.org",
	} {
		if wireSafe(evil) {
			t.Errorf("wireSafe(%q) = true", evil)
		}
		r := startRelay(t, nil)
		m := message("ann@example.org")
		receipt, err := r.client(nil).Send(deadline(t), &provider.Send{Message: m, To: m.To, Bcc: []mail.Address{{Email: evil}}})
		if err != nil {
			t.Fatalf("%q: %v", evil, err)
		}
		if len(receipt.Refused) != 1 || receipt.Refused[0].Email != evil || receipt.Refused[0].Class != provider.BadRecipient {
			t.Errorf("%q: refused = %+v, want that one as bad_recipient", evil, receipt.Refused)
		}
		if got := r.said("RCPT"); len(got) != 1 {
			t.Errorf("%q: RCPT lines %q, want one", evil, got)
		}
	}
}

func TestOnlyBadAddressesMeansNoConnection(t *testing.T) {
	t.Parallel()
	r := startRelay(t, nil)
	_, err := r.client(nil).Send(deadline(t), &provider.Send{Message: message("ann@example.org"), Bcc: []mail.Address{{Email: "a b@c.de"}}})
	if perr, ok := errors.AsType[*provider.Error](err); !ok || perr.Class != provider.BadRecipient || len(perr.Refused) != 1 {
		t.Errorf("Send = %v, want bad_recipient naming one", err)
	}
	if conns, _ := r.count(); conns != 0 {
		t.Errorf("connections = %d, want 0", conns)
	}
}

func TestSmugglingBodiesStayOneMessage(t *testing.T) {
	t.Parallel()
	// Padding moves the sequence over every offset around the edges of the 4096-byte buffers on both sides.
	for _, seq := range []string{"\n.\n", "\r.\r", "\r\n.\n", "\n.\r\n", "\r\n.\r", "\r\n.\r\n", "\n..\n", "\r\n.\r\nMAIL FROM:<x@y.z>\r\n"} {
		t.Run(fmt.Sprintf("%q", seq), func(t *testing.T) {
			t.Parallel()
			r := startRelay(t, nil)
			c := r.client(nil)
			sent := 0
			for pad := 3600; pad < 3720; pad += 5 {
				m := message("ann@example.org")
				m.Text = strings.Repeat(strings.Repeat("x", 59)+"\n", pad/60) + strings.Repeat("y", pad%60) + seq + "MAIL FROM:<evil@example.net>\n"
				m.HTML = "<p>" + seq + "</p>"
				_, perr := send(deadline(t), t, c, m)
				wantClass(t, "send", perr, provider.Accepted)
				sent++
			}
			if _, bodies := r.count(); bodies != sent {
				t.Fatalf("messages = %d, want %d", bodies, sent)
			}
			for _, body := range r.bodies {
				// Neither a strict nor a lenient server may see an end inside it.
				rest := strings.ReplaceAll(body, "\r\n", "")
				if i := strings.IndexAny(rest, "\r\n\x00"); i >= 0 {
					t.Errorf("bare %q on the wire", rest[i])
				}
				for name, end := range map[string]string{"CRLF": "\r\n.\r\n", "LF": "\n.\n", "CR": "\r.\r", "LF CRLF": "\n.\r\n", "CRLF LF": "\r\n.\n"} {
					if strings.Contains(body, end) {
						t.Errorf("a server that ends data at %s sees an end inside the message", name)
					}
				}
			}
			if got := len(r.said("MAIL FROM:<evil@")) + len(r.said("MAIL FROM:<x@")); got != 0 {
				t.Errorf("%d smuggled commands were obeyed", got)
			}
		})
	}
}

func TestParallelSendsKeepTheirBodies(t *testing.T) {
	t.Parallel()
	const n = 100
	r := startRelay(t, nil)
	c := r.client(map[string]any{"max_connections": 8})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			m := message(fmt.Sprintf("u%d@example.org", i))
			m.Subject = fmt.Sprintf("subject-%d-", i)
			m.Text = strings.Repeat(fmt.Sprintf("body-%d-\n", i), 50)
			if _, err := c.Send(deadline(t), sendOf(m)); err != nil {
				t.Errorf("send %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.bodies) != n || r.peak > 8 {
		t.Fatalf("messages = %d over at most %d connections at once, want %d over at most 8", len(r.bodies), r.peak, n)
	}
	for _, b := range r.bodies {
		_, tail, _ := strings.Cut(b, "Subject: subject-")
		i, _, _ := strings.Cut(tail, "-")
		if got := strings.Count(b, "body-"+i+"-\r\n"); got != 50 {
			t.Errorf("message %s has %d of its 50 lines", i, got)
		}
	}
}

func TestUnsendableMessageIsRejectedBeforeAnyConnection(t *testing.T) {
	t.Parallel()
	r := startRelay(t, nil)
	m := message("ann@example.org")
	m.Subject = "a\r\nBcc: x@y.z"
	_, perr := send(deadline(t), t, r.client(nil), m)
	wantClass(t, "send", perr, provider.Rejected)
	if conns, _ := r.count(); conns != 0 {
		t.Errorf("connections = %d, want 0", conns)
	}
}

func TestNothingListening(t *testing.T) {
	t.Parallel()
	r := startRelay(t, nil)
	c := r.client(nil)
	_ = r.ln.Close()
	_, perr := sendTo(t, c, "ann@example.org")
	wantClass(t, "connection refused", perr, provider.Transient)
}

func TestCancelBeforeTheBodyIsTransientAfterItUncertain(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]provider.Class{
		"": provider.Transient, "EHLO": provider.Transient, "MAIL": provider.Transient, "RCPT": provider.Transient,
		"DATA": provider.Transient, ".": provider.Uncertain,
	} {
		t.Run("silent at "+line, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(deadline(t))
			defer cancel()
			r := startRelay(t, func(r *relay) {
				r.reply = func(_ int, got string) (string, bool) {
					if got != line && (line == "" || !strings.HasPrefix(got, line)) {
						return "", false
					}
					cancel()
					return silent, true
				}
			})
			_, perr := send(ctx, t, r.client(nil), message("ann@example.org"))
			wantClass(t, "cancelled", perr, want)
			if conns, _ := r.count(); conns != 1 {
				t.Errorf("connections = %d, want 1", conns)
			}
		})
	}
}

func TestLostConnectionByStage(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]provider.Class{
		"": provider.Transient, "EHLO": provider.Transient, "MAIL": provider.Transient, "RCPT": provider.Transient,
		"DATA": provider.Transient, ".": provider.Uncertain,
	} {
		t.Run("closed at "+line, func(t *testing.T) {
			t.Parallel()
			r := startRelay(t, func(r *relay) { r.reply = on(line, hangUp) })
			_, perr := sendTo(t, r.client(nil), "ann@example.org")
			wantClass(t, "lost", perr, want)
			if conns, _ := r.count(); conns != 1 {
				t.Errorf("connections = %d, want 1: a fresh connection that breaks is not tried again", conns)
			}
		})
	}
}

func TestStalledBodyHitsTheWriteDeadline(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) { r.stopRead, r.ehlo = true, []string{"relay.test", "8BITMIME"} })
	cfg := r.config(nil, nil)
	d := newDialer(cfg)
	d.wait.write = 50 * time.Millisecond
	c := r.clientWith(cfg)
	c.pool.dial = d.dial
	m := message("ann@example.org")
	m.Attachments = []mail.Attachment{{Filename: "a", Content: make([]byte, 16<<20)}}
	_, perr := send(context.Background(), t, c, m) // no deadline but ours
	wantClass(t, "stalled body", perr, provider.Uncertain)
}

func TestStalledBodyEndsWithTheContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	r := startRelay(t, func(r *relay) {
		r.stopRead, r.ehlo = true, []string{"relay.test", "8BITMIME"}
		r.reply = func(_ int, line string) (string, bool) {
			if line == "DATA" {
				time.AfterFunc(100*time.Millisecond, cancel)
			}
			return "", false
		}
	})
	m := message("ann@example.org")
	m.Attachments = []mail.Attachment{{Filename: "a", Content: make([]byte, 16<<20)}}
	_, perr := send(ctx, t, r.client(nil), m)
	wantClass(t, "stalled body", perr, provider.Uncertain)
}
