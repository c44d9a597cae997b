package deliver

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// tallyStore takes tallies, or fails.
type tallyStore struct {
	Store
	fail error
	got  []record.CallTally
}

func (s *tallyStore) TallyCalls(_ context.Context, all []record.CallTally) error {
	if s.fail == nil {
		s.got = append(s.got, all...)
	}
	return s.fail
}

func TestCallsAreReportedOnceAndNotLostWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	s := &tallyStore{fail: errors.New("away")}
	e := &Engine{Options: Options{Store: s}}
	for _, class := range []provider.Class{provider.Accepted, provider.Transient, provider.Uncertain, provider.Rejected, provider.Misconfigured} {
		e.ended.note(7, string(class), "because of "+string(class))
	}
	if err := e.tallyCalls(t.Context()); err == nil {
		t.Error("the failure is not told")
	}
	e.ended.note(7, string(provider.Accepted), "")
	e.ended.note(8, queue.Aborted, "")
	s.fail = nil
	for range 2 {
		if err := e.tallyCalls(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := []record.CallTally{{Account: 7, Accepted: 2, Failed: 2, Made: 6, Failure: "because of uncertain"}}
	if diff := cmp.Diff(want, s.got); diff != "" {
		t.Errorf("reported (-want +got):\n%s", diff)
	}
}
