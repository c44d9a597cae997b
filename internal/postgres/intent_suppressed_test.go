package postgres

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// open is an intent of a call to all recipients of a message.
func open(d queue.Due, account int32, s *record.Submission) queue.Intent {
	in := intent(d, account)
	in.Tenant, in.Stream = s.Message.Tenant, s.Message.Stream
	for _, r := range s.Message.Recipients() {
		in.Open = append(in.Open, mail.Recipient{N: r.N, Address: r.Address})
	}
	return in
}

func TestIntentTellsWhoWasSuppressedSinceTheClaim(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	owner, account := b.replica(t), b.relay(t)
	other, err := b.db.CreateTenant(t.Context(), "tester", record.Tenant{Name: "other", Weight: 1})
	must(t, err)
	for _, tc := range []struct {
		name string
		to   []string
		s    record.Suppression
		gone []int
	}{
		{name: "the only one", to: []string{"a@example.org"}, s: record.Suppression{Email: "a@example.org"}, gone: []int{0}},
		{name: "one of three", to: []string{"b@example.org", "c@example.org", "d@example.org"}, s: record.Suppression{Email: "c@example.org"}, gone: []int{1}},
		{name: "in other case", to: []string{"E.e@EXAMPLE.org", "f@example.org"}, s: record.Suppression{Email: "e.E@example.ORG"}, gone: []int{0}},
		{name: "not ASCII", to: []string{"g@bücher.example", "ÄRGER@example.org"}, s: record.Suppression{Email: "ärger@example.org"}, gone: []int{1}},
		{name: "of its stream", to: []string{"h@example.org"}, s: record.Suppression{Email: "h@example.org", Stream: mail.DefaultStream}, gone: []int{0}},
		{name: "of another stream", to: []string{"i@example.org"}, s: record.Suppression{Email: "i@example.org", Stream: "news"}},
		{name: "for a while", to: []string{"j@example.org"}, s: record.Suppression{Email: "j@example.org", ExpiresAt: time.Now().Add(time.Hour)}, gone: []int{0}},
		{name: "no longer", to: []string{"k@example.org"}, s: record.Suppression{Email: "k@example.org", ExpiresAt: time.Now().Add(-time.Hour)}},
		{name: "of another tenant", to: []string{"l@example.org"}, s: record.Suppression{Email: "l@example.org", Tenant: other.ID}},
	} {
		s := submission(tc.to...)
		b.accept(t, s)
		d := b.claim(t, owner, account, 1)[0]
		tc.s.Reason, tc.s.Origin = "manual", "api"
		if tc.s.Tenant == 0 {
			tc.s.Tenant = mail.DefaultTenant
		}
		must(t, b.db.Suppress(t.Context(), tc.s))
		got, err := b.db.Intend(t.Context(), owner, open(d, account, s))
		must(t, err)
		want := queue.Announced{OK: len(tc.gone) < len(tc.to), Suppressed: tc.gone}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: announced (-want +got):\n%s", tc.name, diff)
		}
		place := map[bool]string{true: "started", false: "inflight"}[want.OK]
		if p := b.place(t, s.Message.ID); p != place {
			t.Errorf("%s: message is %s, want %s", tc.name, p, place)
		}
		if n := get[int](t, b, `SELECT count(*) FROM attempt WHERE message_id = $1`, [16]byte(s.Message.ID)); (n == 1) != want.OK {
			t.Errorf("%s: %d attempts are announced, want one if there is somebody to mail", tc.name, n)
		}
		if want.OK {
			continue
		}
		if !b.record(t, owner, queue.Result{ID: d.ID, N: 1, Recipients: []queue.RecipientChange{{N: 0, Status: mail.Suppressed}}}) {
			t.Errorf("%s: the claim could not be closed", tc.name)
		}
		if place, status := b.place(t, d.ID), b.status(t, d.ID); place != "settled" || status != "suppressed: suppressed" {
			t.Errorf("%s: message is in %q and %s, want it suppressed and nowhere in the queue", tc.name, place, status)
		}
	}
}

// Intents that share a statement are answered each for its own recipients.
func TestIntentsOfABatchTellTheirOwnSuppressed(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	owner, account := b.replica(t), b.relay(t)
	subs := []*record.Submission{submission("a@example.org", "b@example.org"), submission("b@example.org"), submission("c@example.org")}
	b.accept(t, subs...)
	var batch []ownedIntent
	due := b.claim(t, owner, account, 3)
	for _, s := range subs {
		i := slices.IndexFunc(due, func(d queue.Due) bool { return d.ID == s.Message.ID })
		batch = append(batch, ownedIntent{open(due[i], account, s), owner})
	}
	must(t, b.db.Suppress(t.Context(), record.Suppression{Tenant: 1, Email: "b@example.org", Reason: "manual", Origin: "api"}))
	got, err := b.db.intentOnce(t.Context(), batch)
	must(t, err)
	if diff := cmp.Diff([]queue.Announced{{OK: true, Suppressed: []int{1}}, {Suppressed: []int{0}}, {OK: true}}, got); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
}

// Many calls are announced while a suppression comes in the middle: none that asks after its answer has the address.
func TestNoIntentAfterASuppressionsAnswerHasTheAddress(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	owner, account := b.replica(t), b.relay(t)
	const n = 200
	subs := map[mail.ID]*record.Submission{}
	var all []*record.Submission
	for i := range n {
		s := submission("ann@example.org", fmt.Sprintf("b%d@example.org", i))
		subs[s.Message.ID], all = s, append(all, s)
	}
	b.accept(t, all...)
	due := b.claim(t, owner, account, n)
	var answered atomic.Bool
	var before, after atomic.Int64
	begin := make(chan struct{}, n)
	var wg sync.WaitGroup
	for _, d := range due {
		wg.Go(func() {
			<-begin
			late := answered.Load()
			a, err := b.db.Intend(t.Context(), owner, open(d, account, subs[d.ID]))
			if err != nil {
				t.Errorf("intend: %v", err)
			}
			switch with := len(a.Suppressed) == 0; {
			case !a.OK:
				t.Error("an intent was refused that has somebody to mail")
			case late && with:
				t.Error("a call with the address was announced after it had been answered that it is suppressed")
			case with:
				before.Add(1)
			default:
				after.Add(1)
			}
		})
	}
	for i := range n {
		begin <- struct{}{}
		if i == n/2 {
			must(t, b.db.Suppress(t.Context(), record.Suppression{Tenant: 1, Email: "ann@example.org", Reason: "manual", Origin: "api"}))
			answered.Store(true)
		}
	}
	wg.Wait()
	if after.Load() == 0 {
		t.Error("no intent found the suppression")
	}
	t.Logf("%d calls with the address, %d without", before.Load(), after.Load())
}
