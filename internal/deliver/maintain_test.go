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

func TestJobsThatTakeLongRest(t *testing.T) {
	t.Parallel()
	due := time.Now()
	for _, tc := range []struct {
		job  job
		took time.Duration
		want time.Duration
	}{
		{job{every: time.Second, rests: true}, 10 * time.Millisecond, time.Second},
		{job{every: time.Second, rests: true}, 300 * time.Millisecond, 6 * time.Second},
		{job{every: 2 * time.Second}, 3 * time.Second, 2 * time.Second}, // a rescue does not wait for it
	} {
		if got := tc.job.next(due, tc.took).Sub(due); got != tc.want {
			t.Errorf("every %s, rests %t, took %s: due after %s, want %s", tc.job.every, tc.job.rests, tc.took, got, tc.want)
		}
	}
}
