package app

import (
	"context"
	"errors"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// clockEvery is how often the database's clock is read. What is accepted in between is dated by the monotonic clock of this
// process.
const clockEvery = 2 * time.Second

// startClock keeps to the database's clock, and says once when this host's leaves it, and when it is back.
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

func (a *App) readClock(ctx context.Context, before error) error {
	ctx, cancel := context.WithTimeout(ctx, clockEvery)
	defer cancel()
	if err := a.db.ReadClock(ctx); err != nil { // the time goes on without it, and others tell that the database is away
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

// clockRetry is when a caller may come back who was refused for the clock: somebody has to set it, or another replica is
// asked.
const clockRetry = 10 * time.Second

// dated refuses what would be dated by a clock of which nobody knows whether it is right.
func (s *store) dated() error {
	if err := s.Clock().Check(); errors.Is(err, mail.ErrClock) {
		return &record.Unavailable{RetryAfter: clockRetry, Reason: "clock", Err: err}
	}
	return nil
}
