package limit_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// storm is every fault at once.
var storm = faults{
	death: 4 * time.Minute, pause: 3 * time.Minute, join: 2 * time.Minute, restart: 20 * time.Minute, step: 7 * time.Minute,
	stall: 0.02, mute: 0.002,
}

// starved is a machine on which calls wait for a processor, more often on the way to the provider or more often on the way back.
var starved = faults{starved: 4 * time.Millisecond}

// scaled makes the faults of longer runs rarer.
func (f faults) scaled(by int) faults {
	n := time.Duration(by)
	return faults{f.death * n, f.pause * n, f.join * n, f.restart * n, f.step * n, f.stall, f.mute, f.starved}
}

// proof is one world of the proof. All worlds together make more than a million calls. An ordinary run of the tests makes a
// tenth of them, with the same faults, and checks every window too.
type proof struct {
	shape    string
	replicas int
	calls    int
	faults   faults
}

func proofs() []proof {
	return []proof{
		{"sendgrid", 2, 60_000, storm.scaled(30)},
		{"mailgun", 3, 120_000, storm.scaled(30)},
		{"postmark", 1, 150_000, storm},
		{"postmark", 4, 150_000, storm},
		{"ses", 2, 60_000, storm.scaled(30)},
		{"ses", 5, 200_000, storm.scaled(30)},
		{"smtp", 3, 250_000, storm},
		{"other", 5, 250_000, storm.scaled(10)},
		{"ses", 3, 100_000, starved},
		{"other", 3, 100_000, starved},
		{"ses", 3, 100_000, faults{starved: 25 * time.Millisecond}},
		{"postmark", 3, 100_000, faults{starved: 60 * time.Millisecond}},
	}
}

func TestNoSlidingWindowIsExceededByAMillionCallsThroughEveryFault(t *testing.T) {
	t.Parallel()
	seen := &tally{}
	t.Cleanup(func() { seen.covers(t) })
	for _, p := range proofs() {
		name := fmt.Sprintf("%s_by_%d_starved_%s", p.shape, p.replicas, p.faults.starved)
		if *modelWorld != "" && *modelWorld != name {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := p.calls
			if !*limit.Thorough {
				calls /= 10
			}
			w := newWorld(name, *modelSeed, shapes()[p.shape], p.replicas, p.faults)
			if p.shape == "ses" {
				w.ask = func(r *rand.Rand) int { return 1 + r.IntN(1+r.IntN(40)) }
			}
			w.run(calls, 1<<62)
			w.judge(t)
			t.Logf("seed %d: %d calls in %s of its time: %v", *modelSeed, w.seen["called"], w.now.Round(time.Second), w.seen)
			seen.add(w.seen)
		})
	}
}

// judge fails the test for each window that the provider saw exceeded.
func (w *world) judge(t *testing.T) {
	t.Helper()
	for _, m := range w.meters {
		if m.peak > m.window.N {
			t.Errorf("%s: %d in a sliding window, limit %s; again with -run '%s' -model.seed %d", w.name, m.peak, m.window, t.Name(), *modelSeed)
		}
	}
}

// tally is what happened in all worlds together.
type tally struct {
	mu   sync.Mutex
	seen map[string]int
}

func (x *tally) add(seen map[string]int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.seen == nil {
		x.seen = map[string]int{}
	}
	for what, n := range seen {
		x.seen[what] += n
	}
}

// covers fails the test if the events that the proof is about did not happen.
func (x *tally) covers(t *testing.T) {
	t.Logf("in all: %v", x.seen)
	if *modelWorld != "" {
		return
	}
	if *limit.Thorough && x.seen["called"] < 1_000_000 {
		t.Errorf("%d calls, want a million", x.seen["called"])
	}
	for _, what := range []string{
		"death", "pause", "join", "restart", "clock back", "clock forward", "rescued call", "rescued claim", "answer after the rescue",
		"dropped: too late for its call", "dropped: claim lost before its call", "dropped: lease looked run out",
	} {
		if x.seen[what] == 0 {
			t.Errorf("no %s", what)
		}
	}
}

// calm is a world in which the use of limits can be measured: answers come a few milliseconds sooner or later, and replicas
// die now and then.
func calm(seed uint64, windows []limit.Window, replicas int) *world {
	return newWorld("calm", seed, windows, replicas, faults{})
}

// Each of these is a mistake that someone could make. If the proof does not notice it, the proof is worth nothing.
func TestTheProofNoticesWhatIsBroken(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]fault{
		"refill": refill, "openIgnored": openIgnored, "lateSent": lateSent, "clockUnwatched": clockUnwatched,
		"counterReset": counterReset, "lostUnbooked": lostUnbooked, "noSpare": noSpare,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exceeded := ""
			for _, p := range proofs() {
				p.faults.stall *= 3 // so that a part of the calls is enough
				w := newWorld(name, *modelSeed, shapes()[p.shape], p.replicas, p.faults)
				w.broken = broken
				for part := 1; part <= 30 && exceeded == ""; part++ {
					w.run(part*p.calls/100, 1<<62)
					for _, m := range w.meters {
						if m.peak > m.window.N {
							exceeded += fmt.Sprintf("%s by %d: %d of %s; ", p.shape, p.replicas, m.peak, m.window)
						}
					}
				}
			}
			t.Log(exceeded)
			if exceeded == "" {
				t.Error("nothing was exceeded")
			}
		})
	}
}

func TestUseUnderDemandOfPacedWindows(t *testing.T) {
	t.Parallel()
	for name, windows := range map[string][]limit.Window{
		"10/s":           {{N: 10, Per: time.Second, Unit: limit.Requests}},
		"14/s":           {{N: 14, Per: time.Second, Unit: limit.Requests}},
		"100/s":          {{N: 100, Per: time.Second, Unit: limit.Requests}},
		"10/s, 500/min":  shapes()["postmark"],
		"1000/min":       shapes()["smtp"],
		"14/s, with 24h": shapes()["ses"],
	} {
		for replicas := 1; replicas <= 5; replicas += 2 {
			perMinute := allowed(windows)
			w := calm(*modelSeed, windows, replicas)
			w.run(1<<40, 6*time.Minute)
			w.judge(t)
			least, sum := 1.0, 0.0
			for _, n := range w.minutes[1:6] {
				use := float64(n) / perMinute
				least, sum = min(least, use), sum+use
			}
			t.Logf("%-15s %d replicas: %.2f %% used, %.2f %% in the worst minute", name, replicas, 20*sum, 100*least)
			if sum < 4.9 || least < 0.975 {
				t.Errorf("%s by %d replicas: %.2f %% used, want 98 %%; %.2f %% in the worst minute", name, replicas, 20*sum, 100*least)
			}
		}
	}
}

// allowed is what windows of at most a minute let through in a minute.
func allowed(windows []limit.Window) float64 {
	least := 1e12
	for _, x := range windows {
		if x.Per <= time.Minute {
			least = min(least, float64(x.N)*float64(time.Minute/x.Per))
		}
	}
	return least
}

// When a replica dies, nobody knows the outcome of its open calls until its lease has run out. So their share of the limit is
// lost for about 17 seconds of a minute: more than 96 % are used on average, and about 90 % if all open calls were the dead
// replica's. If a longer window is the tighter one, as with 10/s and 500/min, it makes up for the loss.
func TestUseInAMinuteWithADeath(t *testing.T) {
	t.Parallel()
	for name, windows := range map[string][]limit.Window{
		"10/s":          {{N: 10, Per: time.Second, Unit: limit.Requests}},
		"14/s":          {{N: 14, Per: time.Second, Unit: limit.Requests}},
		"100/s":         {{N: 100, Per: time.Second, Unit: limit.Requests}},
		"10/s, 500/min": shapes()["postmark"],
	} {
		for _, replicas := range []int{2, 5} {
			deaths, average, least, sum := 300.0, 0.96, 1.0, 0.0
			if allowed(windows) > 1000 {
				deaths = 60
			}
			if !*limit.Thorough {
				deaths, average = deaths/20, 0.94
			}
			for i := range uint64(deaths) {
				w := calm(*modelSeed+i, windows, replicas)
				w.run(1<<40, 10*time.Second+time.Duration(i)*37*time.Millisecond)
				w.die(w.replicas[0])
				before, died := w.seen["called"], w.now
				w.run(1<<40, died+time.Minute)
				w.judge(t)
				use := float64(w.seen["called"]-before) / allowed(windows)
				least, sum = min(least, use), sum+use
			}
			t.Logf("%-15s %d replicas: %.2f %% used, %.2f %% in the worst of %d", name, replicas, 100*sum/deaths, 100*least, int(deaths))
			if sum/deaths < average || least < 0.89 || len(windows) > 1 && least < 0.97 {
				t.Errorf("%s by %d replicas: %.2f %% used in a minute with a death, want %.0f %%; %.2f %% in the worst", name,
					replicas, 100*sum/deaths, 100*average, 100*least)
			}
		}
	}
}

// A window of more than ten seconds is spent as fast as the account's concurrency allows, so its use must be measured over
// several windows.
func TestUseOfWindowsThatAreSpentAtOnce(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]limit.Window{
		"1000/min": {N: 1000, Per: time.Minute, Unit: limit.Messages},
		"100/5min": {N: 100, Per: 5 * time.Minute, Unit: limit.Requests},
		"2000/h":   {N: 2000, Per: time.Hour, Unit: limit.Messages},
		"5000/24h": {N: 5000, Per: 24 * time.Hour, Unit: limit.Messages},
	} {
		for _, death := range []bool{false, true} {
			windows := 40
			if !*limit.Thorough && x.N > 1000 {
				windows = 10
			}
			w := calm(*modelSeed, []limit.Window{x}, 3)
			if death {
				w.waiting = append(w.waiting, dies) // with the first call, when most are in flight
			}
			w.run(1<<40, time.Duration(windows)*x.Per)
			w.judge(t)
			use := float64(w.seen["called"]) / float64(windows*x.N)
			t.Logf("%-8s death %-5t: %.2f %% used of %d windows", name, death, 100*use, windows)
			if use < 0.98 {
				t.Errorf("%s, death %t: %.2f %% used of %d windows, want 98 %%", name, death, 100*use, windows)
			}
		}
	}
}
