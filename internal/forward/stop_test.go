package forward

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// oneDelivery is a store with one delivery for each claim, and counts the results.
type oneDelivery struct {
	Store
	mu             sync.Mutex
	given, settled int
}

func (s *oneDelivery) ClaimDeliveries(context.Context, int, int, int, time.Duration, map[mail.ID]int) (
	[]record.Delivery, map[mail.ID]map[string]seal.Secret, error,
) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given++
	return []record.Delivery{{Endpoint: record.Endpoint{ID: mail.NewID(), URL: "http://127.0.0.1:1/"}, Event: mail.Event{ID: mail.NewID()}, N: 1}}, nil, nil
}

func (s *oneDelivery) FinishDeliveries(_ context.Context, results []record.DeliveryResult) ([]mail.ID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled += len(results)
	return nil, nil
}

func TestStopRightAfterStart(t *testing.T) {
	t.Parallel()
	store := &oneDelivery{}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for i := range 200 {
		e, err := New(Options{Store: store, Client: client, Log: slog.New(slog.DiscardHandler)})
		must(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		if i%2 == 1 {
			cancel() // before it has begun
		}
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			e.Run(ctx)
		}()
		cancel()
		select {
		case <-stopped:
		case <-time.After(time.Minute):
			t.Fatal("the engine does not end")
		}
	}
	if store.given != store.settled {
		t.Errorf("%d deliveries were claimed and %d are settled or given back", store.given, store.settled)
	}
}
