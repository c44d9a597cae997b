package deliver

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
)

func testPolicy() Policy {
	return Policy{UnknownWait: time.Minute, ReconcileDeadline: 30 * time.Minute}
}

func testCall(emails ...string) call {
	c := call{
		due:     queue.Due{ID: mail.IDAt(time.Unix(1790000000, 0)), Attempts: 2, Tries: 1, OnAmbiguous: mail.Reconcile},
		account: 7, name: "ses-eu", kind: "ses", sender: "example.com", address: "shop@example.com",
	}
	for i, e := range emails {
		c.open = append(c.open, mail.Recipient{N: i, Kind: mail.To, Address: mail.Address{Email: e}, Status: mail.Queued})
	}
	return c
}

func noon() time.Time { return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) }

func TestNextFollowsTheTableOfClasses(t *testing.T) {
	t.Parallel()
	elsewhere := queue.Avoid{Final: true, Why: "rejected: status 413: too large"}
	cases := []struct {
		name    string
		failure *provider.Error
		want    queue.Result
		health  health
	}{
		{
			name: "accepted", failure: nil, health: healthy,
			want: queue.Result{
				Class: "accepted", ProviderMessageID: "pm-1",
				Recipients: []queue.RecipientChange{{N: 0, Status: mail.Sent, Detail: "OK"}},
			},
		},
		{
			name: "transient keeps the account away and tries elsewhere now", health: failing,
			failure: &provider.Error{Class: provider.Transient, Status: 503},
			want: queue.Result{
				Class: "transient", Status: 503, Error: "transient: status 503",
				Requeue: &queue.Requeue{Tries: 2, Avoid: map[string]queue.Avoid{
					"ses-eu": {Until: noon().Add(4 * time.Second), Why: "transient: status 503"},
				}},
			},
		},
		{
			name: "throttled blocks the account for everybody and uses up no try", health: neutral,
			failure: &provider.Error{Class: provider.Throttled, Status: 429, RetryAfter: 90 * time.Second, Detail: "slow down"},
			want: queue.Result{
				Class: "throttled", Status: 429, Error: "throttled: status 429: slow down",
				Block: &queue.Block{Account: 7, For: 90 * time.Second, Reason: "slow down"}, Requeue: &queue.Requeue{Tries: 1},
			},
		},
		{
			name: "throttled without a time waits a second", health: neutral,
			failure: &provider.Error{Class: provider.Throttled, Status: 429},
			want: queue.Result{
				Class: "throttled", Status: 429, Error: "throttled: status 429",
				Block: &queue.Block{Account: 7, For: time.Second}, Requeue: &queue.Requeue{Tries: 1},
			},
		},
		{
			name: "rejected content goes to another kind", health: healthy,
			failure: &provider.Error{Class: provider.Rejected, Status: 400, Code: "300", Detail: "bad content"},
			want: queue.Result{
				Class: "rejected", Status: 400, Code: "300", Error: "rejected: status 400 (300): bad content",
				Requeue: &queue.Requeue{Tries: 1, Avoid: map[string]queue.Avoid{
					"ses-eu": {Final: true, Why: "rejected: status 400 (300): bad content", Kind: "ses"},
				}},
			},
		},
		{
			name: "rejected by a cap of this provider goes elsewhere for good", health: healthy,
			failure: &provider.Error{Class: provider.Rejected, Status: 413, Detail: "too large", Elsewhere: true},
			want: queue.Result{
				Class: "rejected", Status: 413, Error: "rejected: status 413: too large",
				Requeue: &queue.Requeue{Tries: 1, Avoid: map[string]queue.Avoid{"ses-eu": elsewhere}},
			},
		},
		{
			name: "misconfigured parks the account", health: neutral,
			failure: &provider.Error{Class: provider.Misconfigured, Status: 401, Detail: "bad key"},
			want: queue.Result{
				Class: "misconfigured", Status: 401, Error: "misconfigured: status 401: bad key",
				Park: &queue.Park{Account: 7, Reason: "misconfigured: status 401: bad key"},
				Requeue: &queue.Requeue{Tries: 1, Avoid: map[string]queue.Avoid{
					"ses-eu": {Until: noon().Add(2 * time.Second), Why: "misconfigured: status 401: bad key"},
				}},
			},
		},
		{
			name: "misconfigured sender parks only that domain", health: neutral,
			failure: &provider.Error{Class: provider.Misconfigured, Status: 403, Scope: provider.ScopeSender, Detail: "not verified"},
			want: queue.Result{
				Class: "misconfigured", Status: 403, Error: "misconfigured: status 403: not verified",
				Park: &queue.Park{Account: 7, SenderDomain: "example.com", Reason: "misconfigured: status 403: not verified"},
				Requeue: &queue.Requeue{Tries: 1, Avoid: map[string]queue.Avoid{
					"ses-eu": {Until: noon().Add(2 * time.Second), Why: "misconfigured: status 403: not verified"},
				}},
			},
		},
		{
			name: "uncertain is unknown and goes nowhere", health: failing,
			failure: &provider.Error{Class: provider.Uncertain, Detail: "connection reset"},
			want: queue.Result{
				Class: "uncertain", Error: "uncertain: connection reset",
				Recipients: []queue.RecipientChange{{N: 0, Status: mail.Unknown, Detail: "uncertain: connection reset"}},
				Unknown:    &queue.Hanging{DecideIn: 30 * time.Minute, Policy: mail.Reconcile},
			},
		},
		{
			name: "bad recipient without a name ends all", health: healthy,
			failure: &provider.Error{Class: provider.BadRecipient, Status: 422, Code: "406"},
			want: queue.Result{
				Class: "bad_recipient", Status: 422, Code: "406", Error: "bad_recipient: status 422 (406)",
				Recipients: []queue.RecipientChange{{N: 0, Status: mail.Failed, Detail: "bad_recipient: status 422 (406)"}},
			},
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := testCall("ann@example.org")
			tc.want.ID, tc.want.N = c.due.ID, 3
			got, health := next(c, provider.Receipt{ProviderMessageID: "pm-1", Detail: "OK"}, tc.failure, testPolicy(), noon(), 0.5)
			if diff := cmp.Diff(tc.want, got); diff != "" || health != tc.health {
				t.Errorf("health %v, want %v; result (-want +got):\n%s", health, tc.health, diff)
			}
		})
	}
}

func TestEveryClassHasARow(t *testing.T) {
	t.Parallel()
	for _, class := range provider.Classes() {
		if class == provider.Accepted {
			continue
		}
		r, _ := next(testCall("a@example.org"), provider.Receipt{}, &provider.Error{Class: class}, testPolicy(), noon(), 0)
		open := 0
		if r.Requeue != nil {
			open++
		}
		if r.Unknown != nil {
			open++
		}
		if len(r.Recipients) > 0 && !r.Recipients[0].Status.Open() {
			open++
		}
		if open != 1 {
			t.Errorf("%s: requeued %v, unknown %v, recipients %v: want exactly one", class, r.Requeue != nil, r.Unknown != nil, r.Recipients)
		}
	}
}

func TestUncertainIsNeverRequeued(t *testing.T) {
	t.Parallel()
	for _, policy := range []mail.Policy{mail.Reconcile, mail.Resend, mail.Never} {
		c := testCall("a@example.org")
		c.due.OnAmbiguous = policy
		r, _ := next(c, provider.Receipt{}, &provider.Error{Class: provider.Uncertain, RetryAfter: time.Second, Elsewhere: true}, testPolicy(), noon(), 0)
		if r.Requeue != nil || r.Unknown == nil || r.Unknown.Policy != policy {
			t.Errorf("%s: requeue %+v, unknown %+v: want unknown only", policy, r.Requeue, r.Unknown)
		}
	}
}

func TestPartialAcceptanceSettlesSomeAndKeepsOthersQueued(t *testing.T) {
	t.Parallel()
	receipt := provider.Receipt{Refused: []provider.Refusal{
		{Email: "b@example.org", Class: provider.BadRecipient, Code: "5.1.1", Detail: "no such user"},
		{Email: "c@example.org", Class: provider.Transient, Code: "4.5.3", Detail: "too many recipients"},
		{Email: "d@example.org", Class: provider.BadRecipient, Suppressed: true, Detail: "inactive"},
	}}
	c := testCall("a@example.org", "b@example.org", "c@example.org", "d@example.org")
	got, _ := next(c, receipt, nil, testPolicy(), noon(), 0.5)
	want := []queue.RecipientChange{
		{N: 0, Status: mail.Sent},
		{N: 1, Status: mail.Failed, Detail: "5.1.1 no such user"},
		{N: 3, Status: mail.Suppressed, Detail: "inactive"},
	}
	if diff := cmp.Diff(want, got.Recipients); diff != "" {
		t.Errorf("recipients (-want +got):\n%s", diff)
	}
	if got.Requeue == nil || got.Class != "accepted" {
		t.Errorf("class %q, requeue %+v: want accepted and ready again", got.Class, got.Requeue)
	}
}

func TestOneBadRecipientDoesNotEndTheOthers(t *testing.T) {
	t.Parallel()
	failure := &provider.Error{Class: provider.BadRecipient, Status: 400, Refused: []provider.Refusal{
		{Email: "b@example.org", Class: provider.BadRecipient, Detail: "invalid"},
	}}
	got, _ := next(testCall("a@example.org", "b@example.org"), provider.Receipt{}, failure, testPolicy(), noon(), 0)
	want := []queue.RecipientChange{{N: 1, Status: mail.Failed, Detail: "invalid"}}
	if diff := cmp.Diff(want, got.Recipients); diff != "" {
		t.Errorf("recipients (-want +got):\n%s", diff)
	}
	if got.Requeue == nil || got.Requeue.In != 0 || got.Requeue.Tries != 1 {
		t.Errorf("requeue %+v: want the rest ready at once", got.Requeue)
	}
}

func TestThrottlingWithoutATimeWaitsLongerEachTime(t *testing.T) {
	t.Parallel()
	var got []time.Duration
	for n := range 9 {
		c := testCall("a@example.org")
		c.throttles = n + 1
		r, _ := next(c, provider.Receipt{}, &provider.Error{Class: provider.Throttled}, testPolicy(), noon(), 0)
		got = append(got, r.Block.For)
	}
	s := time.Second
	want := []time.Duration{s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, time.Minute, time.Minute, time.Minute}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("blocks (-want +got):\n%s", diff)
	}
}

func TestBackoffDoublesUpToAnHalfHourAndSpreads(t *testing.T) {
	t.Parallel()
	last := time.Duration(0)
	for tries := range 40 {
		low, mid, high := backoff(tries, 0), backoff(tries, 0.5), backoff(tries, 0.999)
		if low >= mid || mid >= high || high > 36*time.Minute || mid < last {
			t.Fatalf("backoff(%d) = %s..%s..%s, want growing, spread, at most 36 min", tries, low, mid, high)
		}
		last = mid
	}
	if got := backoff(0, 0.5); got != 2*time.Second {
		t.Errorf("backoff(0) = %s, want 2 s", got)
	}
	if got := backoff(39, 0.5); got != 30*time.Minute {
		t.Errorf("backoff(39) = %s, want 30 min", got)
	}
}
