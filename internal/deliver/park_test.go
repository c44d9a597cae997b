package deliver

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/route"
)

func rejection(edit func(*provider.Error)) *provider.Error {
	e := &provider.Error{Class: provider.Rejected, Status: 422, Code: "300", Detail: "no"}
	edit(e)
	return e
}

func TestContentFailsOnlyAfterASecondKindRefusedItToo(t *testing.T) {
	t.Parallel()
	content := rejection(func(*provider.Error) {})
	c := testCall("ann@example.org")
	c.due.Avoid = map[string]queue.Avoid{"relay": {Final: true, Why: "rejected: too large"}} // a cap is no opinion on the content
	first, _ := next(c, provider.Receipt{}, content, testPolicy(), noon(), 0)
	if first.Requeue == nil || len(first.Recipients) != 0 || first.Requeue.Avoid["ses-eu"].Kind != "ses" || !first.Requeue.Avoid["relay"].Final {
		t.Fatalf("after the first refusal: %+v, want it queued, away from the kind ses and from the relay", first)
	}
	c.name, c.kind, c.due.Avoid = "postmark", "postmark", first.Requeue.Avoid
	second, _ := next(c, provider.Receipt{}, content, testPolicy(), noon(), 0)
	if second.Requeue != nil || len(second.Recipients) != 1 || second.Recipients[0].Status != mail.Failed {
		t.Fatalf("after the second refusal: %+v, want it failed", second)
	}
	if d := second.Recipients[0].Detail; !strings.Contains(d, "before, by ses-eu: rejected") {
		t.Errorf("detail = %q, want both refusals", d)
	}
	capped, _ := next(c, provider.Receipt{}, rejection(func(e *provider.Error) { e.Elsewhere = true }), testPolicy(), noon(), 0)
	if capped.Requeue == nil || capped.Requeue.Avoid["postmark"].Kind != "" {
		t.Errorf("a cap after a refusal: %+v, want it queued for the others", capped)
	}
}

// meets lets an account see outcomes and returns what the last one leads to.
type outcome struct {
	message, address string
	failure          *provider.Error // nil: accepted
}

func parkAfter(outcomes ...outcome) *queue.Park {
	a := &account{name: "postmark", kind: "postmark"}
	var last queue.Result
	for _, o := range outcomes {
		c := testCall("ann@example.org")
		copy(c.due.ID[:], o.message)
		c.address = o.address
		c.sender = o.address[strings.IndexByte(o.address, '@')+1:]
		c.suspicion = a.weigh(c, o.failure)
		last, _ = next(c, provider.Receipt{}, o.failure, testPolicy(), noon(), 0)
	}
	return last.Park
}

func TestOneMessageDoesNotParkWhatThreeInARowDo(t *testing.T) {
	t.Parallel()
	suspect := func(scope provider.Scope, code string) *provider.Error {
		return rejection(func(e *provider.Error) { e.Elsewhere, e.Suspect, e.Scope, e.Code = true, true, scope, code })
	}
	pending, from := suspect(provider.ScopeAccount, "412"), suspect(provider.ScopeAddress, "300")
	const shop, info, other = "shop@example.com", "info@example.com", "shop@example.net"
	for _, tc := range []struct {
		name     string
		outcomes []outcome
		want     string // the key of the park; "-" for none
	}{
		{"one", []outcome{{"1", shop, pending}}, "-"},
		{"one message three times", []outcome{{"1", shop, pending}, {"1", shop, pending}, {"1", shop, pending}}, "-"},
		{"three messages", []outcome{{"1", shop, pending}, {"2", other, pending}, {"3", info, pending}}, ""},
		{"three with an acceptance between", []outcome{{"1", shop, pending}, {"2", shop, pending}, {"3", other, nil}, {"4", shop, pending}}, "-"},
		{"three with another refusal between", []outcome{
			{"1", shop, pending}, {"2", shop, pending}, {"3", shop, rejection(func(*provider.Error) {})}, {"4", shop, pending},
		}, ""},
		{"three answers of two kinds", []outcome{{"1", shop, pending}, {"2", shop, suspect(provider.ScopeAccount, "403")}, {"3", shop, pending}}, "-"},
		{"a fourth after the park", []outcome{{"1", shop, pending}, {"2", shop, pending}, {"3", shop, pending}, {"4", shop, pending}}, "-"},
		{"three of one address", []outcome{{"1", shop, from}, {"2", shop, from}, {"3", shop, from}}, shop},
		{"three of one domain", []outcome{{"1", shop, from}, {"2", info, from}, {"3", shop, from}}, "example.com"},
		{"three of two domains", []outcome{{"1", shop, from}, {"2", other, from}, {"3", shop, from}}, "-"},
		{"another domain is accepted between", []outcome{{"1", shop, from}, {"2", shop, from}, {"3", other, nil}, {"4", shop, from}}, shop},
		{"their own is accepted between", []outcome{{"1", shop, from}, {"2", shop, from}, {"3", info, nil}, {"4", shop, from}}, "-"},
		{"a bad recipient", []outcome{
			{"1", shop, &provider.Error{Class: provider.BadRecipient}},
			{"2", shop, &provider.Error{Class: provider.BadRecipient}},
			{"3", shop, &provider.Error{Class: provider.BadRecipient}},
		}, "-"},
	} {
		got := "-"
		if p := parkAfter(tc.outcomes...); p != nil {
			got = p.Key()
		}
		if got != tc.want {
			t.Errorf("%s: park %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestADoubtfulMisconfigurationKeepsItsMessageQueued(t *testing.T) {
	t.Parallel()
	a := &account{name: "postmark", kind: "postmark"}
	stream := &provider.Error{Class: provider.Misconfigured, Suspect: true, Code: "1235"}
	for i := range suspectsToPark {
		c := testCall("ann@example.org")
		c.due.ID[0] = byte(i)
		c.suspicion = a.weigh(c, stream)
		r, health := next(c, provider.Receipt{}, stream, testPolicy(), noon(), 0.5)
		if r.Requeue == nil || health != neutral || (r.Park != nil) != (i == suspectsToPark-1) {
			t.Fatalf("message %d: requeue %+v, park %+v; want it queued, and a park by the third", i+1, r.Requeue, r.Park)
		}
		if wait := r.Requeue.Avoid["ses-eu"].Until.Sub(noon()); r.Park == nil && wait != 4*time.Second {
			t.Errorf("message %d stays away for %s, want its backoff", i+1, wait)
		}
	}
}

func TestWhatAnAccountRemembersOfSuspicionsIsBounded(t *testing.T) {
	t.Parallel()
	a := &account{}
	for i := range 3 * maxSuspicions {
		c := testCall("ann@example.org")
		c.sender = fmt.Sprintf("d%d.example", i)
		a.weigh(c, rejection(func(e *provider.Error) { e.Suspect, e.Scope = true, provider.ScopeSender }))
	}
	if n := len(a.suspects); n > maxSuspicions {
		t.Errorf("%d senders are remembered, want at most %d", n, maxSuspicions)
	}
}

func TestAParkIsAsWideAsTheAnswer(t *testing.T) {
	t.Parallel()
	for scope, want := range map[provider.Scope]string{
		provider.ScopeAccount: "", provider.ScopeSender: "example.com", provider.ScopeAddress: "shop@example.com",
	} {
		p := testPolicy()
		p.ProbeAfter, p.ProbeMax = time.Minute, time.Hour
		r, _ := next(testCall("ann@example.org"), provider.Receipt{},
			&provider.Error{Class: provider.Misconfigured, Scope: scope, Detail: "no"}, p, noon(), 0)
		if r.Park.Key() != want || r.Park.Wait != time.Minute || r.Park.MaxWait != time.Hour || r.Requeue.Tries != 1 {
			t.Errorf("scope %q: park %+v, tries %d; want key %q, and no try used up", scope, r.Park, r.Requeue.Tries, want)
		}
	}
}

func TestTheOutcomeOfAProbe(t *testing.T) {
	t.Parallel()
	c := testCall("ann@example.org")
	c.probes = []string{"", "example.com"}
	r, _ := next(c, provider.Receipt{}, nil, testPolicy(), noon(), 0)
	if diff := cmp.Diff(&queue.Unpark{Account: 7, Keys: c.probes}, r.Unpark); diff != "" {
		t.Errorf("accepted (-want +got):\n%s", diff)
	}
	for _, tc := range []struct {
		name  string
		scope provider.Scope
		again bool
	}{{"the same", provider.ScopeSender, true}, {"the account", provider.ScopeAccount, true}, {"something narrower", provider.ScopeAddress, false}} {
		r, _ := next(c, provider.Receipt{}, &provider.Error{Class: provider.Misconfigured, Scope: tc.scope}, testPolicy(), noon(), 0)
		if r.Park.Probe != tc.again || r.Unpark != nil || r.Requeue == nil || r.Requeue.Tries != c.due.Tries {
			t.Errorf("a probe finds %s: park %+v, unpark %+v, requeue %+v; want probe %v, and the message queued as it was",
				tc.name, r.Park, r.Unpark, r.Requeue, tc.again)
		}
	}
	for _, class := range []provider.Class{provider.Transient, provider.Throttled, provider.Rejected, provider.Uncertain} {
		if r, _ := next(c, provider.Receipt{}, &provider.Error{Class: class}, testPolicy(), noon(), 0); r.Park != nil || r.Unpark != nil {
			t.Errorf("a probe ends %s: park %+v, unpark %+v; want it to say nothing of the park", class, r.Park, r.Unpark)
		}
	}
}

// parkedEngine has the account of testConfig parked.
func parkedEngine(t *testing.T, parks ...route.Park) (*Engine, *route.Config) {
	t.Helper()
	e := testEngine(t, &fakeStore{}, nil)
	c := testConfig()
	c.Accounts[0].Parked = parks
	if err := e.accounts.reload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	e.config.Store(c)
	return e, c
}

// claimed plans a claim of n messages, marks the probes of those that it takes as used, and returns these.
func claimed(t *testing.T, e *Engine, c *route.Config, n int) []*item {
	t.Helper()
	live := e.accounts.all()
	in := claimInput{now: noon(), config: c, view: newView(live, time.Now())}
	for range n {
		in.due = append(in.due, testDue())
	}
	p := planClaim(in)
	for _, it := range p.items {
		live[it.account].useProbes(it.probes)
	}
	return p.items
}

func TestOneMessageIsLetThroughAsAProbe(t *testing.T) {
	t.Parallel()
	for _, park := range []route.Park{{}, {SenderDomain: "example.com"}, route.ParkFor("shop@example.com")} {
		e, c := parkedEngine(t, park)
		if got := claimed(t, e, c, 5); len(got) != 0 {
			t.Fatalf("%q: %d messages were taken although nobody may probe", park.Key(), len(got))
		}
		a := e.accounts.get(7)
		a.mayProbe([]string{park.Key()}, time.Now().Add(time.Minute))
		got := claimed(t, e, c, 5)
		if len(got) != 1 || len(got[0].probes) != 1 || got[0].probes[0] != park.Key() {
			t.Fatalf("%q: %d messages were taken, want one probe", park.Key(), len(got))
		}
		if more := claimed(t, e, c, 5); len(more) != 0 {
			t.Errorf("%q: %d more were taken while the probe is under way", park.Key(), len(more))
		}
		a.endProbes(got[0].probes, false) // no call came of it
		if got = claimed(t, e, c, 5); len(got) != 1 {
			t.Errorf("%q: %d messages were taken after a probe without a call, want one", park.Key(), len(got))
		}
		a.endProbes(got[0].probes, true)
		if more := claimed(t, e, c, 5); len(more) != 0 {
			t.Errorf("%q: %d messages were taken after the probe", park.Key(), len(more))
		}
		a.mayProbe([]string{park.Key()}, time.Now())
		if late := claimed(t, e, c, 5); len(late) != 0 {
			t.Errorf("%q: %d messages were taken when the right to probe was over", park.Key(), len(late))
		}
	}
}

func TestAProbeOfOneParkDoesNotPassAnother(t *testing.T) {
	t.Parallel()
	e, c := parkedEngine(t, route.Park{}, route.ParkFor("shop@example.com"))
	a := e.accounts.get(7)
	a.mayProbe([]string{""}, time.Now().Add(time.Minute))
	if got := claimed(t, e, c, 5); len(got) != 0 {
		t.Errorf("%d messages were taken, want none: their sender is parked as well", len(got))
	}
	a.mayProbe([]string{"shop@example.com"}, time.Now().Add(time.Minute))
	if got := claimed(t, e, c, 5); len(got) != 1 || len(got[0].probes) != 2 {
		t.Errorf("%d messages were taken, want one that probes both", len(got))
	}
}

func TestPoolsWithoutAnAccountThatWorksAreDegraded(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		edit func(*route.Config)
		want string
	}{
		"all is well":       {func(*route.Config) {}, ""},
		"parked":            {func(c *route.Config) { c.Accounts[0].Parked = []route.Park{{}} }, "default"},
		"a sender parked":   {func(c *route.Config) { c.Accounts[0].Parked = []route.Park{{SenderDomain: "example.com"}} }, ""},
		"paused":            {func(c *route.Config) { c.Accounts[0].Paused = true }, "default"},
		"weight 0":          {func(c *route.Config) { c.Pools[0].Members[0].Weight = 0 }, "default"},
		"no account at all": {func(c *route.Config) { c.Pools[0].Members = nil }, ""},
		"two pools": {func(c *route.Config) {
			c.Pools = append(c.Pools, route.Pool{Name: "bulk", Members: []route.Member{{Account: "gone", Weight: 1}}})
		}, "bulk"},
	} {
		e, c := parkedEngine(t)
		tc.edit(c)
		if err := e.accounts.reload(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(e.Degraded(), " "); got != tc.want {
			t.Errorf("%s: degraded pools %q, want %q", name, got, tc.want)
		}
	}
}
