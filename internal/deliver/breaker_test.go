package deliver

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/sendgate/sendgate/internal/route"
)

// newBreaker is an account of which only the breaker matters, at some time of its life.
func newBreaker(t *testing.T, age time.Duration) *account {
	t.Helper()
	a := newAccount(route.Account{Name: "ses-eu", Concurrency: 64}, 64)
	time.Sleep(age)
	return a
}

// open begins n calls.
func open(t *testing.T, a *account, n int) []func(error) {
	t.Helper()
	var all []func(error)
	for range n {
		done, err := a.allow()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, done)
	}
	return all
}

func TestBreakerOpensOnCallsWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	for _, age := range []time.Duration{0, 25 * time.Second, 55 * time.Second, 59 * time.Second} { // wherever in a span they begin
		synctest.Test(t, func(t *testing.T) {
			a := newBreaker(t, age)
			calls := open(t, a, 32)
			time.Sleep(slowAnswer + time.Millisecond)
			if s := a.breaker.State(); s != gobreaker.StateOpen {
				t.Errorf("age %s: breaker %s after %s without an answer, want open", age, s, slowAnswer)
			}
			for _, done := range calls { // what comes of them later has no say
				done(nil)
			}
			if s := a.breaker.State(); s != gobreaker.StateOpen {
				t.Errorf("age %s: breaker %s after late answers, want open", age, s)
			}
		})
	}
}

func TestBreakerCountsCallsThatAreOpenWhileASpanEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newBreaker(t, 2*breakerSpan-time.Second)
		calls := open(t, a, 10)
		time.Sleep(2 * time.Second)
		for _, done := range calls {
			done(errors.New("reset"))
		}
		if s := a.breaker.State(); s != gobreaker.StateOpen {
			t.Errorf("breaker %s after ten failures in a row, want open", s)
		}
	})
}

func TestBreakerForgetsOldFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newBreaker(t, 0)
		for _, done := range open(t, a, 9) {
			done(errors.New("reset"))
		}
		time.Sleep(2 * breakerSpan)
		for _, done := range open(t, a, 9) {
			done(errors.New("reset"))
		}
		if s := a.breaker.State(); s != gobreaker.StateClosed {
			t.Errorf("breaker %s after nine failures, long after nine others; want closed", s)
		}
	})
}

func TestAnswerInTimeStaysTheVerdict(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newBreaker(t, 0)
		for _, done := range open(t, a, 32) {
			done(nil)
		}
		time.Sleep(2 * slowAnswer)
		if s := a.breaker.State(); s != gobreaker.StateClosed {
			t.Errorf("breaker %s after answers in time, want closed", s)
		}
	})
}
