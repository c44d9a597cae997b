package app

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// only keeps the accounts named in the default pool, at equal weight, and takes the others out.
func only(t *testing.T, r *replica, names ...string) {
	t.Helper()
	pool, err := r.admin.Pool(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	pool.Accounts = nil
	for _, name := range names {
		pool.Accounts = append(pool.Accounts, api.PoolMember{Account: name, Weight: 1})
	}
	if _, err = r.admin.PutPool(t.Context(), *pool); err != nil {
		t.Fatal(err)
	}
	eventually(t, settleTime, "the pool binds", func() bool {
		x, err := r.admin.Explain(t.Context(), letter(0))
		stranger := func(c api.Candidate) bool { return !slices.Contains(names, c.Account) }
		return err == nil && len(x.Decision.Candidates) == len(names) && !slices.ContainsFunc(x.Decision.Candidates, stranger)
	})
}

// pinned is a message that only one account may take.
func pinned(account string) api.SendRequest {
	m := letter(0)
	m.Account = &account
	return m
}

func classes(m *api.Message) string {
	var all []string
	for _, a := range m.Attempts {
		all = append(all, a.Account+" "+a.Class)
	}
	return strings.Join(all, ", ")
}

// What one replica is told binds both. The cases share the two, in this order.
func TestTwoReplicasActAsOne(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	first, second := b.start(t), b.start(t)
	for _, c := range []struct {
		name  string
		check func(t *testing.T, b *bench, first, second *replica)
	}{
		{"one key is one message, however many ask", acceptsAKeyOnce},
		{"wrong credentials park the account until it is resumed", parksForWrongCredentials},
		{"a throttle blocks the account everywhere and uses up no try", blocksTheAccountEverywhere},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.nextCase(t, first)
			c.check(t, b, first, second)
		})
	}
}

func failsOverAtOnce(t *testing.T, b *bench, r *replica) {
	t.Helper()
	only(t, r, "ses", "sendgrid")
	b.faults(t, map[string][]emulator.Fault{"sendgrid": {{Mode: "error", Status: 503}}})
	failedOver := 0
	for i, id := range submit(t, r.api, letters(12)) {
		m := becomes(t, r.api, id, settleTime, "sent")
		switch got := classes(m); got {
		case "ses accepted":
		case "sendgrid transient, ses accepted":
			failedOver++
			second := decision(t, m.Attempts[1])
			at := slices.IndexFunc(second.Candidates, func(c api.Candidate) bool { return c.Account == "sendgrid" })
			if at < 0 || second.Candidates[at].Code == "" {
				t.Errorf("the second decision does not say why not sendgrid: %s", m.Attempts[1].Decision)
			}
			if m.Attempts[0].Status != http.StatusServiceUnavailable {
				t.Errorf("status of the first attempt = %d, want 503", m.Attempts[0].Status)
			}
		default:
			t.Errorf("attempts of message %d = %s", i, got)
		}
	}
	if failedOver == 0 {
		t.Error("no message met the fault")
	}
	if got := b.shares(); got["ses"] != 12 || len(got) != 1 {
		t.Errorf("ledger = %v, want 12 by ses", got)
	}
}

func blocksTheAccountEverywhere(t *testing.T, b *bench, first, second *replica) {
	t.Helper()
	b.faults(t, map[string][]emulator.Fault{"sendgrid": {{Mode: "throttle", Seconds: 5}}})
	id := send(t, first.api, pinned("sendgrid"))
	eventually(t, settleTime, "the account is blocked", func() bool {
		return b.count(t.Context(), `SELECT count(*) FROM rate_account WHERE blocked_until > now() + interval '1 s'`) == 1
	})
	for name, r := range map[string]*replica{"the one that was told": first, "the other": second} {
		eventually(t, 4*time.Second, "blocked on "+name, func() bool {
			x, err := r.admin.Explain(t.Context(), pinned("sendgrid"))
			return err == nil && len(x.Decision.Candidates) == 1 && x.Decision.Candidates[0].Code == "throttled"
		})
	}
	states, err := second.admin.Limits(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("limit states while blocked: %d", len(states))
	if got := b.emu.Stats()["sendgrid"].Throttled; got > 3 {
		t.Errorf("calls while throttled = %d, want no more than the first and its like", got)
	}
	m := becomes(t, first.api, id, settleTime, "sent")
	if first := m.Attempts[0]; first.Class != "throttled" || first.Status != http.StatusTooManyRequests {
		t.Errorf("first attempt: class %s, status %d; want throttled, 429", first.Class, first.Status)
	}
	if gap := m.Attempts[len(m.Attempts)-1].StartedAt.Sub(m.Attempts[0].StartedAt); gap < 4*time.Second {
		t.Errorf("sent %s after the throttle, want not before its end", gap)
	}
	if tries := b.count(t.Context(), `SELECT coalesce(max(tries), 0) FROM ready`); tries != 0 {
		t.Errorf("tries = %d, want 0", tries)
	}
}

func parksForWrongCredentials(t *testing.T, b *bench, first, second *replica) {
	t.Helper()
	only(t, first, "mailgun", "postmark")
	b.binds(t, second)
	b.faults(t, map[string][]emulator.Fault{"mailgun": {{Mode: "error", Status: 401}}})
	ids := submit(t, first.api, letters(12))
	b.settle(t, 30*time.Second)
	if got := b.shares(); got["postmark"] != len(ids) || len(got) != 1 {
		t.Errorf("ledger = %v, want %d by postmark", got, len(ids))
	}
	for _, r := range []*replica{first, second} {
		eventually(t, settleTime, "the account shows as parked", func() bool {
			a, err := r.admin.Account(t.Context(), "mailgun")
			return err == nil && a.State == "parked" && len(a.Parked) == 1 && a.Parked[0].Reason != ""
		})
		eventually(t, settleTime, "the park binds", func() bool { return strings.HasPrefix(code(t, r, "mailgun"), "parked") })
	}
	calls := b.emu.Stats()["mailgun"].Requests
	submit(t, second.api, letters(12))
	b.settle(t, 30*time.Second)
	if more := b.emu.Stats()["mailgun"].Requests - calls; more != 0 {
		t.Errorf("calls to a parked account = %d, want none", more)
	}
	if n := b.count(t.Context(), `SELECT count(*) FROM audit WHERE action = 'account.park'`); n != 1 {
		t.Errorf("audit entries for one park = %d, want 1", n)
	}

	b.faults(t, nil)
	if _, err := first.admin.ResumeAccount(t.Context(), "mailgun"); err != nil {
		t.Fatal(err)
	}
	id := send(t, second.api, pinned("mailgun"))
	m := becomes(t, second.api, id, settleTime, "sent")
	if got := classes(m); got != "mailgun accepted" {
		t.Errorf("attempts after the resume = %s", got)
	}
	audited(t, first, "account.resume", "mailgun")
}

// audited looks for an entry of the audit.
func audited(t *testing.T, r *replica, action, target string) {
	t.Helper()
	page, err := r.admin.Audit(t.Context(), api.AuditFilter{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, e := range page.Data {
		if e.Action == action && e.Target == target {
			return
		}
		seen = append(seen, e.Action+" "+e.Target)
	}
	t.Errorf("no audit entry %s %s among %v", action, target, seen)
}

// code asks why the account would not get a message now.
func code(t *testing.T, r *replica, account string) string {
	t.Helper()
	x, err := r.admin.Explain(t.Context(), letter(0))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range x.Decision.Candidates {
		if c.Account == account {
			return c.Code
		}
	}
	return "not a candidate"
}

func decision(t *testing.T, a api.Attempt) api.Decision {
	t.Helper()
	var d api.Decision
	if err := json.Unmarshal(a.Decision, &d); err != nil {
		t.Fatalf("decision %s: %v", a.Decision, err)
	}
	return d
}
