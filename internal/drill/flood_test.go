//go:build drill

package drill

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

// Bounds of the flood, beside the drill's duration.
const (
	floodWorkers = 64
	floodShots   = 40_000
	floodSlow    = 300 // more than a replica reads at a time
)

// flood is what came of the requests of a flood.
type flood struct {
	mu       sync.Mutex
	answers  map[string]int // by "true" or "forged" and status
	wrong    map[string]int // what should not be answered
	firedOff atomic.Int64
}

// True and forged events of all kinds come in far faster than sendgate can take them, and strangers hold places with endless
// bodies. Mail is still accepted, every event with a 200 is stored, and memory stays bounded.
func TestD24EventsFlood(t *testing.T) {
	drillTest(t, "D24", plan{}, func(t *testing.T, r *rig) {
		log := r.logHooks(t)
		r.faults(t, everywhere(emulator.Fault{Mode: "hook_new_id"}, emulator.Fault{Mode: "hook_duplicate", Copies: 5}))
		must(t, 20*time.Second, "events of every kind have come", func() bool { return len(log.shots()) == len(webKinds()) })
		began := time.Now()
		f := r.flood(t, log.shots())
		n, _ := r.clients.acceptedSince(began)
		r.report.tally("accepted_meanwhile", n)
		r.report.tally("flood", fmt.Sprint(f.answers))
		for _, x := range r.replicas {
			resident := peakMemory(t, x.cmd.Process.Pid)
			r.report.tally(x.name+"_peak_mb", resident>>20)
			if resident > maxResident {
				t.Errorf("memory of %s at its peak = %d MB, want at most %d", x.name, resident>>20, maxResident>>20)
			}
		}
		if len(f.wrong) > 0 {
			t.Errorf("answers that should not be: %v", f.wrong)
		}
		if n == 0 || f.answers["true 200"] == 0 || f.answers["true 503"] == 0 {
			t.Errorf("accepted meanwhile %d, true events answered %v: want some, some 200 and some 503", n, f.answers)
		}
		r.faults(t, nil)
		r.clients.stop()
		r.judgeHooks(t, log)
	})
}

// flood fires at all replicas for the duration, half of it forged, while the places of the first are held.
func (r *rig) flood(t *testing.T, ammo map[string][]shot) *flood {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), max(*duration, 12*time.Second)) // longer than an event waits for its turn
	defer cancel()
	f := &flood{answers: map[string]int{}, wrong: map[string]int{}}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: floodWorkers}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	// Forged events come from another address, because after wrong passwords an address is refused for a while.
	elsewhere := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	forger := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: floodWorkers, DialContext: elsewhere.DialContext}, Timeout: 20 * time.Second}
	defer forger.CloseIdleConnections()
	var wg sync.WaitGroup
	for range floodSlow {
		wg.Go(func() { trickleBody(ctx, r.replicas[0].api) })
	}
	for w := range floodWorkers {
		rng := random(fmt.Sprintf("%s worker %d", r.id, w))
		wg.Go(func() {
			for f.firedOff.Add(1) <= floodShots && ctx.Err() == nil {
				kinds := webKinds()
				list := ammo[kinds[rng.IntN(len(kinds))]]
				from, forged := client, rng.IntN(2) == 0
				if forged {
					from = forger
				}
				f.fire(ctx, from, r.replicas[rng.IntN(len(r.replicas))].api, list[rng.IntN(len(list))], forged)
			}
		})
	}
	wg.Wait()
	return f
}

// trickleBody holds a place of a receiver that can't check the header: it sends a body that does not end.
func trickleBody(ctx context.Context, addr string) {
	for ctx.Err() == nil {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
		if err != nil {
			sleep(ctx, 100*time.Millisecond)
			continue
		}
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		_, _ = io.WriteString(c, "POST /hooks/mailgun HTTP/1.1\r\nHost: flood\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n[")
		_, _ = io.Copy(io.Discard, c) // until it is told to go
		stop()
		_ = c.Close()
		sleep(ctx, 100*time.Millisecond)
	}
}

// fire posts a request and checks the answer: 200 for a true one, a refusal for a forged one, and for either 503 with the
// time to come back. A password that was wrong too often is a 429, with that time too.
func (f *flood) fire(ctx context.Context, client *http.Client, addr string, s shot, forged bool) {
	name, allowed := "true", []int{http.StatusOK, http.StatusServiceUnavailable}
	if forged {
		s.header, name = s.header.Clone(), "forged"
		dialects()[s.kind].forge(&s)
		allowed = []int{
			http.StatusUnauthorized, http.StatusForbidden, http.StatusNotAcceptable, http.StatusTooManyRequests, http.StatusServiceUnavailable,
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/hooks/"+s.kind, bytes.NewReader(s.body))
	if err != nil {
		return
	}
	req.Header = s.header
	resp, err := client.Do(req)
	if err != nil {
		return // the flood is over, or nobody took the connection
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body)
	again := resp.Header.Get("Retry-After") != ""
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[fmt.Sprintf("%s %d", name, resp.StatusCode)]++
	if !slices.Contains(allowed, resp.StatusCode) || again != (resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusTooManyRequests) {
		f.wrong[fmt.Sprintf("%s %s %d, Retry-After %t", name, s.kind, resp.StatusCode, again)]++
	}
}
