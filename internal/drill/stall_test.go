//go:build drill

package drill

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/api"
)

var stallsFlag = flag.String("stalls", "", "the combinations of stalls and clients whose description matches: . for all 288, which takes an hour; empty for six")

// stall is a period in which the database takes nothing, with the clients that send meanwhile.
type stall struct {
	what     string // a table that is locked, or "server": all its processes stand still
	lasts    time.Duration
	clients  int
	batch    int // messages a request
	keys     bool
	replicas int
}

// waited is the longest stall in which no request is refused.
const waited = 3 * time.Second

func (s stall) String() string {
	return fmt.Sprintf("%s for %s, %d clients of %d, keys %t, %d replicas", s.what, s.lasts, s.clients, s.batch, s.keys, s.replicas)
}

// stalls are those that are tried: some that differ in everything, or all.
func stalls() []stall {
	if *stallsFlag == "" {
		return []stall{
			{"message", 2 * time.Second, 60, 1, false, 1},
			{"ready", 3 * time.Second, 2000, 1, false, 2},
			{"server", 3 * time.Second, 60, 10, true, 2},
			{"server", 1500 * time.Millisecond, 60, 1, false, 1},
			{"message", 12 * time.Second, 60, 10, false, 2},
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
	wanted := regexp.MustCompile(*stallsFlag)
	return slices.DeleteFunc(all, func(s stall) bool { return !wanted.MatchString(s.String()) })
}

// The database takes nothing for a while. Stored are the accepted messages, and at most those with an unknown outcome. A
// client who was refused may send again without a key, and does not send twice.
func TestD44StallsRefuseNobodyWhoIsStored(t *testing.T) {
	drillTest(t, "D44", plan{load: load{share: 0.1, plain: true}, settings: []string{"SENDGATE_ACCEPT_WAIT=10s"}, byItself: true}, func(t *testing.T, r *rig) {
		var sum told
		if *stallsFlag != "" {
			if _, err := r.admin.PauseAccount(t.Context(), aside); err != nil {
				t.Fatal(err)
			}
		}
		for n, s := range stalls() {
			tag := fmt.Sprintf("stall-%d", n)
			got := r.sendThrough(t, s, tag)
			pause(t, 500*time.Millisecond) // what could still be stored is stored
			must(t, 20*time.Second, "no insert is under way", func() bool {
				return r.count(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sendgate' AND state <> 'idle'
			AND (query LIKE '%INSERT INTO idempotency%' OR query LIKE '%COMMIT%') AND pid <> pg_backend_pid()`) == 0
			})
			stored := r.number(t, `SELECT count(*) FROM message WHERE $1 = ANY (tags)`, tag)
			if stored < got.accepted || stored > got.accepted+got.unknown+got.hungUp {
				t.Errorf("%s: stored %d; told %+v", s, stored, got)
			}
			// Whether the rest of the wait is enough for a crowd depends on the machine as well.
			if s.lasts <= waited && (s.clients <= 60 || *strict) && (got.refused > 0 || got.unknown > 0) {
				t.Errorf("%s: told %+v, want nobody refused", s, got)
			}
			if s.lasts <= waited && got.accepted == 0 || s.lasts > 10*time.Second && got.refused == 0 {
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

// aside is the account of the mail of many stalls. It is paused, so that their hundreds of thousands of messages expire, and are
// not sent while the next crowd is measured.
const aside = "smtp"

// told are the answers that clients got for their messages.
type told struct {
	accepted, refused, unknown, hungUp, other int
	why                                       string // the first that was not accepted
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
	// One address may hold half of a replica's connections. Those of a crowd before, who gave up, may still be open.
	transport := &http.Transport{MaxIdleConnsPerHost: s.clients, DialContext: fromManyAddresses}
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

// fromManyAddresses dials from another address of this machine each time, where loopback has more than one.
func fromManyAddresses(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{}
	if runtime.GOOS == "linux" {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+rand.IntN(200)))}
	}
	return d.DialContext(ctx, network, addr)
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
	expiry := time.Now().Add(time.Minute)
	for n := range s.batch {
		m := load{plain: true, policies: []string{"never"}}.compose(random(tag), 10_000+i, n).request
		m.Tags = []string{tag}
		if *stallsFlag != "" {
			m.Account, m.ExpiresAt = &[]string{aside}[0], &expiry
		}
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
					sum.why = cmp.Or(sum.why, item.Error.Code)
				} else {
					sum.accepted++
				}
			}
		}
	}
	if p, answered := errors.AsType[*api.Problem](err); answered {
		sum.status(p.Status, s.batch)
		sum.why = cmp.Or(sum.why, p.Code)
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
