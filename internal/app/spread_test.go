//go:build drill

package app

import (
	"math"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/route"
)

func TestEqualWeightsSpreadEvenlyAndEachMessageGoesOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	const n = 400
	ids := submit(t, r.api, letters(n))
	b.settle(t, time.Minute)

	ledger := b.ledger()
	for _, id := range ids {
		if got := len(ledger[id]); got != 1 {
			t.Errorf("ledger entries of %s = %d, want 1", id, got)
		}
	}
	if got := len(b.emu.Ledger()); got != n {
		t.Errorf("ledger entries = %d, want %d", got, n)
	}
	if got := b.statuses(t); got["sent"] != n {
		t.Errorf("statuses = %v, want %d sent", got, n)
	}
	share := 1 / float64(len(accountNames()))
	sigma := math.Sqrt(n * share * (1 - share))
	for _, name := range accountNames() {
		got := b.shares()[name]
		t.Logf("%-8s %d", name, got)
		if math.Abs(float64(got)-n*share) > 4*sigma {
			t.Errorf("share of %s = %d, want %.0f +- %.0f", name, got, n*share, 4*sigma)
		}
	}
}

func TestNewWeightsBindTheBacklogWithinTwoSeconds(t *testing.T) {
	t.Parallel()
	few := []limit.Window{{N: 6, Per: time.Second, Unit: limit.Messages}}
	b := newBench(t, benchOptions{trust: true, limits: everyAccount(few)})
	first, second := b.start(t), b.start(t)
	submit(t, first.api, letters(200))
	eventually(t, settleTime, "all providers are in use", func() bool { return len(b.shares()) == len(accountNames()) })

	pool, err := first.admin.Pool(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	for i := range pool.Accounts {
		pool.Accounts[i].Weight = 0
	}
	pool.Accounts[2].Weight = 1
	only := pool.Accounts[2].Account
	if _, err := first.admin.PutPool(t.Context(), *pool); err != nil {
		t.Fatal(err)
	}
	bound := time.Now().Add(2 * time.Second)
	pause(t, 3*time.Second)
	if backlog := b.count(t.Context(), `SELECT count(*) FROM ready`); backlog == 0 {
		t.Fatal("nothing is queued any more: the test shows nothing")
	}
	after := func() map[string]int {
		late := map[string]int{}
		for _, e := range b.emu.Ledger() {
			if e.At.After(bound) {
				late[e.Provider]++
			}
		}
		return late
	}
	submit(t, second.api, letters(20))
	eventually(t, settleTime, "the account that is left goes on", func() bool { return after()[only] >= 15 })
	if late := after(); len(late) != 1 {
		t.Errorf("calls later than 2 s after the change = %v, want only %s", late, only)
	}
}

// idle is the view of a routing in which every account is healthy and free.
type idle struct{}

func (idle) Health(*route.Account) route.Why { return route.Why{} }
func (idle) Free(*route.Account) route.Why   { return route.Why{} }

func (idle) Probe(*route.Account, route.Park) bool { return false }

// homes returns the account that the weights alone choose for each message.
func homes(t *testing.T, ids []string, weights map[string]float64) map[string]string {
	t.Helper()
	c := &route.Config{Pools: []route.Pool{{Name: route.DefaultPool, Overflow: route.Spill}}}
	for i, name := range accountNames() {
		c.Accounts = append(c.Accounts, route.Account{ID: int32(i + 1), Name: name}) //nolint:gosec // a handful
		c.Pools[0].Members = append(c.Pools[0].Members, route.Member{Account: name, Weight: weights[name]})
	}
	for i := range c.Accounts {
		c.Accounts[i].Capabilities.MaxBytes = 1 << 30
	}
	home := map[string]string{}
	for _, id := range ids {
		parsed, err := mail.ParseID(id)
		if err != nil {
			t.Fatal(err)
		}
		d, _ := route.Plan(c, idle{}, route.Request{Facts: &mail.Facts{Recipients: 1}, Seed: route.Seed(parsed), Now: time.Now()})
		home[id] = d.Chosen
	}
	return home
}

func TestWaitKeepsSharesAndSpillSaysSo(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{limits: map[string][]limit.Window{"mailgun": {{N: 5, Per: time.Hour, Unit: limit.Messages}}}})
	r := b.start(t)
	setOverflow(t, r, "wait")
	const n = 120
	ids := submit(t, r.api, letters(n))
	home := homes(t, ids, everyAccount(1.0))
	want := map[string]int{}
	for _, h := range home {
		want[h]++
	}
	atHome := n - want["mailgun"] + 5
	eventually(t, settleTime, "all but the messages of the full account are sent", func() bool {
		return len(b.emu.Ledger()) >= atHome
	})
	pause(t, 2*time.Second) // nothing more may leave

	for id, entries := range b.ledger() {
		if entries[0].Provider != home[id] {
			t.Errorf("message %s went to %s, its share is %s", id, entries[0].Provider, home[id])
		}
	}
	got := b.shares()
	for _, name := range accountNames() {
		if name != "mailgun" && got[name] != want[name] {
			t.Errorf("share of %s = %d, want %d", name, got[name], want[name])
		}
	}
	if got["mailgun"] != 5 {
		t.Errorf("sent by the full account = %d, want its limit, 5", got["mailgun"])
	}
	if queued := b.statuses(t)["queued"]; queued != n-atHome {
		t.Errorf("queued = %d, want %d", queued, n-atHome)
	}

	setOverflow(t, r, "spill")
	b.settle(t, 30*time.Second)
	if got := b.statuses(t)["sent"]; got != n {
		t.Errorf("sent = %d, want %d", got, n)
	}
	for id, entries := range b.ledger() {
		if len(entries) != 1 {
			t.Errorf("ledger entries of %s = %d, want 1", id, len(entries))
		}
		if entries[0].Provider != home[id] {
			checkSpilled(t, message(t, r.api, id))
		}
	}
}

// Most of the pool's mail is for accounts that have no slot for an hour, or only a few a second.
func TestFullAccountsDoNotHoldUpTheOthersOfTheirPool(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{limits: map[string][]limit.Window{
		"ses":     {{N: 5, Per: time.Hour, Unit: limit.Requests}},
		"mailgun": {{N: 5, Per: time.Second, Unit: limit.Requests}},
	}})
	r := b.start(t)
	weights := everyAccount(1.0)
	weights["mailgun"], weights["ses"] = 30, 30
	pool, err := r.admin.Pool(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	for i := range pool.Accounts {
		pool.Accounts[i].Weight = weights[pool.Accounts[i].Account]
	}
	if _, err := r.admin.PutPool(t.Context(), *pool); err != nil {
		t.Fatal(err)
	}
	setOverflow(t, r, "wait")
	ids := submit(t, r.api, letters(700)) // more than two claims take at once
	others := 0
	for _, home := range homes(t, ids, weights) {
		if weights[home] == 1 {
			others++
		}
	}
	start := time.Now()
	eventually(t, settleTime, "the mail of the accounts that are free is sent", func() bool {
		n := 0
		for account, sent := range b.shares() {
			if weights[account] == 1 {
				n += sent
			}
		}
		return n == others
	})
	t.Logf("%d for the others sent in %s, %v meanwhile", others, time.Since(start).Round(time.Millisecond), b.shares())
	if left := b.count(t.Context(), `SELECT count(*) FROM ready`); left < 100 {
		t.Errorf("messages that wait = %d: the others did not have to pass by them", left)
	}
}

// A small tenant uses the account that a busy one waits for.
func TestABacklogDoesNotHoldUpAnotherTenant(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{limits: map[string][]limit.Window{"mailgun": {{N: 5, Per: time.Second, Unit: limit.Requests}}}})
	r := b.start(t)
	only(t, r, "mailgun")
	submit(t, r.api, letters(400))
	if _, err := r.admin.CreateTenant(t.Context(), api.TenantRequest{Name: "small"}); err != nil {
		t.Fatal(err)
	}
	key, err := r.admin.CreateKey(t.Context(), api.KeyRequest{Tenant: "small", Name: "k", Scopes: []string{"send", "read"}})
	if err != nil {
		t.Fatal(err)
	}
	small := api.NewWith(r.url, key.Secret, b.http)
	for i := range 3 {
		start := time.Now()
		id := send(t, small, letter(i))
		becomes(t, small, id, settleTime, "sent")
		t.Logf("sent %s after its acceptance, beside a backlog of %d", time.Since(start).Round(time.Millisecond),
			b.count(t.Context(), `SELECT count(*) FROM ready`))
	}
	if left := b.count(t.Context(), `SELECT count(*) FROM ready`); left < 300 {
		t.Errorf("backlog at the end = %d, which is worked off within a minute: the test shows nothing", left)
	}
}

func setOverflow(t *testing.T, r *replica, rule string) {
	t.Helper()
	pool, err := r.admin.Pool(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	pool.Overflow = rule
	if pool, err = r.admin.PutPool(t.Context(), *pool); err != nil {
		t.Fatal(err)
	}
	eventually(t, settleTime, "the pool's rule binds", func() bool {
		x, err := r.admin.Explain(t.Context(), letter(0))
		return err == nil && x.Decision.Config >= pool.Version
	})
	pause(t, time.Second)
}

// checkSpilled checks the recorded decision of a message that did not go to the account that its weight chose.
func checkSpilled(t *testing.T, m *api.Message) {
	t.Helper()
	last := m.Attempts[len(m.Attempts)-1]
	d := decision(t, last)
	if !d.Spilled || d.Chosen != last.Account {
		t.Errorf("decision of a spilled message: spilled %t, chosen %s, account %s", d.Spilled, d.Chosen, last.Account)
	}
	for _, c := range d.Candidates {
		if c.Account == "mailgun" && c.Code != "limit" {
			t.Errorf("code of the full account = %q (%s), want limit", c.Code, c.Reason)
		}
	}
}
