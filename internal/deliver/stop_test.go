package deliver

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
)

func TestStopRightAfterStart(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			store := newRunStore()
			e := testEngine(t, store.fakeStore, func(context.Context) (provider.Receipt, error) { return provider.Receipt{}, nil })
			e.Store = store
			ctx, cancel := context.WithCancel(context.Background())
			if i%2 == 1 {
				cancel() // before it has begun
			}
			stopped := make(chan error, 1)
			go func() { stopped <- e.Run(ctx, time.Minute) }()
			cancel()
			select {
			case err := <-stopped:
				if n := e.carrying.count(); err != nil || n != 0 {
					t.Errorf("Run = %v, and %d messages are held after it", err, n)
				}
			case <-time.After(2 * time.Minute):
				t.Error("the engine does not end")
			}
		})
	}
	all.Wait()
}
