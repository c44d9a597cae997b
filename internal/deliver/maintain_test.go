package deliver

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestJobThatFailedIsRunAgainSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := testEngine(t, &fakeStore{}, nil)
		var runs []time.Duration
		start := time.Now()
		failing := job{every: time.Hour, name: "test", run: func(context.Context) error {
			runs = append(runs, time.Since(start))
			if len(runs) < 3 {
				return errors.New("somebody has locked it")
			}
			return nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		e.maintain(ctx, []job{failing})
		if len(runs) != 3 || runs[2] != 2*jobAgain {
			t.Errorf("runs = %v, want one after each %s until it works, and then no more in this hour", runs, jobAgain)
		}
	})
}
