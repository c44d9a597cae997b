//go:build drill

package drill

import (
	"math"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

// A replica stands still for a moment, as under a long pause of its machine: nothing happens.
func TestD16aReplicaIsPausedForAMoment(t *testing.T) {
	drillTest(t, "D16a", plan{settings: []string{"SENDGATE_LEASE=15s"}}, func(t *testing.T, r *rig) {
		resume := r.replicas[0].pauseProcess(t)
		pause(t, 5*time.Second)
		resume()
		pause(t, time.Second)
		if n := metric(t, r.replicas[1], "sendgate_rescued_total"); n != 0 {
			t.Errorf("sendgate_rescued_total of %s = %v, want 0", r.replicas[1].name, n)
		}
	})
}

// It stands still for longer than its lease: another replica takes over the messages that it had not begun, and it sends none
// of these later.
func TestD16bReplicaIsPausedForLongerThanItsLease(t *testing.T) {
	drillTest(t, "D16b", plan{}, func(t *testing.T, r *rig) {
		r.faults(t, slow())
		victim := r.replicas[0]
		resume := victim.pauseProcess(t)
		victim.up.Store(false) // a balancer would see that it does not answer
		began := time.Now()
		id := r.number(t, `SELECT count(*) FROM inflight`)
		must(t, 25*time.Second, "others have what it had", func() bool {
			return r.count(t.Context(), `SELECT count(*) FROM replica WHERE lease_until > now()`) == 1 &&
				r.count(t.Context(), `SELECT count(*) FROM inflight f WHERE NOT EXISTS (
					SELECT 1 FROM replica r WHERE r.id = f.owner AND r.lease_until > now())`) == 0
		})
		r.report.figure("rescue", time.Since(began), 20*time.Second)
		r.report.tally("in_flight_at_the_pause", id)
		pause(t, *duration)
		resume()
		r.faults(t, nil)
		must(t, 30*time.Second, "the replica is ready again", func() bool { return victim.ready(t.Context()) })
		victim.up.Store(true)
		pause(t, time.Second)
	})
}

// Replicas are restarted by SIGTERM, one after the other, while clients use those that are ready: no request fails, and no
// call is left without an answer.
func TestD29ReplicasAreRestartedOneByOne(t *testing.T) {
	drillTest(t, "D29", plan{load: load{share: 2}}, func(t *testing.T, r *rig) {
		r.faults(t, slow())
		rounds, slowest := 0, time.Duration(0)
		for end := time.Now().Add(2 * *duration); time.Now().Before(end); rounds++ {
			x := r.replicas[rounds%len(r.replicas)]
			x.signal(t, syscall.SIGTERM)
			must(t, 5*time.Second, "it says that it is not ready", func() bool { return !x.ready(t.Context()) })
			x.up.Store(false)
			slowest = max(slowest, x.exits(t, 35*time.Second))
			x.start(t)
			pause(t, time.Second)
		}
		r.faults(t, nil)
		r.report.tally("restarts", rounds)
		r.report.figure("slowest_exit", slowest, 30*time.Second)
		for _, kind := range []string{"none", "503", "429"} {
			if n := r.clients.answers(kind); n != 0 {
				t.Errorf("requests that failed (%s) = %d, want none", kind, n)
			}
		}
		if n := r.number(t, `SELECT count(*) FROM attempt WHERE class = 'uncertain' OR verdict_source IN ('webhook', 'lookup')`); n != 0 {
			t.Errorf("calls without an answer = %d, want none", n)
		}
	})
}

// A second signal ends the drain at once: messages in flight become unknown, and the books still balance.
func TestD29bSecondSignalEndsAtOnce(t *testing.T) {
	drillTest(t, "D29b", plan{}, func(t *testing.T, r *rig) {
		r.faults(t, everywhere(emulator.Fault{Mode: "latency", Latency: emulator.Duration(5 * time.Second)}))
		pause(t, 2*time.Second)
		x := r.replicas[0]
		x.up.Store(false)
		x.signal(t, syscall.SIGTERM)
		pause(t, 500*time.Millisecond)
		x.signal(t, syscall.SIGTERM)
		began := time.Now()
		select {
		case <-x.done:
		case <-time.After(20 * time.Second):
			t.Fatalf("not ended 20 s after the second signal\n%s", x.tail())
		}
		r.report.figure("exit", time.Since(began), time.Second)
		r.faults(t, nil)
		x.start(t)
		pause(t, time.Second)
	})
}

// metric reads one series of a replica, or the sum of those that have the name.
func metric(t *testing.T, r *replica, name string) float64 {
	t.Helper()
	status, body := r.get(t.Context(), "/metrics")
	if status != 200 {
		return math.NaN()
	}
	sum := 0.0
	for line := range strings.Lines(body) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if bare, _, _ := strings.Cut(series, "{"); !ok || bare != name {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("metric %s: %v", name, err)
		}
		sum += n
	}
	return sum
}
