package httpapi

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// at sends a request of an address, without holding it to the contract, and gives the status.
func (r *rig) at(ip, key string) int {
	req := httptest.NewRequest(http.MethodGet, "/v1/messages", http.NoBody)
	req.RemoteAddr = ip + ":1"
	req.Header.Set("Authorization", "Bearer "+key)
	rec := httptest.NewRecorder()
	r.server.Handler().ServeHTTP(rec, req)
	return rec.Code
}

const (
	attackers = 256
	attack    = 3 * time.Second
)

// While 256 clients forge keys with a right checksum, good keys are served within a second: those that were used before, and
// those that were not, from anywhere.
func TestForgedKeysHoldNoGoodOneBack(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]func(i int) string{
		"one address":      func(int) string { return "192.0.2.1" },
		"many addresses":   func(i int) string { return fmt.Sprintf("198.51.%d.%d", i/256, i%256) },
		"one IPv6 network": func(i int) string { return fmt.Sprintf("[2001:db8::%x]", i+1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				r := newRig(t, func(o *Options) {
					o.Now, o.AcceptWait, o.Log = time.Now, 5*time.Second, slog.New(slog.NewTextHandler(&log, nil))
				})
				defer r.server.Close()
				conns := make(chan struct{}, 6)
				r.store.intercept(func(ctx context.Context, method string) error {
					if method != "KeyByID" && method != "KeyIDs" {
						return nil
					}
					select {
					case conns <- struct{}{}:
					case <-ctx.Done():
						return &record.Unavailable{Reason: "database", RetryAfter: time.Second, Err: ctx.Err()}
					}
					time.Sleep(50 * time.Millisecond)
					<-conns
					return nil
				})
				if got := r.at("192.0.2.1", r.read); got != 200 {
					t.Fatalf("before the attack = %d", got)
				}
				var all sync.WaitGroup
				var forged atomic.Int64
				for i := range attackers {
					all.Go(func() {
						for end := time.Now().Add(attack); time.Now().Before(end); {
							_, wrong, _ := NewKey()
							if got := r.at(source(i), wrong); got < 400 {
								t.Errorf("a forged key = %d", got)
							}
							forged.Add(1)
							time.Sleep(100 * time.Millisecond)
						}
					})
				}
				var never [5]string
				for i := range never {
					never[i] = r.store.addKey(nil, record.ScopeRead)
				}
				for i, fresh := range never {
					time.Sleep(500 * time.Millisecond)
					for what, key := range map[string]string{"used before": r.read, "used never": fresh} {
						for _, ip := range []string{source(0), "203.0.113.9"} {
							began := time.Now()
							if got, took := r.at(ip, key), time.Since(began); got != 200 || took >= time.Second {
								t.Errorf("round %d, key %s, from %s: %d after %s, want 200 within 1 s", i, what, ip, got, took)
							}
						}
					}
				}
				all.Wait()
				asked := r.store.count("KeyByID") + r.store.count("KeyIDs")
				if bound := 6 * int(attack/time.Millisecond) / 50 / 2; asked > bound {
					t.Errorf("the store was asked %d times for %d forged keys, want half of what it can answer, %d", asked, forged.Load(), bound)
				}
				if lines := strings.Count(log.String(), "level=ERROR") + strings.Count(log.String(), "level=WARN"); lines > 2 {
					t.Errorf("lines of warnings and errors = %d, want one or two", lines)
				}
			})
		})
	}
}

// A database that does not answer makes no line of each key that anyone makes up, and no 401 of one that may be good.
func TestForgedKeysFillNoLogWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := newRig(t, func(o *Options) {
		o.Log, o.AcceptWait = slog.New(slog.NewTextHandler(&log, nil)), 10*time.Millisecond
	})
	r.store.failWith(&record.Unavailable{Reason: "database", RetryAfter: time.Second})
	for range 50 {
		_, wrong, _ := NewKey()
		r.want(r.do("GET", "/v1/messages", wrong, ""), 503, "database")
	}
	if lines := strings.Count(log.String(), "level=ERROR"); lines > 0 {
		t.Errorf("error lines = %d, want none: %s", lines, log.String())
	}
}
