//go:build drill

package drill

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/api"
)

var everyStall = flag.Bool("stalls", false, "all combinations of stalls and clients: half an hour")

// stall is a time in which the database takes nothing, and who sends meanwhile.
type stall struct {
	what     string // a table that is locked, or "server": all its processes stand still
	lasts    time.Duration
	clients  int
	batch    int // messages a request
	keys     bool
	replicas int
}

// waited is how long a stall may last so that nobody is refused for it.
const waited = 3 * time.Second

func (s stall) String() string {
	return fmt.Sprintf("%s for %s, %d clients of %d, keys %t, %d replicas", s.what, s.lasts, s.clients, s.batch, s.keys, s.replicas)
}

// stalls are those that are tried: some that differ in everything, or all.
func stalls() []stall {
	if !*everyStall {
		return []stall{
			{"message", 2 * time.Second, 60, 1, false, 1},
			{"ready", 3 * time.Second, 2000, 1, false, 2},
			{"server", 3 * time.Second, 60, 10, true, 2},
			{"server", 1500 * time.Millisecond, 60, 1, false, 1},
			{"message", 8 * time.Second, 60, 10, false, 2},
			{"server", 8 * time.Second, 2000, 1, false, 1},
		}
	}
	var all []stall
	for _, what := range []string{"message", "ready", "server"} {
		for _, lasts := range []int{1500, 1800, 2000, 3000, 5000, 8000} {
			for _, clients := range []int{60, 2000} {
				for _, batch := range []int{1, 10} {
					for _, keys := range []bool{false, true} {
						for replicas := 1; replicas <= 2; replicas++ {
							all = append(all, stall{what, time.Duration(lasts) * time.Millisecond, clients, batch, keys, replicas})
						}
					}
				}
			}
		}
	}
	return all
}

// The database takes nothing for a while: what is stored is what was accepted, and at most what nobody knew of. Whoever was
// refused may send again without a key, and does not send twice.
func TestD44StallsRefuseNobodyWhoIsStored(t *testing.T) {
	drillTest(t, "D44", plan{load: load{share: 0.1, plain: true}, byItself: true}, func(t *testing.T, r *rig) {
		var sum told
		for n, s := range stalls() {
			tag := fmt.Sprintf("stall-%d", n)
			got := r.sendThrough(t, s, tag)
			stored := r.settledCount(t, tag)
			if stored < got.accepted || stored > got.accepted+got.unknown+got.hungUp {
				t.Errorf("%s: stored %d; told %+v", s, stored, got)
			}
			// Whether the rest of the wait is enough for a crowd depends on the machine as well.
			if s.lasts <= waited && (s.clients <= 60 || *strict) && (got.refused > 0 || got.unknown > 0) {
				t.Errorf("%s: told %+v, want nobody refused", s, got)
			}
			if s.lasts <= waited && got.accepted == 0 || s.lasts > 5*time.Second && got.refused == 0 {
				t.Errorf("%s: told %+v: the stall was not on, or never ended", s, got)
			}
			if got.other > 0 {
				t.Errorf("%s: told %+v, want no other answers", s, got)
			}
			t.Logf("%s: stored %d; told %+v", s, stored, got)
			sum.add(got)
		}
		r.report.tally("through_stalls", fmt.Sprintf("%+v", sum))
	})
}

// told is what clients heard of their messages.
type told struct {
	accepted, refused, unknown, hungUp, other int
	why                                       string // the first of the others
}

func (a *told) add(b told) {
	a.accepted, a.refused, a.unknown = a.accepted+b.accepted, a.refused+b.refused, a.unknown+b.unknown
	a.hungUp, a.other, a.why = a.hungUp+b.hungUp, a.other+b.other, cmp.Or(a.why, b.why)
}

// status counts n messages with one answer.
func (a *told) status(status, n int) {
	switch status {
	case http.StatusAccepted:
		a.accepted += n
	case http.StatusServiceUnavailable:
		a.refused += n
	case http.StatusGatewayTimeout:
		a.unknown += n
	default:
		a.other += n
	}
}

// sendThrough stalls the database while clients send: most begin before it, a few meanwhile. One in ten has no patience.
func (r *rig) sendThrough(t *testing.T, s stall, tag string) told {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: s.clients, MaxConnsPerHost: 0}
	defer transport.CloseIdleConnections()
	var mu sync.Mutex
	var sum told
	var wg sync.WaitGroup
	for i := range s.clients {
		rng := random(fmt.Sprintf("%s %d", tag, i))
		wg.Go(func() {
			sleep(t.Context(), time.Duration(rng.IntN(800))*time.Millisecond)
			x := r.replicas[i%s.replicas]
			got := s.send(t.Context(), api.NewWith("http://"+x.api, r.keys["default"], &http.Client{
				Transport: keyed{transport, s.key(tag, i)}, Timeout: time.Minute,
			}), tag, i)
			mu.Lock()
			defer mu.Unlock()
			sum.add(got)
		})
	}
	pause(t, 300*time.Millisecond)
	end := r.stall(t, s.what)
	pause(t, s.lasts)
	end()
	wg.Wait()
	return sum
}

// stall begins one and returns what ends it.
func (r *rig) stall(t *testing.T, what string) (end func()) {
	t.Helper()
	if what == "server" {
		return r.pg.freeze(t)
	}
	conn, err := pgx.Connect(t.Context(), r.dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `BEGIN; LOCK TABLE `+what+` IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	return func() { _ = conn.Close(context.WithoutCancel(t.Context())) }
}

// key is the Idempotency-Key of a client, "" for none.
func (s stall) key(tag string, client int) string {
	if !s.keys {
		return ""
	}
	return fmt.Sprintf("%s-%d", tag, client)
}

// keyed gives every request a key: the client of batches has none.
type keyed struct {
	http.RoundTripper
	key string
}

// RoundTrip implements http.RoundTripper.
func (k keyed) RoundTrip(req *http.Request) (*http.Response, error) {
	if k.key != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Idempotency-Key", k.key)
	}
	return k.RoundTripper.RoundTrip(req)
}

// send makes one client's request.
func (s stall) send(ctx context.Context, client *api.Client, tag string, i int) told {
	var sum told
	if i%10 == 7 { // no patience
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	var b api.BatchRequest
	for n := range s.batch {
		m := load{plain: true, policies: []string{"never"}}.compose(random(tag), 10_000+i, n).request
		m.Tags = []string{tag}
		b.Messages = append(b.Messages, m)
	}
	var err error
	if s.batch == 1 {
		if _, err = client.Send(ctx, b.Messages[0], ""); err == nil {
			sum.accepted++
		}
	} else {
		var result *api.BatchResult
		if result, err = client.SendBatch(ctx, b); err == nil {
			for _, item := range result.Results {
				if item.Error != nil {
					sum.status(item.Error.Status, 1)
				} else {
					sum.accepted++
				}
			}
		}
	}
	if p, answered := errors.AsType[*api.Problem](err); answered {
		sum.status(p.Status, s.batch)
	} else if err != nil && ctx.Err() != nil {
		sum.hungUp += s.batch
	} else if err != nil {
		sum.other += s.batch
	}
	if sum.other > 0 {
		sum.why = fmt.Sprint(err)
	}
	return sum
}

// settledCount counts what is stored of one stall, when nothing that could still be stored is left.
func (r *rig) settledCount(t *testing.T, tag string) int {
	t.Helper()
	pause(t, 500*time.Millisecond)
	must(t, 20*time.Second, "no insert is under way", func() bool {
		return r.count(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sendgate' AND state <> 'idle'
			AND (query LIKE '%INSERT INTO idempotency%' OR query LIKE '%COMMIT%') AND pid <> pg_backend_pid()`) == 0
	})
	return r.count(t.Context(), `SELECT count(*) FROM message WHERE $1 = ANY (tags)`, tag)
}
