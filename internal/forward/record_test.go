package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// fakeStore answers what a test sets.
type fakeStore struct {
	claim  func(busy map[mail.ID]int) ([]record.Delivery, map[mail.ID]map[string]seal.Secret, error)
	finish func([]record.DeliveryResult) ([]mail.ID, error)
}

func (f *fakeStore) ClaimDeliveries(_ context.Context, _, _, _ int, _ time.Duration, busy map[mail.ID]int) (
	[]record.Delivery, map[mail.ID]map[string]seal.Secret, error,
) {
	return f.claim(busy)
}

func (f *fakeStore) FinishDeliveries(_ context.Context, rs []record.DeliveryResult) ([]mail.ID, error) {
	return f.finish(rs)
}

func (f *fakeStore) EndpointSecrets(context.Context, mail.TenantID, mail.ID) (*record.Endpoint, map[string]seal.Secret, error) {
	return nil, nil, record.ErrNotFound
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func noContent(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusNoContent, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}, nil
}

// once gives n deliveries to one endpoint at the first claim, and nothing after.
func once(n int) func(map[mail.ID]int) ([]record.Delivery, map[mail.ID]map[string]seal.Secret, error) {
	endpoint := record.Endpoint{ID: mail.NewID(), URL: "https://hooks.example.com/"}
	var all []record.Delivery
	for range n {
		all = append(all, record.Delivery{Endpoint: endpoint, Event: mail.Event{ID: mail.NewID()}, N: 1})
	}
	return func(map[mail.ID]int) ([]record.Delivery, map[mail.ID]map[string]seal.Secret, error) {
		some := all
		all = nil
		return some, map[mail.ID]map[string]seal.Secret{endpoint.ID: signs(secretOf(32))}, nil
	}
}

func start(t *testing.T, store Store, answer roundTrip) (log *bytes.Buffer, stop func()) {
	t.Helper()
	log = &bytes.Buffer{}
	e, err := New(Options{Store: store, Client: &http.Client{Transport: answer}, Log: slog.New(slog.NewTextHandler(log, nil))})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Run(ctx)
	}()
	return log, func() {
		cancel()
		<-done
	}
}

func TestResultsSurviveAShortOutageOfTheDatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outage, recorded := recordTry-1, 0
		store := &fakeStore{claim: once(10), finish: func(rs []record.DeliveryResult) ([]mail.ID, error) {
			if outage > 0 {
				outage--
				return nil, errors.New("no database")
			}
			recorded += len(rs)
			return nil, nil
		}}
		log, stop := start(t, store, noContent)
		time.Sleep(10 * time.Second)
		stop()
		if recorded != 10 || strings.Contains(log.String(), "not recorded") {
			t.Errorf("%d results recorded, want 10; log: %s", recorded, log)
		}
	})
}

func TestResultsThatCannotBeRecordedAreToldOfInTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		store := &fakeStore{claim: once(1), finish: func([]record.DeliveryResult) ([]mail.ID, error) {
			tries++
			return nil, errors.New("no database")
		}}
		log, stop := start(t, store, noContent)
		time.Sleep(time.Minute)
		stop()
		if tries != recordTry || !strings.Contains(log.String(), "deliveries not recorded") {
			t.Errorf("%d tries, want %d; log: %s", tries, recordTry, log)
		}
	})
}

func TestClaimsGoOnAfterAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		outage, recorded, next := 3, 0, once(5)
		store := &fakeStore{
			claim: func(busy map[mail.ID]int) ([]record.Delivery, map[mail.ID]map[string]seal.Secret, error) {
				if outage--; outage >= 0 {
					return nil, nil, errors.New("no database")
				}
				return next(busy)
			},
			finish: func(rs []record.DeliveryResult) ([]mail.ID, error) { recorded += len(rs); return nil, nil },
		}
		_, stop := start(t, store, noContent)
		time.Sleep(10 * time.Second)
		stop()
		if recorded != 5 {
			t.Errorf("%d results recorded, want 5", recorded)
		}
	})
}

// TestIdleEngineAsksSeldom: an installation without endpoints pays one small query a second.
func TestIdleEngineAsksSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		claims := 0
		store := &fakeStore{claim: func(map[mail.ID]int) ([]record.Delivery, map[mail.ID]map[string]seal.Secret, error) {
			claims++
			return nil, nil, nil
		}}
		_, stop := start(t, store, noContent)
		time.Sleep(time.Minute)
		stop()
		if claims < 50 || claims > 65 {
			t.Errorf("%d claims in an idle minute, want about 60", claims)
		}
	})
}

// TestDeliveryWhoseLeaseEndsIsLeftAlone: a slow endpoint must not get an event twice because its queue outlived the lease.
func TestDeliveryWhoseLeaseEndsIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		recorded := 0
		var made atomic.Int64
		begun := time.Now()
		store := &fakeStore{claim: once(each + 32), finish: func(rs []record.DeliveryResult) ([]mail.ID, error) {
			recorded += len(rs)
			return nil, nil
		}}
		_, stop := start(t, store, func(r *http.Request) (*http.Response, error) {
			if made.Add(1); time.Since(begun) > lease-longCall {
				t.Errorf("a call began %s after the claim", time.Since(begun))
			}
			time.Sleep(14 * time.Second)
			return noContent(r)
		})
		time.Sleep(10 * time.Minute)
		stop()
		if calls := int(made.Load()); calls != recorded || calls < 9*width || calls >= each+32 {
			t.Errorf("%d calls, %d recorded", calls, recorded)
		}
	})
}

func TestEndpointThatBeginsToFailIsTriedOneAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var now, calls, crowded atomic.Int64
		store := &fakeStore{claim: once(each), finish: func([]record.DeliveryResult) ([]mail.ID, error) { return nil, nil }}
		_, stop := start(t, store, func(*http.Request) (*http.Response, error) {
			if n := now.Add(1); n > 1 && calls.Load() >= width {
				crowded.Add(1)
			}
			calls.Add(1)
			time.Sleep(time.Second)
			now.Add(-1)
			return nil, errors.New("no")
		})
		time.Sleep(time.Minute)
		stop()
		if calls.Load() != each || crowded.Load() > 0 {
			t.Errorf("%d calls, want %d; %d beside another after the first failed", calls.Load(), each, crowded.Load())
		}
	})
}

// TestBusyEndpointIsNeverLeftWaiting: while more waits for an endpoint, its calls follow each other at once. An endpoint
// that answers in 10 ms takes 400 events a second.
func TestBusyEndpointIsNeverLeftWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		supply, claims := once(10_000), 0
		all, secrets, _ := supply(nil)
		store := &fakeStore{
			claim: func(busy map[mail.ID]int) ([]record.Delivery, map[mail.ID]map[string]seal.Secret, error) {
				claims++
				n := min(each-busy[all[0].Endpoint.ID], len(all)-1)
				some := all[:n]
				all = all[n:]
				return some, secrets, nil
			},
			finish: func([]record.DeliveryResult) ([]mail.ID, error) { return nil, nil },
		}
		_, stop := start(t, store, func(r *http.Request) (*http.Response, error) {
			calls.Add(1)
			time.Sleep(10 * time.Millisecond)
			return noContent(r)
		})
		time.Sleep(10 * time.Second)
		n := calls.Load()
		stop()
		if n < 3900 || claims > 300 {
			t.Errorf("%d calls by %d claims in ten seconds, want 4000 by few", n, claims)
		}
	})
}

func TestSilentEndpointIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got []record.DeliveryResult
		store := &fakeStore{claim: once(1), finish: func(rs []record.DeliveryResult) ([]mail.ID, error) {
			got = append(got, rs...)
			return nil, nil
		}}
		_, stop := start(t, store, func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		time.Sleep(time.Minute)
		stop()
		if len(got) != 1 || got[0].Error != "no answer in time" || got[0].Took != longCall || got[0].Outcome != record.DeliveryRetry {
			t.Errorf("results %+v, want one that was given up after %s", got, longCall)
		}
	})
}
