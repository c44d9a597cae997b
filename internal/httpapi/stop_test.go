package httpapi

import (
	"context"
	"log/slog"
	"testing"
	"time"
)

func TestCloseRightAfterNew(t *testing.T) {
	t.Parallel()
	slow := newFakeStore(time.Now())
	slow.intercept(func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	})
	for i := range 200 {
		touches := newToucher(slow, slog.New(slog.DiscardHandler), time.Now)
		s := &Server{touches: touches}
		if i%2 == 1 {
			go touches.touch("key")
			touches.touch("another")
		}
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			s.Close()
		}()
		select {
		case <-closed:
		case <-time.After(time.Minute):
			t.Fatal("Close hangs")
		}
	}
}
