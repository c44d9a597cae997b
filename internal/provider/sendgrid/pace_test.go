package sendgrid

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
)

func TestNoMinuteHasMoreThanSixLookups(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPace(lookupsPerMinute)
		var made []time.Time
		for range 25 {
			if err := p.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			made = append(made, time.Now())
			time.Sleep(3 * time.Second)
		}
		for i := range made[lookupsPerMinute:] {
			if d := made[i+lookupsPerMinute].Sub(made[i]); d < time.Minute {
				t.Errorf("look-ups %d to %d within %s", i, i+lookupsPerMinute, d)
			}
		}
		if took := made[24].Sub(made[0]); took > 4*time.Minute+time.Second {
			t.Errorf("25 look-ups took %s, want no more than four minutes", took)
		}
	})
}

func TestLookupThatCannotWaitSaysForHowLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPace(2)
		_, _ = p.take(time.Now()), p.take(time.Now())
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var perr *provider.Error
		if err := p.wait(ctx); !errors.As(err, &perr) || perr.Class != provider.Throttled || perr.RetryAfter != time.Minute {
			t.Errorf("wait = %+v, want throttled for a minute", perr)
		}
		time.Sleep(31 * time.Second)
		short, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := p.wait(short); !errors.As(err, &perr) || perr.Class != provider.Transient || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled wait = %v", err)
		}
	})
}
