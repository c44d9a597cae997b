package httpapi

import (
	"context"
	"log/slog"
	"testing"
	"time"
)

// slowKeys is a store in which a note of a key's use waits for the end.
type slowKeys struct{ *fakeStore }

func (slowKeys) TouchKey(ctx context.Context, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestCloseRightAfterNew(t *testing.T) {
	t.Parallel()
	for i := range 200 {
		touches := newToucher(slowKeys{}, slog.New(slog.DiscardHandler), time.Now)
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
