package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// Whoever changed something must not hear that nothing was stored, only because it could not be shown afterwards.
func TestNoRefusalAfterAChange(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ write, method, path, body string }{
		{"Cancel", "POST", "/v1/messages/{id}/cancel", ""},
		{"Suppress", "POST", "/v1/suppressions", `{"email":"ann@example.org"}`},
		{"CreateAccount", "POST", "/admin/v1/accounts", `{"name":"ses-eu","kind":"ses","settings":{"region":"eu-west-1"},"secrets":{"api_key":"good"}}`},
		{"PauseAccount", "POST", "/admin/v1/accounts/there/pause", ""},
		{"DeleteAccount", "DELETE", "/admin/v1/accounts/there", ""},
		{"CreatePool", "POST", "/admin/v1/pools", `{"name":"bulk","overflow":"spill","accounts":[{"account":"there","weight":1}]}`},
		{"SetRules", "PUT", "/admin/v1/rules", `{"rules":[]}`},
	} {
		r := newRig(t)
		if err := r.store.CreateAccount(t.Context(), "test", route.Account{Name: "there", Kind: "ses", Concurrency: 1}, nil); err != nil {
			t.Fatal(err)
		}
		sent := r.do("POST", "/v1/send", r.send, large(10))
		r.want(sent, 202, "")
		key := r.admin
		if strings.HasPrefix(c.path, "/v1/") {
			key = r.send
		}
		var wrote atomic.Bool
		r.store.intercept(func(_ context.Context, method string) error {
			if wrote.Load() {
				return &record.Unavailable{Reason: "database", RetryAfter: time.Second}
			}
			if method == c.write {
				wrote.Store(true)
			}
			return nil
		})
		path := strings.Replace(c.path, "{id}", decoded[api.SendResult](t, sent).ID, 1)
		if a := r.do(c.method, path, key, c.body); a.status != http.StatusGatewayTimeout || a.problem.Code != "outcome_unknown" {
			t.Errorf("%s %s, which could not show what it changed = %d %s, want 504 outcome_unknown", c.method, c.path, a.status, a.problem.Code)
		}
	}
}

func TestUnknownOutcomeIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.store.failFrom("Accept", 1, &record.OutcomeUnknown{Err: errors.New("connection reset")})
	a := r.do("POST", "/v1/send", r.send, large(10))
	r.want(a, http.StatusGatewayTimeout, "outcome_unknown")
	if a.header.Get("Retry-After") == "" {
		t.Error("nobody is told when to ask again")
	}
	r.store.failFrom("AcceptAll", 1, &record.OutcomeUnknown{Err: errors.New("connection reset")})
	r.want(r.do("POST", "/v1/send/batch", r.send, batchJSON(large(10))), http.StatusGatewayTimeout, "outcome_unknown")
}

// Of a batch in which nothing is known to be stored the whole answer says so: 504 if anything may be, else 503.
func TestBatchSaysTheWorstOfItsItems(t *testing.T) {
	t.Parallel()
	down, unknown := &record.Unavailable{Reason: "database"}, &record.OutcomeUnknown{Err: &record.Unavailable{Reason: "database"}}
	for name, c := range map[string]struct {
		errs  []error
		whole int
		items []int // statuses, when the whole is a 202
	}{
		"all refused":         {[]error{down, down}, 503, nil},
		"one unknown":         {[]error{down, unknown}, 504, nil},
		"unknown, and stored": {[]error{nil, unknown}, 202, []int{0, 504}},
		"mismatch, unknown":   {[]error{record.ErrMismatch, unknown}, 504, nil},
	} {
		b := batch{note: unnoted, items: make([]api.BatchItem, 2), subs: make([]*record.Submission, 2), index: []int{0, 1}}
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		err := b.accept(&answers{accepted: make([]record.Accepted, 2), errs: c.errs}, r)
		got := 202
		if err != nil {
			got = refusalOf(err).status
		}
		if got != c.whole {
			t.Errorf("%s: %d, want %d", name, got, c.whole)
		}
		for i, want := range c.items {
			if have := b.items[i]; want == 0 && have.Error != nil || want != 0 && (have.Error == nil || have.Error.Status != want) {
				t.Errorf("%s: item %d is %+v, want status %d", name, i, have, want)
			}
		}
	}
}

// A repeat whose times have passed is refused for them only when the store says that it was never accepted.
func TestRepeatThatCannotBeLookedUpIsNoRefusal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	body := `{"from":"shop@example.com","to":"ann@example.org","subject":"s","text":"x","send_at":"` +
		r.clock.now().Add(time.Hour).Format(time.RFC3339) + `"}`
	r.want(r.do("POST", "/v1/send", r.send, body, "Idempotency-Key", "k"), 202, "")
	r.clock.move(2 * time.Hour)
	r.store.failFrom("Replay", 1, &record.Unavailable{Reason: "database"})
	r.want(r.do("POST", "/v1/send", r.send, body, "Idempotency-Key", "k"), 504, "outcome_unknown")
	r.store.failWith(nil)
	r.want(r.do("POST", "/v1/send", r.send, body, "Idempotency-Key", "k"), 202, "")
	r.want(r.do("POST", "/v1/send", r.send, body, "Idempotency-Key", "another"), 422, "invalid")
}

// A key that the database can't tell of at once is waited for.
func TestKeyIsWaitedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.AcceptWait = time.Minute })
	r.store.failFrom("KeyByID", 1, &record.Unavailable{Reason: "database"})
	back := make(chan struct{})
	go func() {
		defer close(back)
		for r.store.count("KeyByID") < 2 {
			time.Sleep(time.Millisecond)
		}
		r.store.failWith(nil)
	}()
	r.want(r.do("POST", "/v1/send", r.send, large(10)), 202, "")
	<-back
}
