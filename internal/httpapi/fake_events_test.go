package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
)

// fakeEvents is the part of fakeStore that keeps events.
type fakeEvents struct {
	intakes     []record.Intake
	tokens      map[mail.ID][32]byte
	seen        map[mail.ID]bool // keys of events
	kept        int              // events
	events      []mail.Event     // oldest first; their position is their index + 1
	stats       []record.Stat
	statsAsked  []record.StatsFilter
	health      []record.HookHealth
	raw         []record.RawEvent
	reprojected []record.Reprojected
	dryRuns     int
}

// happen adds events to the list and the stream.
func (f *fakeStore) happen(events ...mail.Event) []mail.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range events {
		e := &events[i]
		e.ID, e.Position = mail.NewID(), strconv.Itoa(len(f.events)+1)
		if e.Tenant == 0 {
			e.Tenant = mail.DefaultTenant
		}
		if e.Source == "" {
			e.Source = mail.FromWebhook
		}
		f.events = append(f.events, *e)
	}
	return events
}

func (f *fakeStore) ReceiveEvents(ctx context.Context, in record.Intake) (record.Taken, error) {
	return ask(ctx, f, "ReceiveEvents", func() (t record.Taken, err error) {
		if in.Once != nil {
			if body, seen := f.tokens[in.Once.Token]; seen && body != in.Once.Body {
				return t, record.ErrReplayed
			}
			f.tokens[in.Once.Token] = in.Once.Body
		}
		f.intakes = append(f.intakes, in)
		for _, p := range in.Payloads {
			for i := range p.Events {
				f.take(in.Account, &p.Events[i], &t)
			}
		}
		return t, nil
	})
}

// take counts an event as the real store does. No message of this store was given to an account, unless it shows so.
func (f *fakeStore) take(account int32, e *mail.Event, t *record.Taken) {
	byID, byContent := e.Keys(account)
	v, known := f.messages[e.MessageID]
	switch {
	case f.seen[byID] || f.seen[byContent]:
		t.Duplicates++
		return
	case known && account != 0 && len(v.Attempts) == 0:
		t.Foreign++
	case !known && !e.MessageID.IsZero() && account != 0:
		t.Orphans++
		f.kept++
	default:
		t.Stored++
		f.kept++
	}
	if e.Type == mail.EventUnmapped {
		t.Unmapped++
	}
	f.seen[byID], f.seen[byContent] = true, true
}

func shows(q *record.EventFilter, e *mail.Event) bool {
	return e.Tenant == q.Tenant && (len(q.Types) == 0 || slices.Contains(q.Types, e.Type)) &&
		(q.MessageID.IsZero() || e.MessageID == q.MessageID) && (q.Recipient == "" || e.Recipient == q.Recipient) &&
		(q.Account == "" || e.Account == q.Account) && (q.Stream == "" || e.Stream == q.Stream)
}

func (f *fakeStore) Events(ctx context.Context, q record.EventFilter) ([]mail.Event, error) {
	return ask(ctx, f, "Events", func() (out []mail.Event, err error) {
		for _, e := range slices.Backward(f.events) {
			before := q.Before.IsZero() || bytes.Compare(e.ID[:], q.Before[:]) < 0
			in := (q.Since.IsZero() || !e.ID.Time().Before(q.Since)) && (q.Until.IsZero() || e.ID.Time().Before(q.Until))
			if before && in && shows(&q, &e) && len(out) < q.Limit {
				out = append(out, e)
			}
		}
		return out, nil
	})
}

func (f *fakeStore) EventHead(ctx context.Context) (string, error) {
	return ask(ctx, f, "EventHead", func() (string, error) { return strconv.Itoa(len(f.events)), nil })
}

func (f *fakeStore) EventsAfter(
	ctx context.Context, q record.EventFilter, position string, limit int,
) (out []mail.Event, next string, err error) {
	err = f.act(ctx, "EventsAfter", func() error {
		at, err := strconv.Atoi(position)
		if err != nil || at > len(f.events) {
			return record.ErrNotFound
		}
		end := min(at+limit, len(f.events))
		for _, e := range f.events[at:end] {
			if shows(&q, &e) {
				out = append(out, e)
			}
		}
		next = strconv.Itoa(end)
		return nil
	})
	return out, next, err
}

func (f *fakeStore) Stats(ctx context.Context, q record.StatsFilter) ([]record.Stat, error) {
	return ask(ctx, f, "Stats", func() ([]record.Stat, error) {
		f.statsAsked = append(f.statsAsked, q)
		return f.stats, nil
	})
}

func (f *fakeStore) HookHealth(ctx context.Context) ([]record.HookHealth, error) {
	return ask(ctx, f, "HookHealth", func() ([]record.HookHealth, error) { return f.health, nil })
}

func (f *fakeStore) RawEvents(ctx context.Context, account string, since time.Time, after mail.ID, limit int) ([]record.RawEvent, error) {
	return ask(ctx, f, "RawEvents", func() (out []record.RawEvent, err error) {
		for _, e := range f.raw {
			behind := bytes.Compare(e.Origin[:], after[:]) > 0
			if behind && (account == "" || e.Account == account) && !e.Origin.Time().Before(since) && len(out) < limit {
				out = append(out, e)
			}
		}
		return out, nil
	})
}

func (f *fakeStore) Reproject(ctx context.Context, in []record.Reprojected, dryRun bool) (changed, messages int, err error) {
	err = f.act(ctx, "Reproject", func() error {
		f.reprojected = append(f.reprojected, in...)
		if dryRun {
			f.dryRuns++
		}
		return nil
	})
	return len(in), len(in), err
}

type suppressionKey struct {
	tenant        mail.TenantID
	email, stream string
}

func (f *fakeStore) Suppress(ctx context.Context, s record.Suppression) error {
	return f.act(ctx, "Suppress", func() error {
		f.suppress(s.Tenant, s)
		return nil
	})
}

func (f *fakeStore) ImportSuppressions(ctx context.Context, t mail.TenantID, list []record.Suppression) (int64, error) {
	return ask(ctx, f, "ImportSuppressions", func() (added int64, err error) {
		for _, s := range list {
			added += f.suppress(t, s)
		}
		return added, nil
	})
}

// suppress returns 1 if the suppression is new or lasts longer than the one there was.
func (f *fakeStore) suppress(t mail.TenantID, s record.Suppression) int64 {
	s.Tenant, s.Email, s.By = t, strings.ToLower(s.Email), "" // the audit has who did it
	key := suppressionKey{t, s.Email, s.Stream}
	have, there := f.suppressions[key]
	longer := !have.ExpiresAt.IsZero() && (s.ExpiresAt.IsZero() || s.ExpiresAt.After(have.ExpiresAt))
	if there && !longer {
		return 0
	}
	f.suppressions[key] = s
	return 1
}

func (f *fakeStore) Unsuppress(ctx context.Context, _ string, t mail.TenantID, email string, complaints bool, streams ...string) error {
	return f.act(ctx, "Unsuppress", func() error {
		before := len(f.suppressions)
		hit := func(key suppressionKey, _ record.Suppression) bool {
			return key.tenant == t && key.email == strings.ToLower(email) && (streams == nil || slices.Contains(streams, key.stream))
		}
		for key, have := range f.suppressions {
			if hit(key, have) && have.Reason == "complaint" && !complaints {
				return record.ErrForbidden
			}
		}
		if maps.DeleteFunc(f.suppressions, hit); len(f.suppressions) == before {
			return record.ErrNotFound
		}
		return nil
	})
}

func (f *fakeStore) FindSuppressions(ctx context.Context, match, after record.Suppression, limit int) ([]record.Suppression, error) {
	byPlace := func(a, b record.Suppression) int {
		return cmp.Or(strings.Compare(a.Email, b.Email), strings.Compare(a.Stream, b.Stream))
	}
	return ask(ctx, f, "FindSuppressions", func() (out []record.Suppression, err error) {
		for _, s := range f.suppressions {
			if s.Tenant == match.Tenant && (match.Email == "" || s.Email == strings.ToLower(match.Email)) && (match.Stream == "" || s.Stream == match.Stream) &&
				(match.Reason == "" || s.Reason == match.Reason) && byPlace(s, after) > 0 {
				out = append(out, s)
			}
		}
		slices.SortFunc(out, byPlace)
		return out[:min(limit, len(out))], nil
	})
}

// fakeHooks are accounts of a provider that this test made up.
type fakeHooks struct {
	mu      sync.Mutex
	id      int32                           // of all of them
	parsers map[string]provider.EventParser // nil: not built
	current func(ctx context.Context) bool  // default: at once
}

func (f *fakeHooks) Hook(account string) (int32, provider.EventParser, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.parsers[account]
	return f.id, p, ok
}

func (f *fakeHooks) Current(ctx context.Context) bool { return f.current == nil || f.current(ctx) }

func (f *fakeHooks) set(account string, p provider.EventParser) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parsers[account] = p
}

// fakeParser reads requests whose header Sign is the MAC of the body, Stamp their time, Topic "ours", and Token one that
// may come with one body. The body has a line per event: type, recipient and message id.
type fakeParser struct {
	secret  string
	receive func(h *provider.Hook) (provider.Batch, error) // replaces what it does
}

var errQuoting = errors.New("a cause that quotes the request")

func (p *fakeParser) sign(body string) string {
	mac := hmac.New(sha256.New, []byte(p.secret))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

func (p *fakeParser) Receive(_ context.Context, h *provider.Hook) (provider.Batch, error) {
	if p.receive != nil {
		return p.receive(h)
	}
	refuse := func(status int, reason string) (provider.Batch, error) {
		return provider.Batch{}, &provider.HookError{Status: status, Reason: reason, Err: errQuoting}
	}
	if !hmac.Equal([]byte(h.Header.Get("Sign")), []byte(p.sign(string(h.Body)))) {
		return refuse(401, "signature")
	}
	if stamp := h.Header.Get("Stamp"); stamp != "" {
		at, err := time.Parse(time.RFC3339, stamp)
		if err != nil || at.After(h.Now.Add(10*time.Minute)) || at.Before(h.Now.Add(-25*time.Hour)) {
			return refuse(401, "timestamp")
		}
	}
	if topic := h.Header.Get("Topic"); topic != "" && topic != "ours" {
		return refuse(403, "topic")
	}
	b := provider.Batch{Payloads: []mail.Payload{{Raw: h.Body, Events: p.Parse(h.Body)}}}
	if token := h.Header.Get("Token"); token != "" {
		sum := sha256.Sum256([]byte(token))
		b.Once = &mail.Once{Token: mail.ID(sum[:16]), Body: sha256.Sum256(h.Body)}
	}
	return b, nil
}

func (*fakeParser) Parse(raw []byte) []mail.Event {
	var out []mail.Event
	for line := range strings.Lines(string(raw)) {
		f := append(strings.Fields(line), "", "", "")
		e := mail.Event{Type: mail.EventType(f[0]), Name: f[0], Recipient: f[1], At: time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)}
		if !slices.Contains(mail.EventTypes(), e.Type) {
			e.Type = mail.EventUnmapped
		}
		e.MessageID, _ = mail.ParseID(f[2])
		out = append(out, e)
	}
	return out
}

func (f *fakeStore) CountSubject(ctx context.Context, q record.SubjectQuery) (record.SubjectCount, error) {
	return ask(ctx, f, "CountSubject", func() (record.SubjectCount, error) {
		if q.Tenant == "nobody" {
			return record.SubjectCount{}, record.ErrNotFound
		}
		return record.SubjectCount{Messages: 3, Open: 1, Suppressions: 2, Events: 4, Accounts: []record.SubjectAccount{{Name: "ses-eu", Kind: "ses", Messages: 3}}}, nil
	})
}

// ExportSubject has two pages.
func (f *fakeStore) ExportSubject(ctx context.Context, actor string, q record.SubjectQuery) (rows []record.SubjectRow, next string, err error) {
	err = f.act(ctx, "ExportSubject", func() error {
		if q.Cursor == "" {
			f.note(actor, "subject.export", q.Address)
			next = "rest:"
		}
		rows = []record.SubjectRow{{Kind: "suppression", Row: json.RawMessage(`{"place":"` + q.Cursor + `"}`)}}
		return nil
	})
	return rows, next, err
}

// BeginErasure finds open messages to wait@example.org.
func (f *fakeStore) BeginErasure(ctx context.Context, actor string, q record.SubjectQuery, cancel bool) (int, error) {
	return ask(ctx, f, "BeginErasure", func() (int, error) {
		if q.Address == "wait@example.org" && !cancel {
			return 0, record.ErrConflict
		}
		f.note(actor, "subject.erase", q.Address)
		return 1, nil
	})
}

// EraseSubject has two steps.
func (f *fakeStore) EraseSubject(ctx context.Context, _ string, q record.SubjectQuery) (e record.Erased, next string, err error) {
	err = f.act(ctx, "EraseSubject", func() error {
		if q.Cursor == "" {
			e, next = record.Erased{Messages: 3, Open: 1}, "rest:"
			return nil
		}
		e = record.Erased{Events: 4}
		return nil
	})
	return e, next, err
}
