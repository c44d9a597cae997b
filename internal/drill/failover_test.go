//go:build drill

package drill

import (
	"errors"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

// lapse is a period whose commits the database has lost. It begins with the last commit that the present database (a standby
// or a backup) has, and ends when the service ran on that database. The zero value means no loss.
type lapse struct {
	from, until time.Time
	lost        []promise // what the auditor misses of it
}

func (l lapse) has(at time.Time) bool { return at.After(l.from) && at.Before(l.until) }

// The primary dies for good, and a synchronous standby takes over: the service goes on by itself, and nothing is lost.
func TestD07aSynchronousStandbyTakesOver(t *testing.T) {
	drillTest(t, "D07a", plan{standby: synchronous}, func(t *testing.T, r *rig) {
		r.faults(t, slow())
		pause(t, *duration/2)
		r.pg.stopImmediately(t)
		down := time.Now()
		pause(t, 2*time.Second)
		r.expectNone(t, down) // requests meanwhile wait, and get their answer from the standby
		r.takeOver(t)
	})
}

// The same, but the standby was unreachable for a while before. Nobody got an answer for the commits that it lacks, not even
// clients who repeated their request.
func TestD07cSynchronousStandbyIsCutOffAndTakesOver(t *testing.T) {
	drillTest(t, "D07c", plan{standby: synchronous}, func(t *testing.T, r *rig) {
		r.faults(t, slow())
		r.standby.cutOff(t, r.pg)
		cut := time.Now()
		pause(t, max(*duration, 20*time.Second)) // a COMMIT is waited for until 15 s after the request, and the request is repeated
		has, lacked := ask(t, r.standby.dsn, `SELECT count(*)::text FROM message`), ""
		must(t, 40*time.Second, "messages are committed that the standby lacks", func() bool {
			lacked = ask(t, r.pg.dsn, `SELECT (count(*) - $1::bigint)::text FROM message`, has)
			return lacked != "0"
		})
		r.expectNone(t, cut)
		if r.clients.answers("503") == 0 {
			t.Error("nobody was told 503: the fault was not on")
		}
		r.report.tally("lacked_bytes", r.standby.lack(t, r.pg))
		r.report.tally("lacked_messages", lacked)
		r.standby.wire.end()
		r.pg.stopImmediately(t)
		r.takeOver(t)
	})
}

// expectNone fails the drill if a request that began after a time was accepted.
func (r *rig) expectNone(t *testing.T, since time.Time) {
	t.Helper()
	if n := r.clients.askedSince(since); n != 0 {
		t.Errorf("202s without a database that keeps them = %d, want none", n)
	}
}

// takeOver promotes the standby and waits for the service to go on by itself.
func (r *rig) takeOver(t *testing.T) {
	t.Helper()
	_, took := r.standby.promote(t)
	r.report.figure("promotion", took, 0)
	r.backAfter(t, "first202", time.Now(), 10*time.Second)
	r.faults(t, nil)
	pause(t, *duration)
	r.expectFenced(t)
}

// expectFenced fails the drill if the old primary lives, or a process was restarted that should have gone on by itself.
func (r *rig) expectFenced(t *testing.T) {
	t.Helper()
	if r.pg.alive() {
		t.Error("the old primary lives")
	}
	for _, x := range r.replicas {
		select {
		case <-x.done:
			t.Errorf("%s ended: %v", x.name, x.err)
		default:
		}
	}
}

// The primary dies for good before its standby has received the last second: that is lost, and nothing else. The operator
// stops the service, promotes, holds what may have been sent, and starts the service: nobody is mailed twice.
func TestD07bAsynchronousStandbyTakesOver(t *testing.T) {
	drillTest(t, "D07b", plan{standby: asynchronous, load: load{share: 0.5}}, func(t *testing.T, r *rig) {
		r.faults(t, slow())
		r.lapse.from = r.standby.cutOff(t, r.pg)
		must(t, 20*time.Second, "mail is accepted that the standby lacks", func() bool { n, _ := r.clients.acceptedSince(r.lapse.from); return n > 30 })
		pause(t, time.Second)
		r.report.tally("lacked_bytes", r.standby.lack(t, r.pg))
		r.standby.wire.end()
		r.pg.stopImmediately(t)
		r.report.figure("lapse", time.Since(r.lapse.from), 0)
		down := time.Now()
		for _, x := range r.replicas {
			x.kill()
		}
		reached, took := r.standby.promote(t)
		r.report.figure("promotion", took, 0)
		r.restore(t, reached)
		r.faults(t, nil)
		r.lapse.until = time.Now()
		for _, x := range r.replicas {
			x.start(t)
		}
		r.backAfter(t, "first202", r.lapse.until, 10*time.Second)
		r.report.figure("down", time.Since(down), 0)
		pause(t, *duration)
		r.expectFenced(t)
		// The deadline grows by a second for each message that is made unknown. A slow machine makes more of them unknown than
		// this drill has time for.
		if n := r.number(t, `WITH u AS (UPDATE unknown SET decide_at = least(decide_at, now() + interval '60 s')
			WHERE decide_at > now() + interval '60 s' RETURNING id) SELECT count(*) FROM u`); n != 0 {
			r.report.tally("deadlines_cut", n)
		}
	})
}

// restore is "sendgate restore", once the leases of the processes that were killed have run out.
func (r *rig) restore(t *testing.T, since time.Time) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	command := func(mode string) (said string, ok bool) {
		cmd := exec.CommandContext(t.Context(), path, "restore", "--since", since.Format(time.RFC3339Nano), mode) //nolint:gosec // our own program
		cmd.Env = r.replicas[0].env
		out, err := cmd.CombinedOutput()
		return strings.Join(strings.Fields(string(out)), " "), err == nil
	}
	must(t, 30*time.Second, "the leases have run out", func() bool {
		said, ok := command("--dry-run")
		return ok && !strings.Contains(said, "stop it first")
	})
	said, ok := command("--yes")
	words := strings.Fields(strings.TrimPrefix(said, "held as unknown "))
	if !ok || !strings.HasPrefix(said, "held as unknown ") || len(words) == 0 {
		t.Fatalf("restore: %s", said)
	}
	if n, err := strconv.Atoi(words[0]); err != nil || n == 0 {
		t.Errorf("restore held nothing (%v): the drill shows less than it says\n%s", err, said)
	}
	r.report.tally("held", words[0])
}

// auditLapse: messages of the lapse are lost, and callers find all of them by their ids, as the manual says.
func (r *rig) auditLapse(t *testing.T, e evidence) {
	t.Helper()
	if r.lapse.from.IsZero() {
		return
	}
	if len(r.lapse.lost) == 0 {
		t.Error("nothing is lost of the lapse: the fault was not on")
	}
	first, last, sent := time.Duration(0), time.Duration(0), 0
	for i, p := range r.lapse.lost {
		_, err := api.NewWith("http://"+r.replicas[0].api, r.keys[p.Tenant], r.http).Message(t.Context(), p.ID)
		if problem, ok := errors.AsType[*api.Problem](err); !ok || problem.Status != http.StatusNotFound {
			t.Errorf("a message that is lost, asked for by its id: %v, want 404", err)
		}
		after := p.At.Sub(r.lapse.from)
		if first = min(first, after); i == 0 {
			first = after
		}
		last = max(last, after)
		if len(e.lines[p.ID]) > 0 {
			sent++
		}
		if i < 5 {
			t.Logf("lost: %s, answered %s into the lapse, at providers %d", p.ID, round(after), len(e.lines[p.ID]))
		}
	}
	r.report.tally("mailed_under_two_ids", mailedAnew(t, e))
	r.report.figure("first_lost", first, 0)
	r.report.figure("last_lost", last, 0)
	r.report.tally("lost_and_sent", sent)
}

// mailedAnew counts the addresses that were mailed under two ids: a caller who got no answer repeated its request after the
// database had lost the first message and its key. More than one of them that the database knows is a failure.
func mailedAnew(t *testing.T, e evidence) int {
	t.Helper()
	ids := map[string]map[string]bool{} // by address, which each letter has its own of; true for those in the tables
	for id, lines := range e.lines {
		_, known := e.byID[id]
		for _, line := range lines {
			for _, to := range line.To {
				if ids[to] == nil {
					ids[to] = map[string]bool{}
				}
				ids[to][id] = known
			}
		}
	}
	n := 0
	for to, all := range ids {
		known := 0
		for _, k := range all {
			if k {
				known++
			}
		}
		if known > 1 {
			t.Errorf("%s was mailed by %d messages", to, known)
		}
		if len(all) > 1 {
			n++
		}
	}
	return n
}
