package deliver

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// versionStore has a configuration whose version takes a while to read.
type versionStore struct {
	*fakeStore
	takes time.Duration
	fails atomic.Bool
}

func (s *versionStore) ConfigVersion(context.Context) (int64, error) {
	time.Sleep(s.takes)
	if s.fails.Load() {
		return 0, &record.Unavailable{Reason: "database", Err: errors.New("away")}
	}
	return 1, nil
}

func TestCurrentWaitsForAReadingThatBeganLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &versionStore{fakeStore: &fakeStore{}, takes: 100 * time.Millisecond}
		e := testEngine(t, s.fakeStore, nil)
		e.Store = s
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go e.watchConfig(ctx)
		time.Sleep(50 * time.Millisecond) // the first reading is under way: what is changed now it may not see
		asked := time.Now()
		if !e.Current(t.Context()) {
			t.Fatal("Current = false without an end of its context")
		}
		if got, want := time.Since(asked), 50*time.Millisecond+e.ConfigPoll; got != want {
			t.Errorf("Current returned after %s, want %s: at the end of the reading that began after it was asked", got, want)
		}

		s.fails.Store(true)
		synctest.Wait()
		short, end := context.WithTimeout(t.Context(), 3*time.Second)
		defer end()
		if e.Current(short) {
			t.Error("Current = true while the configuration can't be read")
		}
	})
}
