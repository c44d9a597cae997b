//go:build drill

package app

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/sendgate/sendgate/api"
)

// fullRelay takes a hundred recipients a transaction and answers the next one with 452 4.5.3. It drops the connection
// at the end of the transaction loses, after it took the message.
type fullRelay struct {
	loses int

	mu    sync.Mutex
	mails [][]string // recipients of each message
	port  int
}

func startFullRelay(t *testing.T, loses int) *fullRelay {
	t.Helper()
	r := &fullRelay{loses: loses}
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &fullSession{relay: r, conn: c}, nil }))
	s.Domain, s.MaxRecipients = "relay.test", 100
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.port = ln.Addr().(*net.TCPAddr).Port
	var served sync.WaitGroup
	served.Go(func() { _ = s.Serve(ln) })
	t.Cleanup(func() {
		_ = ln.Close()
		_ = s.Close()
		served.Wait()
	})
	return r
}

type fullSession struct {
	relay *fullRelay
	conn  *smtp.Conn
	to    []string
}

func (s *fullSession) Mail(string, *smtp.MailOptions) error { return nil }

func (s *fullSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *fullSession) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	s.relay.mails = append(s.relay.mails, s.to)
	if len(s.relay.mails) == s.relay.loses {
		_ = s.conn.Conn().Close()
	}
	return nil
}

func (s *fullSession) Reset()        { s.to = nil }
func (s *fullSession) Logout() error { return nil }

// copies counts the messages that each recipient got.
func (r *fullRelay) copies() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := map[string]int{}
	for _, to := range r.mails {
		for _, a := range to {
			n[a]++
		}
	}
	return n
}

// toRelay sends one message to a thousand recipients through the relay, which is its own account.
func toRelay(t *testing.T, b *bench, rep *replica, account string, r *fullRelay) *api.Message {
	t.Helper()
	settings := fmt.Sprintf(`{"host":"127.0.0.1","port":%d,"tls":"none"}`, r.port)
	if _, err := rep.admin.CreateAccount(t.Context(), api.AccountRequest{Name: account, Kind: "smtp", Settings: json.RawMessage(settings)}); err != nil {
		t.Fatal(err)
	}
	b.binds(t, rep)
	m := letter(1)
	m.Account, m.OnAmbiguous, m.To = &account, "never", nil
	for i := range 1000 {
		m.To = append(m.To, api.Address{Email: fmt.Sprintf("u%d@example.org", i)})
	}
	got := becomes(t, rep.api, send(t, rep.api, m), settleTime, "sent", "failed_unknown")
	if copies := r.copies(); len(copies) != 1000 {
		t.Errorf("%d recipients got it, want 1000", len(copies))
	}
	for a, n := range r.copies() {
		if n != 1 {
			t.Errorf("%s got %d copies", a, n)
		}
	}
	return got
}

func TestAThousandRecipientsReachARelayThatTakesAHundred(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	m := toRelay(t, b, r, "sound", startFullRelay(t, 0))
	if m.Status != "sent" || len(m.Attempts) != 10 {
		t.Errorf("%s after %d attempts, want it sent by one for each of the 10 messages that the relay counted", m.Status, len(m.Attempts))
	}
}

// All others are mailed, and nobody gets two copies.
func TestALostAnswerInTheMidstOfAThousandLeavesItsHundredInDoubt(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t, "SENDGATE_UNKNOWN_WAIT=2s", "SENDGATE_RECONCILE_DEADLINE=2s")
	m := toRelay(t, b, r, "lossy", startFullRelay(t, 2))
	got := map[string]int{}
	for _, rc := range m.Recipients {
		got[rc.Status]++
	}
	if got["sent"] != 900 || got["failed_unknown"] != 100 {
		t.Errorf("recipients = %v, want 900 sent and 100 failed_unknown", got)
	}
}
