package postgres

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// met records a call that met a park.
func (b *bed) met(t *testing.T, p queue.Park) {
	t.Helper()
	f := b.flying(t)
	p.Account, p.Wait, p.MaxWait = f.account, 5*time.Minute, time.Hour
	if p.Reason == "" {
		p.Reason = "no"
	}
	b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "misconfigured", Requeue: &queue.Requeue{In: time.Hour}, Park: &p})
}

// parks tells which parks there are, and in how many minutes each is probed.
func (b *bed) parks(t *testing.T) string {
	t.Helper()
	return get[string](t, b, `SELECT coalesce(string_agg(sender_domain || '=' || round(extract(epoch FROM probe_at - now()) / 60), ' '
		ORDER BY sender_domain), '') FROM account_park`)
}

func TestAProbeThatIsRefusedPutsTheNextOneOff(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.met(t, queue.Park{})
	b.met(t, queue.Park{Reason: "again"}) // a call that was under way: no probe
	if got := b.parks(t); got != "=5" {
		t.Fatalf("parks = %q, want one that is probed in 5 minutes", got)
	}
	version := b.version(t)
	var waits []string
	for range 6 {
		b.met(t, queue.Park{Probe: true, Reason: "still"})
		waits = append(waits, b.parks(t))
	}
	if got, want := strings.Join(waits, " "), "=10 =20 =40 =60 =60 =60"; got != want {
		t.Errorf("the next probe comes in %s minutes, want %s", got, want)
	}
	if p := b.config(t).Account("relay").Parked; len(p) != 1 || p[0].Reason != "still" || time.Until(p[0].Next) < 50*time.Minute {
		t.Errorf("parked: %+v, want what the last probe found", p)
	}
	if n := get[int](t, b, `SELECT count(*) FROM audit WHERE action = 'account.park'`); n != 1 || b.version(t) != version {
		t.Errorf("%d audit entries, and a new version %v; want one entry and none", n, b.version(t) != version)
	}
}

func TestAnAcceptedProbeEndsItsParks(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.met(t, queue.Park{SenderDomain: "example.com", Sender: "shop@example.com", Reason: "not verified"})
	b.met(t, queue.Park{SenderDomain: "example.net"})
	version := b.version(t)
	for range 2 { // the second finds nothing left
		f := b.flying(t)
		b.record(t, f.owner, queue.Result{
			ID: f.id, N: 1, Class: "accepted", Recipients: changes("sent", "sent", "sent"),
			Unpark: &queue.Unpark{Account: f.account, Keys: []string{"", "shop@example.com"}},
		})
	}
	if got := b.parks(t); got != "example.net=5" {
		t.Errorf("parks = %q, want the other one only", got)
	}
	audit, err := b.db.Audit(t.Context(), record.AuditFilter{Limit: 100})
	must(t, err)
	var said []string
	for _, e := range audit {
		if e.Action == "account.unpark" {
			said = append(said, fmt.Sprintf("%s %s %s", e.Actor, e.Target, e.Detail))
		}
	}
	want := `system relay {"reason": "not verified", "sender": "shop@example.com", "sender_domain": "example.com"}`
	if got := strings.Join(said, "; "); got != want || b.version(t) != version+1 {
		t.Errorf("audit says %s, version moved by %d; want %s, and by 1", got, b.version(t)-version, want)
	}
}

func TestOneProcessProbesAtATime(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.met(t, queue.Park{})
	b.met(t, queue.Park{SenderDomain: "example.com", Sender: "shop@example.com"})
	take := func() map[int32][]string {
		got, err := b.db.TakeProbes(t.Context(), time.Minute)
		must(t, err)
		return got
	}
	if got := take(); len(got) != 0 {
		t.Fatalf("probes = %v, want none before they are due", got)
	}
	b.exec(t, `UPDATE account_park SET probe_at = now()`)
	var mu sync.Mutex
	var all []string
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got := take()
			mu.Lock()
			defer mu.Unlock()
			for _, keys := range got {
				all = append(all, keys...)
			}
		})
	}
	wg.Wait()
	slices.Sort(all)
	if got := strings.Join(all, ","); got != ",shop@example.com" {
		t.Errorf("eight processes may probe %q, want each park once", got)
	}
	b.exec(t, `UPDATE account_park SET probe_at = now()`) // the lease is over
	if got := take(); len(slices.Collect(maps.Values(got))[0]) != 2 {
		t.Errorf("probes after the lease = %v, want both", got)
	}
	b.exec(t, `UPDATE account_park SET probe_at = now()`)
	b.exec(t, `UPDATE account SET paused = true`)
	if got := take(); len(got) != 0 {
		t.Errorf("probes of a paused account = %v, want none", got)
	}
}

func TestParksOfSendersThatSendNothingEnd(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.met(t, queue.Park{})
	b.met(t, queue.Park{SenderDomain: "example.com"})
	b.met(t, queue.Park{SenderDomain: "example.net"})
	b.exec(t, `UPDATE account_park SET tried_at = now() - interval '25 h' WHERE sender_domain <> 'example.net'`)
	_, err := b.db.TakeProbes(t.Context(), time.Minute)
	must(t, err)
	if got := b.parks(t); got != "=5 example.net=5" {
		t.Errorf("parks = %q, want that of the account and that of the sender who sends", got)
	}
}

func TestManyParkedAddressesOfADomainAreTheDomain(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for i := range addressParks + 2 {
		b.met(t, queue.Park{SenderDomain: "example.com", Sender: fmt.Sprintf("user-%d@example.com", i)})
	}
	b.met(t, queue.Park{SenderDomain: "sub.example.com", Sender: "one@sub.example.com"})
	p := b.config(t).Account("relay").Parked
	if len(p) != addressParks+2 || p[0].Sender != "" && p[0].SenderDomain != "example.com" {
		t.Errorf("%d parks, the first %+v; want %d addresses, the domain, and the address of another domain", len(p), p[0], addressParks)
	}
	if n := get[int](t, b, `SELECT count(*) FROM account_park WHERE sender_domain = 'example.com'`); n != 1 {
		t.Error("the domain is not parked")
	}
}
