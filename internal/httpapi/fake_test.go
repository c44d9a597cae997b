package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
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

// fakeStore keeps everything in memory and obeys the contract of Store. With fail set, every method answers with it
// and changes nothing.
type fakeStore struct {
	mu        sync.Mutex
	fail      error
	failing   string // method
	failsFrom int
	failure   error
	calls     map[string]int // by method, of those that tests count

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
	at           time.Time

	fakeEvents
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
		secrets: map[string]map[string]seal.Secret{}, at: now,
		tenants: []record.Tenant{{ID: mail.DefaultTenant, Name: "default", Weight: 100, CreatedAt: now}},
		config: route.Config{Version: 1, Pools: []route.Pool{
			{ID: 1, Name: route.DefaultPool, Overflow: route.Spill, Version: 1},
		}},
	}
}

// enter locks, counts the call and gives the failure that is set.
func (f *fakeStore) enter(method string) (func(), error) {
	f.mu.Lock()
	f.calls[method]++
	if f.failing == method && f.calls[method] >= f.failsFrom {
		return f.mu.Unlock, f.failure
	}
	return f.mu.Unlock, f.fail
}

// failFrom makes one method fail from its nth call on.
func (f *fakeStore) failFrom(method string, n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing, f.failsFrom, f.failure = method, n, err
}

func (f *fakeStore) count(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

func (f *fakeStore) failWith(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
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

func (f *fakeStore) Accept(_ context.Context, s *record.Submission) (record.Accepted, error) {
	done, err := f.enter("Accept")
	defer done()
	if err != nil {
		return record.Accepted{}, err
	}
	return f.accept(s)
}

func (f *fakeStore) AcceptAll(_ context.Context, subs []*record.Submission) ([]record.Accepted, []error) {
	done, fail := f.enter("AcceptAll")
	defer done()
	accepted, errs := make([]record.Accepted, len(subs)), make([]error, len(subs))
	for i, s := range subs {
		if errs[i] = fail; fail == nil {
			accepted[i], errs[i] = f.accept(s)
		}
	}
	return accepted, errs
}

func (f *fakeStore) Replay(_ context.Context, s *record.Submission) (record.Accepted, error) {
	done, err := f.enter("Replay")
	defer done()
	if err != nil {
		return record.Accepted{}, err
	}
	if _, ok := f.idempotency[fmt.Sprint(s.Message.Tenant, "/", s.Key)]; !ok {
		return record.Accepted{}, record.ErrNotFound
	}
	return f.accept(s)
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

func (f *fakeStore) Message(_ context.Context, t mail.TenantID, id mail.ID) (*record.View, error) {
	done, err := f.enter("Message")
	defer done()
	if err != nil {
		return nil, err
	}
	return f.message(t, id)
}

func (f *fakeStore) Waiting(_ context.Context, id mail.ID) (*queue.Waiting, error) {
	done, err := f.enter("Waiting")
	defer done()
	if err != nil {
		return nil, err
	}
	v := f.messages[id]
	if v == nil {
		return nil, record.ErrNotFound
	}
	facts := v.Message.Facts()
	return &queue.Waiting{Facts: &facts}, nil
}

func (f *fakeStore) message(t mail.TenantID, id mail.ID) (*record.View, error) {
	v, ok := f.messages[id]
	if !ok || v.Message.Tenant != t {
		return nil, record.ErrNotFound
	}
	return v, nil
}

func (f *fakeStore) Messages(_ context.Context, q record.Filter) ([]record.View, error) {
	done, err := f.enter("Messages")
	defer done()
	if err != nil {
		return nil, err
	}
	var out []record.View
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
}

func matches(v *record.View, q record.Filter) bool {
	m := v.Message
	to := q.To == "" || slices.ContainsFunc(v.Recipients, func(r mail.Recipient) bool { return r.Address.Email == q.To })
	return to && m.Tenant == q.Tenant && (q.Status == "" || v.Status == q.Status) &&
		(q.From == "" || m.From.Email == q.From) && (q.Stream == "" || m.Stream == q.Stream) &&
		(q.Account == "" || m.Account == q.Account) && (q.Tag == "" || slices.Contains(m.Tags, q.Tag)) &&
		(q.Since.IsZero() || !m.CreatedAt.Before(q.Since)) && (q.Until.IsZero() || m.CreatedAt.Before(q.Until))
}

func (f *fakeStore) Cancel(_ context.Context, t mail.TenantID, id mail.ID) error {
	return f.turn("Cancel", t, id, mail.Cancelled, mail.Queued, mail.Scheduled)
}

func (f *fakeStore) Resend(_ context.Context, t mail.TenantID, id mail.ID, force bool) error {
	if v, err := f.message(t, id); err == nil && v.Status == mail.FailedUnknown && !force {
		return record.ErrMaybeSent
	}
	return f.turn("Resend", t, id, mail.Queued, mail.Failed, mail.FailedUnknown, mail.Expired)
}

func (f *fakeStore) turn(method string, t mail.TenantID, id mail.ID, to mail.Status, from ...mail.Status) error {
	done, err := f.enter(method)
	defer done()
	if err != nil {
		return err
	}
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
}

func (f *fakeStore) KeyByID(_ context.Context, id string) (*record.Key, error) {
	done, err := f.enter("KeyByID")
	defer done()
	if err != nil {
		return nil, err
	}
	k, ok := f.keys[id]
	if !ok {
		return nil, record.ErrNotFound
	}
	for _, t := range f.tenants {
		k.TenantPaused = k.TenantPaused || t.ID == k.Tenant && t.Paused
	}
	return &k, nil
}

func (f *fakeStore) KeyIDs(context.Context) ([]string, error) {
	done, err := f.enter("KeyIDs")
	defer done()
	var out []string
	for id, k := range f.keys {
		if k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || k.ExpiresAt.After(f.at)) {
			out = append(out, id)
		}
	}
	return out, err
}

func (f *fakeStore) TouchKey(_ context.Context, id string) error {
	done, err := f.enter("TouchKey")
	defer done()
	k := f.keys[id]
	k.LastUsedAt = f.at
	f.keys[id] = k
	return err
}

func (f *fakeStore) Keys(context.Context) ([]record.Key, error) {
	done, err := f.enter("Keys")
	defer done()
	var out []record.Key
	for _, k := range f.keys {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b record.Key) int { return strings.Compare(a.ID, b.ID) })
	return out, err
}

func (f *fakeStore) CreateKey(_ context.Context, actor string, k record.Key) error {
	done, err := f.enter("CreateKey")
	defer done()
	if err == nil {
		f.keys[k.ID] = k
		f.note(actor, "key.create", k.ID)
	}
	return err
}

func (f *fakeStore) RevokeKey(_ context.Context, actor, id string) error {
	done, err := f.enter("RevokeKey")
	defer done()
	if err != nil {
		return err
	}
	k, ok := f.keys[id]
	if !ok {
		return record.ErrNotFound
	}
	k.RevokedAt = f.at
	f.keys[id] = k
	f.note(actor, "key.revoke", id)
	return nil
}

func (f *fakeStore) note(actor, action, target string) {
	f.audit = append(f.audit, record.AuditEntry{
		ID: int64(len(f.audit) + 1), At: f.at, Actor: actor, Action: action, Target: target, Detail: json.RawMessage(`{}`),
	})
}

func (f *fakeStore) Tenants(context.Context) ([]record.Tenant, error) {
	done, err := f.enter("Tenants")
	defer done()
	return slices.Clone(f.tenants), err
}

func (f *fakeStore) CreateTenant(_ context.Context, actor string, t record.Tenant) (record.Tenant, error) {
	done, err := f.enter("CreateTenant")
	defer done()
	if err != nil {
		return record.Tenant{}, err
	}
	if slices.ContainsFunc(f.tenants, func(have record.Tenant) bool { return have.Name == t.Name }) {
		return record.Tenant{}, record.ErrConflict
	}
	t.ID, t.CreatedAt = mail.TenantID(len(f.tenants)+1), f.at
	f.tenants = append(f.tenants, t)
	f.note(actor, "tenant.create", t.Name)
	return t, nil
}

func (f *fakeStore) UpdateTenant(_ context.Context, actor, name string, weight int, paused bool) error {
	done, err := f.enter("UpdateTenant")
	defer done()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(f.tenants, func(t record.Tenant) bool { return t.Name == name })
	if i < 0 {
		return record.ErrNotFound
	}
	f.tenants[i].Weight, f.tenants[i].Paused = weight, paused
	f.note(actor, "tenant.update", name)
	return nil
}

func (f *fakeStore) Queue(context.Context) (record.QueueState, error) {
	done, err := f.enter("Queue")
	defer done()
	return f.queue, err
}

func (f *fakeStore) LimitStates(context.Context) ([]limit.State, error) {
	done, err := f.enter("LimitStates")
	defer done()
	return f.limits, err
}

func (f *fakeStore) Audit(_ context.Context, q record.AuditFilter) ([]record.AuditEntry, error) {
	done, err := f.enter("Audit")
	defer done()
	var out []record.AuditEntry
	for _, e := range slices.Backward(f.audit) {
		if (q.Before == 0 || e.ID < q.Before) && (q.Target == "" || e.Target == q.Target) && len(out) < q.Limit {
			out = append(out, e)
		}
	}
	return out, err
}

func (f *fakeStore) Ping(context.Context) error {
	done, err := f.enter("Ping")
	defer done()
	return err
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
