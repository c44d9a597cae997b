package postgres

import (
	"testing"
	"time"
)

func TestCloseRightAfterOpen(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for i := range 200 {
		db, err := Open(t.Context(), Options{URL: b.url, Box: newBox(t, 1)})
		must(t, err)
		if i%50 == 1 { // with connections
			must(t, db.Ping(t.Context()))
		}
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			db.Close()
		}()
		select {
		case <-closed:
		case <-time.After(time.Minute):
			t.Fatal("Close hangs")
		}
	}
}
