package httpapi

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// fakeEndpoints keeps webhook endpoints in memory and obeys the contract of EndpointStore.
type fakeEndpoints struct {
	mu       sync.Mutex
	now      func() time.Time
	fail     error
	all      []record.Endpoint
	secrets  map[mail.ID][]seal.Secret
	log      []record.DeliveryEntry
	actors   []string
	overlap  time.Duration
	replayed [2]time.Time
}

// withEndpoints gives a rig's server a store of endpoints, and the jail's check of URLs.
func withEndpoints(t *testing.T) (*fakeEndpoints, *rig) {
	t.Helper()
	f := &fakeEndpoints{secrets: map[mail.ID][]seal.Secret{}}
	r := newRig(t, func(o *Options) {
		f.now = o.Now
		o.Webhooks = EndpointOptions{
			Endpoints: f, TestDelivery: f, CheckWebhookURL: func(raw string) error { return jail.CheckURL(raw, jail.Options{}) },
		}
	})
	return f, r
}

// on does something with an endpoint of the tenant. A change has an actor.
func (f *fakeEndpoints) on(actor string, t mail.TenantID, id mail.ID, do func(*record.Endpoint) error) (*record.Endpoint, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.all, func(e record.Endpoint) bool { return e.ID == id && e.Tenant == t })
	switch {
	case f.fail != nil:
		return nil, f.fail
	case i < 0:
		return nil, record.ErrNotFound
	case actor != "":
		f.actors = append(f.actors, actor)
	}
	e := &f.all[i]
	return e, do(e)
}

func (f *fakeEndpoints) Endpoints(_ context.Context, t mail.TenantID) ([]record.Endpoint, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.all), func(e record.Endpoint) bool { return e.Tenant != t }), f.fail
}

func (f *fakeEndpoints) Endpoint(_ context.Context, t mail.TenantID, id mail.ID) (*record.Endpoint, error) {
	return f.on("", t, id, func(*record.Endpoint) error { return nil })
}

func (f *fakeEndpoints) CreateEndpoint(_ context.Context, actor string, e record.Endpoint, secret, headers seal.Secret) (*record.Endpoint, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	e.ID, e.CreatedAt, e.UpdatedAt = mail.NewID(), f.now(), f.now()
	f.all, f.actors = append(f.all, e), append(f.actors, actor)
	f.secrets[e.ID] = []seal.Secret{secret}
	if !headers.IsZero() {
		f.secrets[e.ID] = append(f.secrets[e.ID], headers)
	}
	return &e, nil
}

func (f *fakeEndpoints) UpdateEndpoint(
	_ context.Context, actor string, t mail.TenantID, id mail.ID, headers *seal.Secret, change func(*record.Endpoint) error,
) (*record.Endpoint, error) {
	return f.on(actor, t, id, func(e *record.Endpoint) error {
		changed := *e
		if err := change(&changed); err != nil {
			return err
		}
		*e = changed
		if headers != nil {
			f.secrets[e.ID] = append(f.secrets[e.ID][:1], *headers)
		}
		return nil
	})
}

func (f *fakeEndpoints) DeleteEndpoint(_ context.Context, actor string, t mail.TenantID, id mail.ID) error {
	_, err := f.on(actor, t, id, func(*record.Endpoint) error {
		f.all = slices.DeleteFunc(f.all, func(e record.Endpoint) bool { return e.ID == id })
		return nil
	})
	return err
}

func (f *fakeEndpoints) RotateEndpoint(
	_ context.Context, actor string, t mail.TenantID, id mail.ID, secret seal.Secret, overlap time.Duration,
) (*record.Endpoint, error) {
	return f.on(actor, t, id, func(*record.Endpoint) error {
		f.overlap, f.secrets[id] = overlap, append(f.secrets[id], secret)
		return nil
	})
}

func (f *fakeEndpoints) Deliveries(_ context.Context, t mail.TenantID, id, before mail.ID, limit int) (out []record.DeliveryEntry, err error) {
	_, err = f.on("", t, id, func(*record.Endpoint) error {
		for _, d := range slices.Backward(f.log) {
			if d.Endpoint == id && (before.IsZero() || slices.Compare(d.ID[:], before[:]) < 0) && len(out) < limit {
				out = append(out, d)
			}
		}
		return nil
	})
	return out, err
}

func (f *fakeEndpoints) ReplayEndpoint(ctx context.Context, actor string, t mail.TenantID, id mail.ID, since, until time.Time) (int64, error) {
	_, err := f.on(actor, t, id, func(*record.Endpoint) error {
		f.replayed = [2]time.Time{since, until}
		if _, ok := ctx.Deadline(); !ok {
			return errors.New("a replay must have a deadline")
		}
		return nil
	})
	return 7, err
}

func (f *fakeEndpoints) Test(_ context.Context, t mail.TenantID, id mail.ID) (record.DeliveryResult, error) {
	_, err := f.on("", t, id, func(*record.Endpoint) error { return nil })
	return record.DeliveryResult{
		Endpoint: id, Event: id, N: 1, At: f.now(), Took: 12 * time.Millisecond, Status: 500, Outcome: record.DeliveryFailed, Error: "no",
	}, err
}
