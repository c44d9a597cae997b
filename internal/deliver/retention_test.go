package deliver

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// keptStore notes up to when partitions were dropped.
type keptStore struct {
	*runStore
	now     time.Time
	err     error
	dropped map[string]time.Time
}

func (s *keptStore) RetentionNow(context.Context) (time.Time, error) { return s.now, s.err }

func (s *keptStore) DropPartitions(_ context.Context, table string, before time.Time) (int, error) {
	s.dropped[table] = before
	return 0, nil
}

// Retention goes by the store's time. This host's may be a year ahead, and what is dropped is gone.
func TestRetentionGoesByTheStoresTime(t *testing.T) {
	t.Parallel()
	s := &keptStore{runStore: newRunStore(), now: time.Date(2020, 2, 1, 0, 0, 0, 0, time.UTC), dropped: map[string]time.Time{}}
	e := testEngine(t, s.fakeStore, nil)
	e.Store, e.Retention, e.BodyAge = s, 90*24*time.Hour, 7*24*time.Hour
	if err := e.retain(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := s.now.Add(-e.Retention)
	want := map[string]time.Time{
		"body": s.now.Add(-e.BodyAge), "attempt": old, "recipient": old, "message": old, "event": old, "delivery": old,
	}
	if !maps.Equal(s.dropped, want) {
		t.Errorf("dropped before %v, want %v", s.dropped, want)
	}
	clear(s.dropped)
	s.err = &record.Unavailable{Reason: "database"}
	if err := e.retain(t.Context()); !errors.Is(err, s.err) || len(s.dropped) != 0 {
		t.Errorf("without the time: dropped %v, %v", s.dropped, err)
	}
}
