//go:build drill

package app

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

func TestAThrottleBlocksTheAccountEverywhereAndUsesUpNoTry(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	first, second := b.start(t), b.start(t)
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

func TestWrongCredentialsParkTheAccountEverywhereUntilItIsResumed(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	first, second := b.start(t), b.start(t)
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
	page, err := first.admin.Audit(t.Context(), api.AuditFilter{Limit: 100})
	if err != nil || !slices.ContainsFunc(page.Data, func(e api.AuditEntry) bool { return e.Action == "account.resume" && e.Target == "mailgun" }) {
		t.Errorf("the audit has no resume of mailgun: %+v, %v", page, err)
	}
}
