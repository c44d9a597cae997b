package deliver

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
	"github.com/sendgate/sendgate/internal/telemetry"
	"github.com/sendgate/sendgate/internal/unsub"
)

func TestWhatALookupProves(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	slow := provider.LookupSpec{Works: true, Settled: 30 * time.Minute, Kept: day}
	for _, tc := range []struct {
		spec   provider.LookupSpec
		found  bool
		waited time.Duration
		age    time.Duration
		want   lookupResult
	}{
		{slow, true, 0, 0, lookupFound},
		{slow, false, 29 * time.Minute, time.Hour, lookupUnclear},
		{slow, false, 30 * time.Minute, time.Hour, lookupAbsent},
		{slow, false, 30 * time.Minute, day, lookupAbsent},
		{slow, false, 30 * time.Minute, day + 1, lookupUnclear}, // it may have been forgotten
		{slow, true, 30 * time.Minute, 2 * day, lookupFound},
		{provider.LookupSpec{Works: true, Settled: time.Minute}, false, time.Hour, 99 * day, lookupAbsent}, // kept for good
		{provider.LookupSpec{Works: true}, false, 24 * time.Hour, day, lookupUnclear},                      // absence is never proof there
	} {
		if got := verdictOf(tc.spec, tc.found, tc.waited, tc.age); got != tc.want {
			t.Errorf("verdictOf(%+v, %v, %s, %s) = %s, want %s", tc.spec, tc.found, tc.waited, tc.age, got, tc.want)
		}
	}
}

// lookupStore notes what the engine does about one look-up.
type lookupFake struct {
	fakeStore
	due  []record.Lookup
	said []string
}

func (s *lookupFake) DueLookups(context.Context, []time.Duration, []int32, int) ([]record.Lookup, error) {
	return s.due, nil
}

func (s *lookupFake) ReturnLookup(_ context.Context, _ mail.ID, _ int, repeat bool, _ time.Duration) error {
	s.said = append(s.said, map[bool]string{true: "again", false: "next"}[repeat])
	return nil
}

func (s *lookupFake) Resolve(_ context.Context, v record.Verdict) (bool, error) {
	s.said = append(s.said, map[bool]string{true: "found", false: "absent"}[v.Found])
	return true, nil
}

// findingProvider answers look-ups.
type findingProvider struct {
	fakeProvider
	asked *provider.Query
	found provider.Finding
	err   error
}

func (p *findingProvider) Find(_ context.Context, q *provider.Query) (provider.Finding, error) {
	p.asked = q
	return p.found, p.err
}

func TestLookupsSettleOrComeAgain(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		found  provider.Finding
		err    error
		waited time.Duration
		want   []string
	}{
		"found":                  {found: provider.Finding{Found: true}, want: []string{"found"}},
		"not found yet":          {waited: time.Minute, want: []string{"next"}},
		"not found for long":     {waited: time.Hour, want: []string{"absent"}},
		"throttled":              {err: &provider.Error{Class: provider.Throttled}, waited: time.Hour, want: []string{"again"}},
		"broken":                 {err: errors.New("reset"), waited: time.Hour, want: []string{"again"}},
		"may not ask there":      {err: &provider.Error{Class: provider.Misconfigured}, waited: time.Hour, want: nil},
		"error although 'found'": {found: provider.Finding{Found: true}, err: errors.New("cut"), want: []string{"again"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := &lookupFake{due: []record.Lookup{{ID: mail.NewID(), N: 1, Account: 7, Sender: "shop@example.com", Waited: tc.waited}}}
			store.secrets = func() error { return nil }
			p := &findingProvider{found: tc.found, err: tc.err}
			e, err := New(Options{
				Store: store, Log: slog.New(slog.DiscardHandler), Metrics: telemetry.New(telemetry.NewRegistry()),
				Build: func(provider.Kind, []byte, map[string]seal.Secret) (provider.Provider, provider.Capabilities, error) {
					return p, provider.Capabilities{}, nil
				},
				Spec: func(provider.Kind) (provider.Spec, bool) {
					return provider.Spec{Lookup: provider.LookupSpec{Works: true, Settled: 30 * time.Minute}}, true
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			loadConfig(t, e)
			if err := e.lookUpDue(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, store.said); diff != "" {
				t.Errorf("the store was told (-want +got):\n%s", diff)
			}
			if want := store.due[0].ID.String() + "@example.com"; p.asked.InternetID != want {
				t.Errorf("asked for %s, want %s", p.asked.InternetID, want)
			}
		})
	}
}

type fixedUnsubscriber struct{ got unsub.Token }

func (u *fixedUnsubscriber) Headers(t unsub.Token) []mail.Header {
	u.got = t
	return []mail.Header{{Name: "List-Unsubscribe", Value: "<https://x/u/T>"}, {Name: "List-Unsubscribe-Post", Value: "List-Unsubscribe=One-Click"}}
}

func TestBulkMailToOneGetsAnUnsubscribeLink(t *testing.T) {
	t.Parallel()
	u := &fixedUnsubscriber{}
	e := &Engine{Options: Options{Unsubscribe: u}}
	one := []mail.Recipient{{Address: mail.Address{Email: "ann@example.org"}}}
	m := &mail.Message{ID: mail.NewID(), Tenant: 3, Stream: "bulk", Headers: []mail.Header{{Name: "X-A", Value: "1"}}}
	got := e.withUnsubscribe(m, one)
	if len(got.Headers) != 3 || len(m.Headers) != 1 {
		t.Errorf("headers = %v, and of the message itself %v", got.Headers, m.Headers)
	}
	if diff := cmp.Diff(unsub.Token{Tenant: 3, Stream: "bulk", Message: m.ID, Email: "ann@example.org"}, u.got); diff != "" {
		t.Errorf("token (-want +got):\n%s", diff)
	}
	half := *m
	half.Headers = []mail.Header{{Name: "list-unsubscribe-post", Value: "x"}, {Name: "X-A", Value: "1"}}
	if got := e.withUnsubscribe(&half, one); len(got.Headers) != 3 || got.Headers[0].Name != "X-A" {
		t.Errorf("headers beside a List-Unsubscribe-Post of the sender's = %v, want that one replaced", got.Headers)
	}
	own := *m
	own.Headers = []mail.Header{{Name: "list-unsubscribe", Value: "<mailto:x@example.com>"}}
	other := *m
	other.Stream = "transactional"
	for name, tc := range map[string]struct {
		m  *mail.Message
		to []mail.Recipient
	}{"own header": {&own, one}, "transactional": {&other, one}, "two recipients": {m, append(one, one...)}} {
		if got := e.withUnsubscribe(tc.m, tc.to); got != tc.m {
			t.Errorf("%s: headers = %v", name, got.Headers)
		}
	}
}
