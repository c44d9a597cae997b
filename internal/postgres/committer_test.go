package postgres

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sendgate/sendgate/internal/record"
)

// gated is a committer of one worker whose commits wait for the test.
type gated struct {
	*committer[int, int]
	started chan []int
	release chan struct{}
}

func newGated(t *testing.T, batch, queue int) *gated {
	t.Helper()
	g := &gated{started: make(chan []int, 100), release: make(chan struct{})}
	g.committer = newCommitter(committerOptions{
		name: "test", workers: 1, batch: batch, queue: queue, bytes: 1000, observe: func(string, int, time.Duration) {},
	}, func(_ context.Context, batch []int) ([]int, []error) {
		g.started <- slices.Clone(batch)
		<-g.release
		doubled := make([]int, len(batch))
		for i, v := range batch {
			doubled[i] = 2 * v
		}
		return doubled, nil
	})
	return g
}

func TestCallerThatGaveUpBeforeItsTurnIsNotWritten(t *testing.T) {
	t.Parallel()
	g := newGated(t, 10, 10)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = g.do(t.Context(), 1, 1) })
	<-g.started // the worker is busy with the first
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("gave up")
	wg.Go(func() {
		_, err := g.do(ctx, 2, 1)
		if u, is := errors.AsType[*record.Unavailable](err); !is || !errors.Is(u, why) {
			t.Errorf("caller that gave up got %v", err)
		}
	})
	wg.Go(func() {
		if r, err := g.do(t.Context(), 3, 1); r != 6 || err != nil {
			t.Errorf("caller that stayed got %d, %v", r, err)
		}
	})
	until(t, "both to wait", func() bool { return len(g.jobs) == 2 })
	cancel(why)
	until(t, "the one to give up", func() bool { return abandonedJobs(g) == 1 })
	close(g.release)
	if second := <-g.started; !slices.Equal(second, []int{3}) {
		t.Errorf("second batch = %v, want [3]", second)
	}
	wg.Wait()
	g.close()
	if n := g.pending.Load(); n != 0 {
		t.Errorf("%d bytes are counted as waiting in an empty queue", n)
	}
}

// abandonedJobs looks at the waiting jobs by turning the queue once.
func abandonedJobs(g *gated) int {
	n := 0
	for range len(g.jobs) {
		j := <-g.jobs
		if j.state.Load() == abandoned {
			n++
		}
		g.jobs <- j
	}
	return n
}

func TestCallerThatGaveUpAfterItsTurnIsWrittenButToldNothing(t *testing.T) {
	t.Parallel()
	g := newGated(t, 10, 10)
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() {
		_, err := g.do(ctx, 1, 1)
		answer <- err
	}()
	if batch := <-g.started; !slices.Equal(batch, []int{1}) {
		t.Fatalf("batch = %v", batch)
	}
	cancel()
	if err := <-answer; !isUnknown(err) {
		t.Errorf("caller that gave up got %v, want that nobody knows", err)
	}
	close(g.release)
	g.close()
}

func isUnknown(err error) bool {
	_, is := errors.AsType[*record.OutcomeUnknown](err)
	return is
}

func TestCallerOfASureCommitterWaitsForTheEndOfWhatWasTaken(t *testing.T) {
	t.Parallel()
	g := newGated(t, 10, 10)
	g.opts.sure = true
	ctx, cancel := context.WithCancel(t.Context())
	type answer struct {
		r   int
		err error
	}
	got := make(chan answer, 1)
	go func() {
		r, err := g.do(ctx, 1, 1)
		got <- answer{r, err}
	}()
	<-g.started
	cancel()
	close(g.release)
	if a := <-got; a.r != 2 || a.err != nil {
		t.Errorf("caller whose time ended while its batch was under way got %+v, want what became of it", a)
	}
	g.close()
}

func TestCommitterTakesWhatWaitsUpToItsBatch(t *testing.T) {
	t.Parallel()
	g := newGated(t, 3, 10)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = g.do(t.Context(), 0, 1) })
	<-g.started
	for i := range 5 {
		wg.Go(func() {
			if r, err := g.do(t.Context(), i, 1); r != 2*i || err != nil {
				t.Errorf("do(%d) = %d, %v", i, r, err)
			}
		})
	}
	until(t, "five to wait", func() bool { return len(g.jobs) == 5 })
	close(g.release)
	wg.Wait()
	g.close()
	if a, b := len(<-g.started), len(<-g.started); a != 3 || b != 2 {
		t.Errorf("batches of %d and %d, want 3 and 2", a, b)
	}
}

func TestCommitterBoundsTheWeightOfATransaction(t *testing.T) {
	t.Parallel()
	g := newGated(t, 10, 10)
	g.opts.weight = 100
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = g.do(t.Context(), 0, 1) })
	<-g.started
	for range 5 {
		wg.Go(func() { _, _ = g.do(t.Context(), 0, 50) })
	}
	until(t, "five to wait", func() bool { return len(g.jobs) == 5 })
	close(g.release)
	wg.Wait()
	g.close()
	if a, b, c := len(<-g.started), len(<-g.started), len(<-g.started); a != 2 || b != 2 || c != 1 {
		t.Errorf("batches of %d, %d and %d, want 2, 2 and 1", a, b, c)
	}
}

func TestCommitterBoundsEntriesAndBytes(t *testing.T) {
	t.Parallel()
	full := func(what string, err error) {
		t.Helper()
		if u, is := errors.AsType[*record.Unavailable](err); !is || u.Reason != "queue_full" {
			t.Errorf("%s: %v, want queue_full", what, err)
		}
	}
	g := newGated(t, 10, 2)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = g.do(t.Context(), 0, 1) })
	<-g.started
	for range 2 {
		wg.Go(func() { _, _ = g.do(t.Context(), 0, 400) })
	}
	until(t, "two to wait", func() bool { return len(g.jobs) == 2 })
	_, err := g.do(t.Context(), 0, 1)
	full("a third entry", err)
	if n := g.pending.Load(); n != 800 {
		t.Errorf("%d bytes wait, want 800: a refused entry must not count", n)
	}
	close(g.release)
	wg.Wait()
	_, err = g.do(t.Context(), 0, 1001)
	full("more bytes than the queue may hold", err)
	if _, err := g.do(t.Context(), 0, 1000); err != nil {
		t.Errorf("as many bytes as the queue may hold: %v", err)
	}
	g.close()
}

func TestBisectFailsOnlyTheCulprits(t *testing.T) {
	t.Parallel()
	bad := &pgconn.PgError{Code: "22021"}
	runs := 0
	results, errs := bisect(t.Context(), []int{1, 2, -3, 4, 5, -6, 7}, func(_ context.Context, batch []int) ([]int, error) {
		runs++
		for _, v := range batch {
			if v < 0 {
				return nil, bad
			}
		}
		return batch, nil
	})
	for i, v := range []int{1, 2, -3, 4, 5, -6, 7} {
		switch {
		case v < 0 && !errors.Is(errs[i], bad):
			t.Errorf("entry %d: %v, want its fault", i, errs[i])
		case v > 0 && (errs[i] != nil || results[i] != v):
			t.Errorf("entry %d: %d, %v", i, results[i], errs[i])
		}
	}
	runs = 0
	_, errs = bisect(t.Context(), []int{1, 2, 3, 4}, func(context.Context, []int) ([]int, error) {
		runs++
		return nil, &pgconn.PgError{Code: "57P01"}
	})
	if runs != 1 {
		t.Errorf("an outage was tried %d times, want 1: it is no row's fault", runs)
	}
	for _, err := range errs {
		wantUnavailable(t, "batch in an outage", err)
	}
}
