package app

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
)

// skewed is a wall clock that a test can set while the service runs. Its monotonic clock is the host's.
type skewed struct{ by atomic.Int64 }

func (s *skewed) clock() *mail.Clock {
	return mail.NewClock(func() time.Time { return time.Now().Add(time.Duration(s.by.Load())) }, nil)
}

func (s *skewed) set(by time.Duration) { s.by.Store(int64(by)) }

// startWith is start of a service that the test changes first.
func (b *bench) startWith(t *testing.T, change func(*App), extra ...string) (*replica, error) {
	t.Helper()
	a, err := New(b.config(t, extra...), quiet())
	if err != nil {
		t.Fatal(err)
	}
	change(a)
	if err := a.Start(t.Context()); err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		b.http.CloseIdleConnections()
		if err := a.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	r := b.client(a.URL, a.OpsURL)
	r.await(t, b.http)
	return r, nil
}

func TestAServiceDoesNotStartWithAClockOfItsOwn(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	for _, by := range []time.Duration{2 * time.Minute, -400 * 24 * time.Hour} { // in package mail are more
		s := &skewed{}
		s.set(by)
		began := time.Now()
		_, err := b.startWith(t, func(a *App) { a.clock = s.clock() })
		if !errors.Is(err, mail.ErrClock) || !strings.Contains(err.Error(), "set both by NTP") {
			t.Errorf("%s off: start gives %v, want it refused for the clock", by, err)
		}
		if took := time.Since(began); took > 45*time.Second {
			t.Errorf("%s off: refused after %s, want at once", by, took)
		}
	}
}

// No message gets a wrong date: an error of up to a minute has no effect, and with a larger one nothing is accepted until the
// clock is right again.
func TestAClockIsSetWhileItRuns(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	s := &skewed{}
	r, err := b.startWith(t, func(a *App) { a.clock = s.clock() })
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for n, by := range []time.Duration{0, 50 * time.Second, -50 * time.Second, 0} {
		s.set(by)
		ids = append(ids, send(t, r.api, letter(n)))
		if status, line := b.get(t, r.ops+"/readyz"); status != http.StatusOK {
			t.Errorf("%s off: /readyz is %d %q, want ready", by, status, line)
		}
	}
	for _, by := range []time.Duration{5 * time.Minute, -5 * time.Minute, 400 * 24 * time.Hour, -400 * 24 * time.Hour} {
		s.set(by)
		_, err := r.api.Send(t.Context(), letter(9), "")
		var p *api.Problem
		if !errors.As(err, &p) || p.Status != http.StatusServiceUnavailable || p.Code != "clock" {
			t.Errorf("%s off: send gives %v, want a 503 for the clock", by, err)
		}
		if status, line := b.get(t, r.ops+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(line, "clock: this host is") {
			t.Errorf("%s off: /readyz is %d %q, want the clock as its reason", by, status, line)
		}
		s.set(0)
		ids = append(ids, send(t, r.api, letter(len(ids))))
	}
	if status, line := b.get(t, r.ops+"/readyz"); status != http.StatusOK {
		t.Errorf("set right again: /readyz is %d %q", status, line)
	}
	page, err := r.api.Messages(t.Context(), api.MessageQuery{Limit: 50})
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range page.Data {
		if want := ids[len(ids)-1-i]; m.ID != want {
			t.Errorf("message %d of the list is %s, want %s: newest first", i, m.ID, want)
		}
		if off := time.Since(m.CreatedAt); off < -time.Second || off > time.Minute {
			t.Errorf("created_at is %s off", off)
		}
	}
	if len(page.Data) != len(ids) {
		t.Errorf("%d messages, want %d", len(page.Data), len(ids))
	}
	if n := b.count(t.Context(), `SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE c.relname ~ '_\d{8}$' AND right(c.relname, 8) NOT BETWEEN to_char(now() - interval '30 days', 'YYYYMMDD')
			AND to_char(now() + interval '30 days', 'YYYYMMDD')`); n != 0 {
		t.Errorf("partitions of days that are far away = %d, want none", n)
	}
}
