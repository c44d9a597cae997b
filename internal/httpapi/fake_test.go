package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// fakeStore keeps everything in memory and obeys the contract of Store.
type fakeStore struct {
	mu     sync.Mutex
	before func(ctx context.Context, method string) error // comes before each call, which is not made after an error
	calls  map[string]int                                 // by method

	keys         map[string]record.Key
	tenants      []record.Tenant
	messages     map[mail.ID]*record.View
	order        []mail.ID
	idempotency  map[string]idempotent
	suppressions map[suppressionKey]record.Suppression
	config       route.Config
	secrets      map[string]map[string]seal.Secret
	queue        record.QueueState
	limits       []limit.State
	audit        []record.AuditEntry
	counts       []record.Count
	asked        record.SeriesFilter
	at           time.Time
	bulks        []record.Bulk // that were asked for
	bulkMatches  int

	fakeEvents
	fakeUsers
}

type idempotent struct {
	fingerprint [32]byte
	accepted    record.Accepted
}

var _ Store = (*fakeStore)(nil)

func newFakeStore(now time.Time) *fakeStore {
	return &fakeStore{
		calls: map[string]int{}, keys: map[string]record.Key{}, messages: map[mail.ID]*record.View{},
		idempotency: map[string]idempotent{}, suppressions: map[suppressionKey]record.Suppression{},
		secrets: map[string]map[string]seal.Secret{}, at: now, fakeEvents: fakeEvents{tokens: map[mail.ID][32]byte{}, seen: map[mail.ID]bool{}},
		tenants: []record.Tenant{{ID: mail.DefaultTenant, Name: "default", Weight: 100, CreatedAt: now}},
		config: route.Config{Version: 1, Pools: []route.Pool{
			{ID: 1, Name: route.DefaultPool, Overflow: route.Spill, Version: 1},
		}},
	}
}

// act makes a call of a method: it does what the method does, under the lock.
func (f *fakeStore) act(ctx context.Context, method string, do func() error) error {
	f.mu.Lock()
	f.calls[method]++
	before := f.before
	f.mu.Unlock()
	if before != nil {
		if err := before(ctx, method); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return do()
}

// ask is act for a method that returns something.
func ask[T any](ctx context.Context, f *fakeStore, method string, do func() (T, error)) (out T, err error) {
	err = f.act(ctx, method, func() error {
		out, err = do()
		return err
	})
	return out, err
}

// intercept calls a function before each call, and not those that were set earlier.
func (f *fakeStore) intercept(before func(ctx context.Context, method string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = before
}

// failFrom makes one method fail from its nth call on.
func (f *fakeStore) failFrom(method string, n int, err error) {
	f.intercept(func(_ context.Context, called string) error {
		if called == method && f.count(method) >= n {
			return err
		}
		return nil
	})
}

func (f *fakeStore) count(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

// failWith makes every method fail, or none if err is nil.
func (f *fakeStore) failWith(err error) {
	f.intercept(func(context.Context, string) error { return err })
}

// addKey stores a key of the default tenant and returns its full text.
func (f *fakeStore) addKey(change func(*record.Key), scopes ...record.Scope) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, full, hash := NewKey()
	k := record.Key{ID: id, Tenant: mail.DefaultTenant, Name: "test", Hash: hash, Scopes: scopes, CreatedAt: f.at}
	if change != nil {
		change(&k)
	}
	f.keys[k.ID] = k
	return full
}

func (f *fakeStore) Accept(ctx context.Context, s *record.Submission) (record.Accepted, error) {
	return ask(ctx, f, "Accept", func() (record.Accepted, error) { return f.accept(s) })
}

func (f *fakeStore) AcceptAll(ctx context.Context, subs []*record.Submission) ([]record.Accepted, []error) {
	accepted, errs := make([]record.Accepted, len(subs)), make([]error, len(subs))
	err := f.act(ctx, "AcceptAll", func() error {
		for i, s := range subs {
			accepted[i], errs[i] = f.accept(s)
		}
		return nil
	})
	if err != nil {
		errs = slices.Repeat([]error{err}, len(subs))
	}
	return accepted, errs
}

func (f *fakeStore) Replay(ctx context.Context, s *record.Submission) (record.Accepted, error) {
	return ask(ctx, f, "Replay", func() (record.Accepted, error) {
		if _, ok := f.idempotency[fmt.Sprint(s.Message.Tenant, "/", s.Key)]; !ok {
			return record.Accepted{}, record.ErrNotFound
		}
		return f.accept(s)
	})
}

func (f *fakeStore) accept(s *record.Submission) (record.Accepted, error) {
	key := fmt.Sprint(s.Message.Tenant, "/", s.Key)
	if seen, ok := f.idempotency[key]; ok && s.Key != "" {
		if seen.fingerprint != s.Fingerprint {
			return record.Accepted{}, record.ErrMismatch
		}
		seen.accepted.Replayed = true
		return seen.accepted, nil
	}
	v := &record.View{Message: s.Message, UpdatedAt: f.at, Recipients: s.Message.Recipients()}
	a := record.Accepted{ID: s.Message.ID}
	var statuses []mail.Status
	for i := range v.Recipients {
		rc := &v.Recipients[i]
		rc.UpdatedAt = f.at
		if _, no := f.suppressions[suppressionKey{s.Message.Tenant, rc.Address.Email, ""}]; no {
			rc.Status = mail.Suppressed
		}
		statuses = append(statuses, rc.Status)
		a.Recipients = append(a.Recipients, record.RecipientStatus{Email: rc.Address.Email, Status: rc.Status})
	}
	v.Status = mail.Fold(statuses)
	if v.Status == mail.Queued && s.Message.SendAt.After(f.at) {
		v.Status = mail.Scheduled
	}
	a.Status = v.Status
	f.messages[a.ID] = v
	f.order = append(f.order, a.ID)
	if s.Key != "" {
		f.idempotency[key] = idempotent{s.Fingerprint, a}
	}
	return a, nil
}

func (f *fakeStore) Message(ctx context.Context, t mail.TenantID, id mail.ID) (*record.View, error) {
	return ask(ctx, f, "Message", func() (*record.View, error) { return f.message(t, id) })
}

func (f *fakeStore) Waiting(ctx context.Context, id mail.ID) (*queue.Waiting, error) {
	return ask(ctx, f, "Waiting", func() (*queue.Waiting, error) {
		v := f.messages[id]
		if v == nil {
			return nil, record.ErrNotFound
		}
		facts := v.Message.Facts()
		return &queue.Waiting{Facts: &facts}, nil
	})
}

func (f *fakeStore) message(t mail.TenantID, id mail.ID) (*record.View, error) {
	v, ok := f.messages[id]
	if !ok || v.Message.Tenant != t {
		return nil, record.ErrNotFound
	}
	return v, nil
}

func (f *fakeStore) Messages(ctx context.Context, q record.Filter) ([]record.View, error) {
	return ask(ctx, f, "Messages", func() (out []record.View, err error) {
		for _, id := range slices.Backward(f.order) {
			v := f.messages[id]
			before := q.Before.IsZero() || bytes.Compare(id[:], q.Before[:]) < 0
			if before && matches(v, q) && len(out) < q.Limit {
				line := *v
				line.Attempts = nil
				out = append(out, line)
			}
		}
		return out, nil
	})
}

func matches(v *record.View, q record.Filter) bool {
	m := v.Message
	to := q.To == "" || slices.ContainsFunc(v.Recipients, func(r mail.Recipient) bool { return r.Address.Email == q.To })
	return to && m.Tenant == q.Tenant && (q.Status == "" || v.Status == q.Status) &&
		(q.From == "" || m.From.Email == q.From) && (q.Stream == "" || m.Stream == q.Stream) &&
		(q.ProviderMessageID == "" || slices.ContainsFunc(v.Attempts, func(a record.Attempt) bool { return a.ProviderMessageID == q.ProviderMessageID })) &&
		(q.Account == "" || m.Account == q.Account) && (q.Tag == "" || slices.Contains(m.Tags, q.Tag)) &&
		(q.Since.IsZero() || !m.CreatedAt.Before(q.Since)) && (q.Until.IsZero() || m.CreatedAt.Before(q.Until))
}

func (f *fakeStore) Cancel(ctx context.Context, t mail.TenantID, id mail.ID) error {
	return f.turn(ctx, "Cancel", t, id, mail.Cancelled, mail.Queued, mail.Scheduled)
}

func (f *fakeStore) Resend(ctx context.Context, t mail.TenantID, id mail.ID, force bool) error {
	if v, err := f.message(t, id); err == nil && v.Status == mail.FailedUnknown && !force {
		return record.ErrMaybeSent
	}
	return f.turn(ctx, "Resend", t, id, mail.Queued, mail.Failed, mail.FailedUnknown, mail.Expired)
}

func (f *fakeStore) turn(ctx context.Context, method string, t mail.TenantID, id mail.ID, to mail.Status, from ...mail.Status) error {
	return f.act(ctx, method, func() error {
		v, err := f.message(t, id)
		if err != nil {
			return err
		}
		if !slices.Contains(from, v.Status) {
			return record.ErrConflict
		}
		turned := *v
		turned.Status = to
		f.messages[id] = &turned
		return nil
	})
}

func (f *fakeStore) note(actor, action, target string) {
	f.audit = append(f.audit, record.AuditEntry{
		ID: int64(len(f.audit) + 1), At: f.at, Actor: actor, Action: action, Target: target, Detail: json.RawMessage(`{}`),
	})
}

func (f *fakeStore) Note(ctx context.Context, actor, action, target string, detail any) error {
	return f.act(ctx, "Note", func() error {
		c := record.CallerOf(ctx)
		raw, err := json.Marshal(detail)
		f.audit = append(f.audit, record.AuditEntry{
			ID: int64(len(f.audit) + 1), At: f.at, Actor: actor, Name: c.Name, Address: c.Address, RequestID: c.RequestID, Action: action, Target: target, Detail: raw,
		})
		return err
	})
}

// AuditChain returns one link at a time.
func (f *fakeStore) AuditChain(ctx context.Context, after record.AuditPlace, _ int) (record.AuditChain, error) {
	return ask(ctx, f, "AuditChain", func() (record.AuditChain, error) {
		c := record.AuditChain{Next: record.AuditPlace{N: after.N + 1, ID: after.ID + 7}, More: after.N < 2}
		c.Links = []record.AuditLink{{N: c.Next.N, ID: c.Next.ID, Hash: make([]byte, 32), Content: "[]"}}
		if !c.More {
			c.Unlinked = []int64{after.ID}
		}
		return c, nil
	})
}

func (f *fakeStore) Queue(ctx context.Context) (record.QueueState, error) {
	return ask(ctx, f, "Queue", func() (record.QueueState, error) { return f.queue, nil })
}

func (f *fakeStore) LimitStates(ctx context.Context) ([]limit.State, error) {
	return ask(ctx, f, "LimitStates", func() ([]limit.State, error) { return f.limits, nil })
}

func (f *fakeStore) Series(ctx context.Context, q record.SeriesFilter) ([]record.Count, error) {
	return ask(ctx, f, "Series", func() ([]record.Count, error) {
		f.asked = q
		return f.counts, nil
	})
}

func (f *fakeStore) Audit(ctx context.Context, q record.AuditFilter) ([]record.AuditEntry, error) {
	return ask(ctx, f, "Audit", func() (out []record.AuditEntry, err error) {
		for _, e := range slices.Backward(f.audit) {
			if (q.Before == 0 || e.ID < q.Before) && (q.Target == "" || e.Target == q.Target) && len(out) < q.Limit {
				out = append(out, e)
			}
		}
		return out, nil
	})
}

// fakeKinds knows one kind, "ses", whose settings must have a region and whose api_key must be "good".
type fakeKinds struct{}

func (fakeKinds) Spec(k provider.Kind) (provider.Spec, bool) {
	return provider.Spec{
		Kind: "ses", Concurrency: 8, Secrets: []string{"api_key", "webhook_key"}, Guessable: []string{"webhook_key"},
		Settings:     map[string][]string{"region": nil, "number": nil, "webhook_public_keys": nil, "base_url": {"api_key", "webhook_key"}, "port": {"api_key"}},
		Capabilities: provider.Capabilities{MaxBytes: 1 << 20, MaxRecipients: 50}, Events: provider.EventSpec{Delivered: true},
	}, k == "ses"
}

func (fakeKinds) Validate(_ provider.Kind, settings []byte, secrets map[string]seal.Secret) error {
	var c struct{ Region string }
	if err := json.Unmarshal(settings, &c); err != nil || c.Region == "" {
		return fmt.Errorf("region is missing")
	}
	if secrets["api_key"].Reveal() != "good" {
		return fmt.Errorf("api_key is missing or not good")
	}
	return nil
}

func (fakeKinds) DocumentedLimits(provider.Kind) []limit.Window {
	return []limit.Window{{N: 100, Per: 5 * time.Minute, Unit: limit.Requests}}
}

func (fakeKinds) MessageIDHeader(kind provider.Kind, settings func() []byte, ours, providerID string) string {
	if kind == "ses" {
		return "<" + providerID + "@" + string(settings()) + ">"
	}
	return "<" + ours + ">"
}

// fakeRouter sends everything to the account "a" of pool default.
type fakeRouter struct{}

func (fakeRouter) Explain(r route.Request) route.Decision {
	return route.Decision{
		Config: 7, Pool: "default", Chosen: "a", Pinned: r.Facts.Account != "",
		Candidates: []route.Candidate{{Account: "a", Weight: 70}, {Account: "b", Weight: 30, Why: route.Why{Code: route.Paused, Reason: "paused by an operator"}}},
	}
}
