//go:build drill

package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// meeting is one message whose result one replica writes while both are told of events, each in any order.
type meeting struct {
	flight
	recipient string
	lost      bool // the answer to the call; the events are the only evidence then
	end       mail.EventType
}

// Two replicas take results and events of the same messages at the same time, many of them of the same few addresses:
// whatever order they come in, nothing is left open, every event is there once, and was told to the endpoint once.
func TestReplicasMeetOverTheSameMessages(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.endpoint(t)
	replicas := []*DB{b.open(t, Options{SoftLimit: 3}), b.open(t, Options{SoftLimit: 3})}
	all := b.meet(t, replicas)
	rng := rand.New(rand.NewPCG(7, 11)) //nolint:gosec // a seed that can be repeated
	jobs := make(chan func(), 64)
	var wg sync.WaitGroup
	for range 48 {
		wg.Go(func() {
			for job := range jobs {
				job()
			}
		})
	}
	for _, job := range shuffled(t, rng, replicas, all) {
		jobs <- job
	}
	close(jobs)
	wg.Wait()
	b.exec(t, `UPDATE orphan SET retry_at = now()`) // the events that came before their messages
	_, err := b.db.MatchOrphans(t.Context(), 10_000)
	must(t, err)
	checkMeetings(t, b, all)
}

// meet starts the calls, half of them at each replica.
func (b *bed) meet(t *testing.T, replicas []*DB) []*meeting {
	t.Helper()
	account := b.relay(t)
	owners := []mail.ID{b.replica(t), b.replica(t)}
	subs := make([]*record.Submission, max(1000, times(200)))
	at := map[mail.ID]string{}
	for i := range subs {
		to := fmt.Sprintf("ann%d@example.org", i%40)
		subs[i] = submission(to)
		at[subs[i].Message.ID] = to
	}
	b.accept(t, subs...)
	share := len(subs) / 4
	var all []*meeting
	for len(all) < len(subs) {
		r := len(all) / share % 2
		due := b.claim(t, owners[r], account, share)
		var wg sync.WaitGroup
		for _, d := range due {
			m := &meeting{flight: flight{id: d.ID, owner: owners[r], account: account, due: d}, recipient: at[d.ID]}
			all = append(all, m)
			m.lost, m.end = len(all)%3 == 0, []mail.EventType{mail.EventDelivered, mail.EventBounced, mail.EventComplained}[len(all)%5%3]
			wg.Go(func() {
				if a, err := replicas[r].Intend(context.WithoutCancel(t.Context()), m.owner, intent(d, account)); !a.OK || err != nil {
					t.Errorf("intend: %v %v", a.OK, err)
				}
			})
		}
		wg.Wait()
	}
	return all
}

// events are what is told of a message. Bounces are hard or soft by turns.
func (m *meeting) events(i int) []mail.Event {
	last := told(m.id, m.end, m.recipient, 9)
	if m.end == mail.EventBounced {
		last = told(m.id, m.end, m.recipient, 9, []mail.Reason{mail.InvalidAddress, mail.MailboxFull}[i%2])
	}
	return []mail.Event{told(m.id, mail.EventAccepted, m.recipient, 0), told(m.id, mail.EventOpened, m.recipient, 5), last}
}

// shuffled are all writes: each result once, each event at both replicas, alone or with others in one request.
func shuffled(t *testing.T, rng *rand.Rand, replicas []*DB, all []*meeting) []func() {
	t.Helper()
	var jobs []func()
	var events []mail.Event
	for i, m := range all {
		jobs = append(jobs, func() { m.record(t, replicas[i/(len(all)/4)%2]) })
		events = append(events, m.events(i)...)
	}
	for _, db := range replicas {
		rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		for rest := append([]mail.Event(nil), events...); len(rest) > 0; {
			n := min(len(rest), 1+rng.IntN(60))
			in := hook(all[0].account, rest[:n]...)
			rest = rest[n:]
			jobs = append(jobs, func() { insist(t, db, in) })
		}
	}
	rng.Shuffle(len(jobs), func(i, j int) { jobs[i], jobs[j] = jobs[j], jobs[i] })
	return jobs
}

// insist comes again until the events are taken, as providers do.
func insist(t *testing.T, db *DB, in record.Intake) {
	for {
		_, err := db.ReceiveEvents(context.WithoutCancel(t.Context()), in)
		if _, away := errors.AsType[*record.Unavailable](err); !away {
			if err != nil {
				t.Error(err)
			}
			return
		}
		t.Logf("taken at another try: %v", err)
	}
}

func (m *meeting) record(t *testing.T, db *DB) {
	res := sent(m.due)
	res.Settle = nil
	if m.lost {
		res.Class, res.Recipients = "uncertain", changes("unknown")
		res.Unknown = &queue.Hanging{DecideIn: time.Hour, Policy: mail.Reconcile}
	}
	for {
		_, err := db.Record(context.WithoutCancel(t.Context()), m.owner, res)
		if _, away := errors.AsType[*record.Unavailable](err); !away {
			if err != nil {
				t.Error(err)
			}
			return
		}
		t.Logf("recorded at another try: %v", err)
	}
}

func checkMeetings(t *testing.T, b *bed, all []*meeting) {
	t.Helper()
	want := map[string]int{}
	for _, m := range all {
		want[map[mail.EventType]string{
			mail.EventDelivered: "delivered/4 delivered", mail.EventBounced: "bounced/5 bounced", mail.EventComplained: "complained/6 complained",
		}[m.end]]++
	}
	got := map[string]int{}
	for _, state := range list[string](t, b, `SELECT r.status || '/' || r.event_rank || ' ' || m.status FROM message m JOIN recipient r ON r.message_id = m.id`) {
		got[state]++
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("recipients and messages (-want +got):\n%s", diff)
	}
	for what, query := range map[string]string{
		"messages left open":            openCount("ready", "inflight", "unknown", "orphan"),
		"events missing or twice":       fmt.Sprintf(`SELECT count(*) - %d FROM event`, 3*len(all)),
		"events told less or more":      fmt.Sprintf(`SELECT count(*) - %d FROM outbox`, 3*len(all)),
		"attempts that nobody accepted": `SELECT count(*) FROM attempt WHERE class IS DISTINCT FROM 'accepted'`,
		"addresses not suppressed":      `SELECT count(DISTINCT r.email) FROM recipient r WHERE r.status = 'complained' AND NOT EXISTS (SELECT 1 FROM suppression s WHERE s.email = r.email)`,
	} {
		if n := get[int](t, b, query); n != 0 {
			t.Errorf("%s: %d", what, n)
		}
	}
}

// openCount adds up the rows of tables.
func openCount(tables ...string) string {
	sum := make([]string, len(tables))
	for i, table := range tables {
		sum[i] = `(SELECT count(*) FROM ` + table + `)`
	}
	return `SELECT ` + strings.Join(sum, " + ")
}

// Of two who change recipients of one message at the same time, the second to fold it sees what the first wrote.
func TestFoldSeesWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(*testing.T, *bed, flight){
		"events": func(t *testing.T, b *bed, f flight) {
			insist(t, b.db, hook(f.account, told(f.id, mail.EventBounced, "ann@example.org", 1, mail.InvalidAddress)))
		},
		"results": func(t *testing.T, b *bed, f flight) {
			if _, err := b.db.Record(context.WithoutCancel(t.Context()), f.owner, sent(f.due)); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			f := b.fly(t, submission("ann@example.org", "bob@example.org"))
			b.exec(t, `UPDATE recipient SET status = 'sent' WHERE message_id = $1 AND n = 1`, [16]byte(f.id))
			other := b.begin(t)
			for _, sql := range []string{
				`UPDATE recipient SET status = 'complained', event_rank = 6 WHERE message_id = $1 AND n = 1`,
				`UPDATE message SET status = 'complained' WHERE id = $1`,
			} {
				_, err := other.Exec(t.Context(), sql, [16]byte(f.id))
				must(t, err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				write(t, b, f)
			}()
			until(t, "it waits for the message", func() bool {
				return get[int](t, b, `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database()`) > 0
			})
			must(t, other.Commit(t.Context()))
			<-done
			if got := b.status(t, f.id); !strings.HasPrefix(got, "complained: ") {
				t.Errorf("the message is %s, want complained", got)
			}
		})
	}
}
