package app

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

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

func TestATransientFailureGoesToAnotherAccountAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
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
