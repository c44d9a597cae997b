package deliver

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
)

func repeatPolicy() Policy {
	p := testPolicy()
	p.Repeats = []time.Duration{10 * time.Second, time.Minute}
	return p
}

// repeatCall is a call whose provider takes repeats of it for a day. Have is the repeat that it is, if any.
func repeatCall(have *queue.Repeat) call {
	c := testCall("ann@example.org")
	c.within = 23 * time.Hour
	if have != nil {
		c.due.Avoid = map[string]queue.Avoid{c.name: {Repeat: have}, "other": {Final: true, Why: "too large"}}
	}
	return c
}

func lost() *provider.Error {
	return &provider.Error{Class: provider.Uncertain, Detail: "connection reset"}
}

func TestAnUncertainCallIsRepeatedAFewTimesAndThenDecidedByItsPolicy(t *testing.T) {
	t.Parallel()
	end := noon().Add(23 * time.Hour)
	first := &queue.Repeat{N: 1, By: noon().Add(10*time.Second + repeatPatience), Until: end}
	second := &queue.Repeat{N: 2, By: noon().Add(time.Minute + repeatPatience), Until: end}
	for name, tc := range map[string]struct {
		have    *queue.Repeat
		failure *provider.Error
		wait    time.Duration
		want    *queue.Repeat
	}{
		"the first call":               {nil, lost(), 10 * time.Second, first},
		"its first repeat":             {first, lost(), time.Minute, second},
		"its last repeat":              {second, lost(), 0, &queue.Repeat{N: 2, By: second.By, Until: end, Over: true}},
		"a wait that was asked for":    {first, &provider.Error{Class: provider.Throttled, RetryAfter: time.Hour}, time.Hour, &queue.Repeat{N: 2, By: noon().Add(time.Hour + repeatPatience), Until: end}},
		"the key is about to go":       {&queue.Repeat{N: 1, Until: noon().Add(5 * time.Minute)}, lost(), 0, &queue.Repeat{N: 1, Until: noon().Add(5 * time.Minute), Over: true}},
		"it would be answered alike":   {first, &provider.Error{Class: provider.Uncertain, Final: true}, 0, &queue.Repeat{N: 1, By: first.By, Until: end, Over: true}},
		"a series that was given up":   {&queue.Repeat{N: 1, Until: end, Over: true}, lost(), 0, &queue.Repeat{N: 1, Until: end, Over: true}},
		"a wait longer than the key":   {first, &provider.Error{Class: provider.Throttled, RetryAfter: 24 * time.Hour}, 0, &queue.Repeat{N: 1, By: first.By, Until: end, Over: true}},
		"a refusal says nothing of it": {first, &provider.Error{Class: provider.Rejected, Detail: "no"}, time.Minute, second},
	} {
		r, _ := next(repeatCall(tc.have), provider.Receipt{}, tc.failure, repeatPolicy(), noon(), 0.5)
		if r.Class != "uncertain" || r.Requeue != nil || r.Unknown == nil || len(r.Recipients) != 1 || r.Recipients[0].Status != mail.Unknown {
			t.Errorf("%s: %+v, want the message unknown", name, r)
			continue
		}
		policy, wait := queue.Repeating, tc.wait
		if tc.want.Over {
			policy, wait = mail.Reconcile, 30*time.Minute
		}
		if r.Unknown.Policy != policy || r.Unknown.DecideIn != wait {
			t.Errorf("%s: decided in %s by %s, want %s by %s", name, r.Unknown.DecideIn, r.Unknown.Policy, wait, policy)
		}
		if diff := cmp.Diff(tc.want, r.Unknown.Avoid["ses-eu"].Repeat); diff != "" {
			t.Errorf("%s: repeat (-want +got):\n%s", name, diff)
		}
		if tc.have != nil && !r.Unknown.Avoid["other"].Final {
			t.Errorf("%s: forgot what the message avoids", name)
		}
	}
}

// Without an idempotency key nothing is repeated.
func TestOnlyCallsThatAreSafeToRepeatAreRepeated(t *testing.T) {
	t.Parallel()
	r, _ := next(testCall("ann@example.org"), provider.Receipt{}, lost(), repeatPolicy(), noon(), 0.5)
	if r.Unknown.Policy != mail.Reconcile || len(r.Unknown.Avoid) != 0 {
		t.Errorf("unknown = %+v, want reconcile", r.Unknown)
	}
}

func TestARepeatThatIsAcceptedSendsTheMessage(t *testing.T) {
	t.Parallel()
	c := repeatCall(&queue.Repeat{N: 1, Until: noon().Add(time.Hour)})
	r, h := next(c, provider.Receipt{ProviderMessageID: "id-1"}, nil, repeatPolicy(), noon(), 0.5)
	if r.Class != "accepted" || r.Unknown != nil || r.Requeue != nil || r.Recipients[0].Status != mail.Sent || h != healthy {
		t.Errorf("result = %+v, %d", r, h)
	}
}

// Those for whom the repeat had no room are not in doubt, and go anywhere once it is accepted.
func TestARepeatLeavesAloneWhoWasNotInIt(t *testing.T) {
	t.Parallel()
	have := &queue.Repeat{N: 1, Until: noon().Add(time.Hour)}
	c := repeatCall(have)
	c.open = append(c.open, mail.Recipient{N: 1, Kind: mail.Bcc, Address: mail.Address{Email: "bob@example.org"}, Status: mail.Queued})
	full := []provider.Refusal{{Email: "bob@example.org", Class: provider.Transient, Full: true}}
	r, _ := next(c, provider.Receipt{Refused: full}, nil, repeatPolicy(), noon(), 0.5)
	if at, _ := queue.Repeated(r.Requeue.Avoid); at != "" || len(r.Recipients) != 1 || !r.Requeue.Avoid["other"].Final {
		t.Errorf("result = %+v, requeued with %+v; want one sent, and the other free", r, r.Requeue)
	}
	r, _ = next(c, provider.Receipt{}, &provider.Error{Class: provider.Throttled, Refused: full}, repeatPolicy(), noon(), 0.5)
	if len(r.Recipients) != 1 || r.Recipients[0].N != 0 {
		t.Errorf("recipients = %+v, want the one of the call unknown", r.Recipients)
	}
}

// What the answer to a repeat says of the account holds: it is blocked, or parked.
func TestTheAnswerToARepeatBindsTheAccount(t *testing.T) {
	t.Parallel()
	have := &queue.Repeat{N: 1, Until: noon().Add(time.Hour)}
	r, _ := next(repeatCall(have), provider.Receipt{}, &provider.Error{Class: provider.Throttled, RetryAfter: 5 * time.Second}, repeatPolicy(), noon(), 0.5)
	if r.Block == nil || r.Block.For != 5*time.Second {
		t.Errorf("block = %+v", r.Block)
	}
	r, _ = next(repeatCall(have), provider.Receipt{}, &provider.Error{Class: provider.Misconfigured}, repeatPolicy(), noon(), 0.5)
	if r.Park == nil || r.Unknown == nil {
		t.Errorf("result = %+v, want a park and the message unknown", r)
	}
}

func TestTheKeyChangesOnlyWithTheRecipients(t *testing.T) {
	t.Parallel()
	d := queue.Due{ID: mail.NewID(), Attempts: 1}
	first := sendKey(d)
	d.Attempts, d.Tries, d.Resends = 5, 3, 1
	if got := sendKey(d); got != first || got != d.ID.String() {
		t.Errorf("key of a later call = %s, want %s", got, first)
	}
	d.ResentAfter = 5
	if sendKey(d) == first {
		t.Error("a message that is sent anew to others has the key of the calls before")
	}
}

func TestARepeatThatFindsNoTurnLapses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		repeat  *queue.Repeat
		expires time.Duration
		want    bool
	}{
		"no repeat":               {nil, time.Hour, false},
		"in time":                 {&queue.Repeat{N: 1, By: noon().Add(time.Minute)}, time.Hour, false},
		"too late":                {&queue.Repeat{N: 1, By: noon()}, time.Hour, true},
		"the message has expired": {&queue.Repeat{N: 1, By: noon().Add(time.Minute)}, 0, true},
		"it is over":              {&queue.Repeat{N: 1, By: noon(), Over: true}, time.Hour, false},
	} {
		d := testDue(func(d *queue.Due) {
			d.ExpiresAt, d.Avoid = noon().Add(tc.expires), map[string]queue.Avoid{"a": {Repeat: tc.repeat}}
		})
		p := planClaim(testInput(d))
		if got := len(p.lapses) == 1; got != tc.want || len(p.ends) > 0 {
			t.Errorf("%s: lapsed %t, ended %v, want lapsed %t", name, got, p.ends, tc.want)
		}
		for _, l := range p.lapses {
			if at, _ := queue.Repeated(l.Avoid); at != "" {
				t.Errorf("%s: the lapsed message is still bound to %s", name, at)
			}
		}
	}
}

// A call that was announced and not made leaves open what became of the call before it.
func TestARepeatThatWasNotMadeStaysUnknown(t *testing.T) {
	t.Parallel()
	c := repeatCall(&queue.Repeat{N: 1, Until: noon().Add(time.Hour)})
	r := notMade(queue.Result{ID: c.due.ID, N: 3, Requeue: &queue.Requeue{}}, c, "stopped")
	if r.Class != "uncertain" || r.Requeue != nil || r.Unknown == nil || r.Unknown.Policy != queue.Repeating || r.Recipients[0].Status != mail.Unknown {
		t.Errorf("result = %+v, want the message unknown", r)
	}
	r = notMade(queue.Result{Requeue: &queue.Requeue{}}, testCall("ann@example.org"), "stopped")
	if r.Class != queue.Aborted || r.Requeue == nil {
		t.Errorf("result = %+v, want it aborted and ready", r)
	}
}
