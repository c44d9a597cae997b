//go:build drill

package drill

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/api"
)

// cell is a drill of the speed: what a fault leaves of it while it is on, and what is there again after it.
type cell struct {
	id           string
	postgres     map[string]string // settings of the server
	comes        bool              // the fault is mail that comes in, and makes the backlog longer
	under, after float64           // percent of the calm speed that are wanted while it is on, and afterwards; 0 is any
}

// standing is a backlog that lasts for the whole of such a drill.
type standing struct {
	*backlog
	calm    float64 // messages sent in a second while nothing is wrong
	mu      sync.Mutex
	offered []string // ids of the messages that came in by offer
}

const (
	shortestHold = 3 * time.Second
	longestLook  = time.Minute // at the speed without the fault
	firstBacklog = 2_000       // messages, to find out how many more it takes
	paceStep     = 250 * time.Millisecond
	backAt       = 0.9 // of the calm speed is a recovery
)

// cellDrill measures the speed, puts a fault on for a while, and measures it again. hold returns when the fault is over.
func cellDrill(t *testing.T, c cell, hold func(t *testing.T, s *standing, on time.Duration)) {
	t.Helper()
	s := &standing{}
	p := plan{limits: wide(), postgres: c.postgres, load: load{share: 0.1, plain: true}, byItself: true}
	drillTest(t, c.id, p, func(t *testing.T, r *rig) {
		s.backlog = r.newBacklog(t, false)
		on := max(*duration, shortestHold)
		look := min(on, longestLook)
		s.top(t, firstBacklog)
		rough, _ := s.speedOver(t, 4*time.Second)
		s.top(t, 2*rough*look.Seconds())
		s.calm, _ = s.speedOver(t, look)
		r.report.tally("calm", fmt.Sprintf("%.0f/s", s.calm))
		rest := look
		if !c.comes {
			rest += on
		}
		s.top(t, max(rough, s.calm)*(1.5*rest.Seconds()+4))

		began, before := time.Now(), r.emu.Taken()
		hold(t, s, on)
		took := time.Since(began)
		under := float64(r.emu.Taken()-before) / took.Seconds()
		after, back := s.speedOver(t, look)
		r.report.figure("on", took, 0)
		r.report.share("under", 100*under/max(s.calm, after), c.under) // replicas that have just started are not at their full speed
		r.report.share("after", 100*after/s.calm, c.after)
		if back > 0 {
			r.report.figure("back", back, 0)
		}
		if s.empty(t) { // it was measured too low before: the machine had something else to do
			r.report.tally("backlog", "ended early")
			r.report.over = append(r.report.over, "the backlog ended before the measurement")
		}
		began = time.Now()
		must(t, 4*time.Minute+4*(on+look), "the backlog is sent", func() bool { return s.empty(t) })
		r.report.figure("drained", time.Since(began), 0)
	})
	s.judge(t)
}

// top fills the backlog up to n messages.
func (s *standing) top(t *testing.T, n float64) {
	t.Helper()
	if missing := int(n) - s.waiting(t); missing > 0 {
		s.fill(t, missing)
		s.age(t)
		full := s.waiting(t)
		must(t, time.Minute, "the replicas have found the backlog", func() bool { return s.waiting(t) < full })
	}
}

// empty reports whether no message waits, also none that was put off because its account had no room.
func (s *standing) empty(t *testing.T) bool {
	t.Helper()
	return s.rig.count(t.Context(), `SELECT count(*) FROM (SELECT FROM ready LIMIT 1) x`) == 0
}

// speedOver is how many messages are sent in a second, for a while or until none waits, and after what time the speed was
// that of calm again; 0 is never.
func (s *standing) speedOver(t *testing.T, look time.Duration) (perSecond float64, back time.Duration) {
	t.Helper()
	began, first := time.Now(), s.rig.emu.Taken()
	for last, at := first, began; time.Since(began) < look && !s.empty(t); {
		pause(t, paceStep)
		now, sent := time.Now(), s.rig.emu.Taken()
		if back == 0 && float64(sent-last)/now.Sub(at).Seconds() >= backAt*s.calm {
			back = now.Sub(began)
		}
		last, at = sent, now
	}
	return float64(s.rig.emu.Taken()-first) / max(time.Since(began), paceStep).Seconds(), back
}

// offer sends messages by hundreds to all replicas for a while, at a rate, or as many as a few callers get accepted.
func (s *standing) offer(t *testing.T, d time.Duration, perSecond float64) {
	t.Helper()
	const callers, together = 8, 100
	ctx, stop := context.WithTimeout(t.Context(), d)
	defer stop()
	every := time.Nanosecond
	if perSecond > 0 {
		every = time.Duration(callers * together / perSecond * float64(time.Second))
	}
	began := time.Now()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { s.offerFrom(ctx, t, i, together, every) })
	}
	wg.Wait()
	r := s.rig
	r.report.tally("came", fmt.Sprintf("%.0f/s", float64(len(s.offered))/time.Since(began).Seconds()))
	r.report.tally("waiting", r.number(t, `SELECT count(*) FROM ready`))
}

func (s *standing) offerFrom(ctx context.Context, t *testing.T, caller, together int, every time.Duration) {
	r := s.rig
	client := api.NewWith("http://"+r.replicas[caller%len(r.replicas)].api, r.keys[quietTenant], r.http)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		var b api.BatchRequest
		for i := range together {
			b.Messages = append(b.Messages, api.SendRequest{
				From: api.Address{Email: "shop@example.com"}, To: []api.Address{{Email: fmt.Sprintf("bob+%d-%d-%d@example.org", caller, n, i)}},
				Subject: "More", Text: strings.Repeat("It is on its way. ", 20), OnAmbiguous: "never",
			})
		}
		answer, err := client.SendBatch(t.Context(), b)
		if err != nil {
			t.Errorf("a batch is not accepted: %v", err)
			return
		}
		s.mu.Lock()
		for _, x := range answer.Results {
			if x.SendResult == nil {
				t.Errorf("a message of a batch is refused: %v", x.Error)
				continue
			}
			s.offered = append(s.offered, x.ID)
		}
		s.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// judge checks, after the audit of the drill, what became of the backlog and of what was offered: each message has ended, and
// a provider has it, or its call was cut.
func (s *standing) judge(t *testing.T) {
	t.Helper()
	r := s.rig
	at := map[string]bool{}
	for _, line := range r.emu.Ledger() {
		at[line.MessageID] = true
	}
	rows, err := r.rows.Query(t.Context(), `
SELECT id::text, status FROM message WHERE id >= uuid_floor($1) AND id < uuid_floor($2) OR id = ANY ($3::text[]::uuid[])`,
		s.day, s.day.AddDate(0, 0, 1), s.offered)
	if err != nil {
		t.Fatal(err)
	}
	found, cut := 0, 0
	lost := complaints{what: "messages of the backlog lost"}
	var id, status string
	_, err = pgx.ForEachRow(rows, []any{&id, &status}, func() error {
		found++
		switch {
		case !slices.Contains(final(), status) || status == "failed" || status == "expired":
			lost.add("%s is %s", id, status)
		case !at[id] && status == "failed_unknown":
			cut++
		case !at[id]:
			lost.add("%s is %s and no provider has it", id, status)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	lost.fail(t)
	r.report.lost += len(lost.ids)
	r.report.tally("backlog", found)
	r.report.tally("cut", cut)
	if want := s.filled + len(s.offered); found != want {
		t.Errorf("messages of the backlog = %d, want %d", found, want)
	}
}
