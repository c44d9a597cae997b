package postgres

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// thorough is for the build machine, which has the time.
var thorough = flag.Bool("thorough", false, "try what is random a hundred times as often")

// times is how often something random is tried.
func times(n int) int {
	if *thorough {
		return 100 * n
	}
	return n
}

// The events of one run in any order, each once or several times, some with a new id of the provider's, and the call's own
// outcome (an acceptance, a lost answer, or a dead replica) anywhere between them: there is one final state.
func TestEveryOrderOfEventsEndsInOneState(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	runs := startRuns(t, b)
	rng := rand.New(rand.NewPCG(42, 1)) //nolint:gosec // a seed that can be repeated
	longest := 0
	for i := range runs {
		runs[i].shuffle(rng)
		longest = max(longest, len(runs[i].steps))
	}
	for round := range longest { // one step of every message at a time: each keeps its own order
		playRound(t, b, runs, round)
	}
	checkRuns(t, b, runs)
}

// run is one message and the steps that it will see.
type run struct {
	flight
	rescued bool
	steps   []step
}

// step is one event, or the outcome of the call.
type step struct {
	event   *mail.Event
	outcome string // accepted, lost, died
}

func startRuns(t *testing.T, b *bed) []run {
	t.Helper()
	account, living, dying := b.relay(t), b.replica(t), b.replica(t)
	subs := make([]*record.Submission, times(100)) // how many orders the property is tried in
	for i := range subs {
		subs[i] = submission("ann@example.org", "bob@example.org", "cy@example.org")
	}
	b.accept(t, subs...)
	var runs []run
	for i := 0; len(runs) < len(subs); i++ {
		owner := living
		if i%4 == 0 {
			owner = dying
		}
		due := b.claim(t, owner, account, len(subs)/2)
		var wg sync.WaitGroup
		for _, d := range due {
			wg.Go(func() {
				if a, err := b.db.Intend(context.WithoutCancel(t.Context()), owner, intent(d, account)); !a.OK || err != nil {
					t.Errorf("intend: %v %v", a.OK, err)
				}
			})
			runs = append(runs, run{flight: flight{id: d.ID, owner: owner, account: account, due: d}, rescued: owner == dying})
		}
		wg.Wait()
	}
	return runs
}

// shuffle makes the steps of a run: ann's mail is put off, delivered, opened and comes back; bob's is delivered and called
// spam; of cy nothing is heard but that the provider took it.
func (r *run) shuffle(rng *rand.Rand) {
	outcome := []string{"accepted", "lost"}[rng.IntN(2)]
	if r.rescued {
		outcome = "died"
	}
	r.steps = append(r.steps, step{outcome: outcome})
	for _, e := range []mail.Event{
		told(r.id, mail.EventAccepted, "ann@example.org", 0),
		told(r.id, mail.EventDeferred, "ann@example.org", 5, mail.ThrottledThere),
		told(r.id, mail.EventDeferred, "ann@example.org", 9, mail.MailboxFull),
		told(r.id, mail.EventDelivered, "ann@example.org", 12),
		told(r.id, mail.EventOpened, "ann@example.org", 15),
		told(r.id, mail.EventBounced, "ann@example.org", 14, mail.MailboxFull),
		told(r.id, mail.EventBounced, "ann@example.org", 14, mail.Undetermined), // as late: the key decides
		told(r.id, mail.EventAccepted, "bob@example.org", 0),
		told(r.id, mail.EventDelivered, "bob@example.org", 3),
		told(r.id, mail.EventComplained, "bob@example.org", 3),
		told(r.id, mail.EventAccepted, "cy@example.org", 1),
	} {
		for copies := 1 + rng.IntN(2); copies > 0; copies-- {
			c := e
			if rng.IntN(4) == 0 {
				c.UniqueID += " sent again"
			}
			r.steps = append(r.steps, step{event: &c})
		}
	}
	rng.Shuffle(len(r.steps), func(i, j int) { r.steps[i], r.steps[j] = r.steps[j], r.steps[i] })
}

func playRound(t *testing.T, b *bed, runs []run, round int) {
	t.Helper()
	var wg sync.WaitGroup
	var events []mail.Event
	died := false
	for i := range runs {
		r := &runs[i]
		if round >= len(r.steps) {
			continue
		}
		switch s := r.steps[round]; s.outcome {
		case "":
			events = append(events, *s.event)
		case "died":
			died = true
		default:
			wg.Go(func() { r.end(t, b, s.outcome) })
		}
	}
	for part := range slices.Chunk(events, 100) {
		wg.Go(func() {
			for { // a provider comes again, too
				_, err := b.db.ReceiveEvents(context.WithoutCancel(t.Context()), hook(runs[0].account, part...))
				if !away(err) {
					if err != nil {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	if died { // all calls of the dead replica are found at once, at the first of their steps
		b.expire(t, runs[0].owner)
		_, _, err := b.db.Rescue(t.Context(), map[mail.Policy]time.Duration{mail.Reconcile: time.Hour})
		for away(err) { // it waits for no lock longer than a second, and comes again
			_, _, err = b.db.Rescue(t.Context(), map[mail.Policy]time.Duration{mail.Reconcile: time.Hour})
		}
		if err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

func away(err error) bool {
	_, is := errors.AsType[*record.Unavailable](err)
	return is
}

func (r *run) end(t *testing.T, b *bed, outcome string) {
	res := sent(r.due)
	res.Settle = nil
	res.Recipients = changes("sent", "sent", "sent")
	if outcome == "lost" {
		res.Class, res.Recipients = "uncertain", changes("unknown", "unknown", "unknown")
		res.Unknown = &queue.Hanging{DecideIn: time.Hour, Policy: mail.Reconcile}
	}
	_, err := b.db.Record(context.WithoutCancel(t.Context()), r.owner, res)
	for away(err) {
		_, err = b.db.Record(context.WithoutCancel(t.Context()), r.owner, res)
	}
	if err != nil {
		t.Error(err)
	}
}

func checkRuns(t *testing.T, b *bed, runs []run) {
	t.Helper()
	ids := make([][16]byte, len(runs))
	for i := range runs {
		ids[i] = runs[i].id
	}
	states := list[string](t, b, `SELECT DISTINCT m.status || ': ' || string_agg(r.status || '/' || r.event_rank || '/' || coalesce(r.bounce->>'reason', ''), ' ' ORDER BY r.n)
		FROM message m JOIN recipient r ON r.message_id = m.id WHERE m.id = ANY ($1) GROUP BY m.id, m.status`, ids)
	for _, s := range states { // the key is random, so either of the two bounces may be the last
		if s = strings.Replace(s, "undetermined", "mailbox_full", 1); s != "complained: bounced/5/mailbox_full complained/6/ sent/1/" {
			t.Errorf("a message ended as %s", s)
		}
	}
	if got := list[string](t, b, `SELECT DISTINCT class || '/' || CASE verdict_source WHEN 'response' THEN 'x' WHEN 'webhook' THEN 'x' ELSE verdict_source END FROM attempt`); !slices.Equal(got, []string{"accepted/x"}) {
		t.Errorf("attempts ended as %v", got)
	}
	for _, table := range []string{"ready", "inflight", "unknown", "orphan"} {
		if n := get[int](t, b, `SELECT count(*) FROM `+table); n != 0 {
			t.Errorf("%d rows are left in %s", n, table)
		}
	}
	if n := get[int](t, b, `SELECT count(*) FROM event WHERE source = 'webhook'`); n != 11*len(runs) {
		t.Errorf("%d events are kept, want %d", n, 11*len(runs))
	}
}
