package app

import (
	"context"
	"errors"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// clockEvery is how often the database's clock is read. In between, messages are dated by the monotonic clock of this process.
const clockEvery = 2 * time.Second

// startClock follows the database's clock. It logs once when this host's clock goes off, and once when it is right again.
func (a *App) startClock() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(clockEvery)
		defer tick.Stop()
		var before error
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			before = a.readClock(ctx, before)
		}
	}()
	a.onStop("clock", func(context.Context) error {
		cancel()
		<-done
		return nil
	})
}

// readClock reads the database's clock once, logs a change of state, and returns the new state.
func (a *App) readClock(ctx context.Context, before error) error {
	ctx, cancel := context.WithTimeout(ctx, clockEvery)
	defer cancel()
	if err := a.db.ReadClock(ctx); err != nil { // the monotonic clock goes on; others report a lost database
		return before
	}
	now := a.clock.Check()
	switch {
	case now != nil && before == nil:
		a.log.Error("not ready, and nothing is accepted", "error", now)
	case now == nil && before != nil:
		a.log.Info("the clocks agree again")
	}
	return now
}

// clockRetry is when a caller that was refused because of the clock may come back: somebody has to set the clock, or another
// replica answers.
const clockRetry = 10 * time.Second

// dated returns an error while the clock may be wrong, so that nothing gets a wrong date.
func (s *store) dated() error {
	if err := s.Clock().Check(); errors.Is(err, mail.ErrClock) {
		return &record.Unavailable{RetryAfter: clockRetry, Reason: "clock", Err: err}
	}
	return nil
}
