package smtp

import (
	"bytes"
	"net"
	netmail "net/mail"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/limit"
)

// noConn is a connection that is only asked for its peer.
type noConn struct{ net.Conn }

func (noConn) RemoteAddr() net.Addr { return &net.UnixAddr{Name: "@", Net: "unix"} }

func TestWindowsRefuseInPostfixsWords(t *testing.T) {
	t.Parallel()
	s := &session{authed: true, conn: &conn{Conn: noConn{}}}
	k := Kind()
	k.New = func(h *emulator.Host) (emulator.Provider, error) {
		s.host = h
		return open(h)
	}
	e, err := emulator.New([]emulator.Kind{k}, emulator.Options{Limits: map[string][]limit.Window{"smtp": {
		{N: 2, Per: time.Minute, Unit: limit.Messages}, {N: 3, Per: time.Minute, Unit: limit.Recipients},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	say := func(err error) string {
		if err == nil {
			return "ok"
		}
		return err.Error()
	}
	var got []string
	for range 3 {
		got = append(got, say(s.Mail("b@example.com", nil)), say(s.Rcpt("a@example.org", nil)), say(s.Rcpt("c@example.org", nil)))
		s.Reset()
	}
	const mail, rcpt = "SMTP error 450: Error: too much mail from unknown", "SMTP error 450: Error: too many recipients from unknown"
	want := []string{"ok", "ok", "ok", "ok", "ok", rcpt, mail, rcpt, rcpt}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("replies = %q, want %q", got, want)
	}
	st := e.Stats()["smtp"]
	if st.Requests != 3 || st.Throttled != 2 || st.Windows[0].Peak != 3 || st.Windows[1].Peak != 6 {
		t.Errorf("stats = %+v", st)
	}
}

func FuzzHeads(f *testing.F) {
	f.Add("5.1.1", []byte("Subject: x\r\n\r\nbody"), "b+1.abc@example.org")
	f.Fuzz(func(t *testing.T, text string, mime []byte, address string) {
		if ec, ok := parseEnhanced(text); ok && (ec[0] < 0 || ec[0] > 999) {
			t.Errorf("enhanced code = %v", ec)
		}
		head := headerOf(mime)
		if len(head) > maxReturnedHeader || !bytes.HasPrefix(mime, head) {
			t.Errorf("header of %q is %q", mime, head)
		}
		if forged := forgeSender(address); strings.Contains(address, "@") && !strings.HasPrefix(address, "@") && forged == address {
			t.Errorf("forged %q is the same", address)
		}
	})
}

func FuzzReports(f *testing.F) {
	f.Add("bounce@example.org", "b+1.abc@bounces.example.org", []byte("Subject: x\r\nFrom: a@b.c\r\n"))
	f.Fuzz(func(t *testing.T, to, sender string, header []byte) {
		if !emulator.BareAddress(to) || !emulator.BareAddress(sender) {
			return
		}
		l := &emulator.Message{
			Entry:    emulator.Entry{Provider: "smtp", ProviderMessageID: "A1", From: "a@b.c", To: []string{to}, At: time.Unix(0, 0), Subject: string(header)},
			Envelope: &envelope{sender: sender, header: headerOf(header)},
		}
		for _, w := range []emulator.EventType{emulator.Bounced, emulator.SoftBounced, emulator.Deferred, emulator.Delivered} {
			h := &emulator.Event{Message: l, Type: w, To: l.To, At: time.Unix(1, 0)}
			for _, raw := range [][]byte{deliveryReport(h), feedbackReport(h)} {
				m, err := netmail.ReadMessage(bytes.NewReader(raw))
				if err != nil {
					t.Fatalf("report can't be read: %v", err)
				}
				if !strings.HasPrefix(m.Header.Get("Content-Type"), "multipart/report") {
					t.Errorf("content type = %q", m.Header.Get("Content-Type"))
				}
			}
		}
	})
}
