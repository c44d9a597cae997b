package providertest

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// EventSuite is what RunEvents needs to know of an adapter that gets events by HTTP.
type EventSuite struct {
	// Secrets are those with which requests are signed, or other proofs: the newest, the one before it, and one of a stranger. The
	// second is empty for a provider whose secret is never replaced.
	Secrets [3]string
	// New builds the adapter of an account with these secrets. An empty one is not set.
	New func(t *testing.T, newest, previous string) provider.EventParser
	// Sign makes the provider's request about a payload, with a secret, which may be empty.
	Sign func(t *testing.T, secret, payload string) *provider.Hook
	// Refused is the status that answers a wrong secret or none, and Unconfigured the one of an account without a secret. They make
	// the provider repeat the request, or stop.
	Refused, Unconfigured int
	// Readable is a payload with an event that has a word of ours.
	Readable string
	// Unreadable are payloads with none, each another one.
	Unreadable []string
}

// RunEvents checks what all adapters owe the engine about events: only authentic requests are taken, and all of what they say is
// kept. Signatures have their own forgeries at each provider; those are in the tests of its adapter.
func RunEvents(t *testing.T, s EventSuite) {
	t.Helper()
	for _, part := range []struct {
		name string
		run  func(*testing.T, EventSuite)
	}{
		{"authentic events are taken", authenticIsTaken},
		{"other requests are refused", othersAreRefused},
		{"an account without a secret takes nothing", nothingWithoutSecret},
		{"an unreadable payload is kept", unreadableIsKept},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			part.run(t, s)
		})
	}
}

// open builds the adapter of an account with both secrets.
func (s EventSuite) open(t *testing.T) provider.EventParser {
	t.Helper()
	return s.New(t, s.Secrets[0], s.Secrets[1])
}

// taken receives a request, and returns the events in it. A stored payload must read the same later.
func taken(t *testing.T, p provider.EventParser, h *provider.Hook) []mail.Payload {
	t.Helper()
	if c, ok := p.(provider.HeaderChecker); ok {
		if err := c.CheckHeader(h.Header, h.Now); err != nil {
			t.Errorf("CheckHeader = %v, want the request of %q passed on", err, h.Body)
		}
	}
	b, err := p.Receive(t.Context(), h)
	if err != nil {
		t.Errorf("Receive of %q = %v, want it taken", h.Body, err)
	}
	for _, payload := range b.Payloads {
		if diff := cmp.Diff(payload.Events, p.Parse(payload.Raw)); diff != "" {
			t.Errorf("Parse reads the payload %q otherwise (-received +parsed):\n%s", payload.Raw, diff)
		}
	}
	return b.Payloads
}

func authenticIsTaken(t *testing.T, s EventSuite) {
	t.Helper()
	p := s.open(t)
	for i, secret := range s.Secrets[:2] {
		if i == 1 && secret == "" {
			continue
		}
		payloads := taken(t, p, s.Sign(t, secret, s.Readable))
		if len(payloads) != 1 || len(payloads[0].Events) == 0 || payloads[0].Events[0].Type == mail.EventUnmapped {
			t.Errorf("secret %d: %+v, want one payload with an event that has a word of ours", i, payloads)
		}
	}
}

func othersAreRefused(t *testing.T, s EventSuite) {
	t.Helper()
	alone, both := s.New(t, s.Secrets[0], ""), s.open(t)
	authentic := s.Sign(t, s.Secrets[0], s.Readable)
	unsigned := func(body string) *provider.Hook {
		return &provider.Hook{Header: http.Header{}, Body: []byte(body), Now: authentic.Now}
	}
	for name, h := range map[string]*provider.Hook{
		"a stranger's secret": s.Sign(t, s.Secrets[2], s.Readable),
		"an empty secret":     s.Sign(t, "", s.Readable),
		"no signature":        unsigned(s.Readable),
		"nothing":             unsigned(""),
	} {
		s.wantRefused(t, name, alone, h, s.Refused)
		s.wantRefused(t, name+", with two secrets", both, h, s.Refused)
	}
	if previous := s.Secrets[1]; previous != "" {
		s.wantRefused(t, "a previous secret that is gone", alone, s.Sign(t, previous, s.Readable), s.Refused)
	}
}

func nothingWithoutSecret(t *testing.T, s EventSuite) {
	t.Helper()
	p := s.New(t, "", "")
	for name, secret := range map[string]string{"an empty secret": "", "a secret that is not set": s.Secrets[0]} {
		h := s.Sign(t, secret, s.Readable)
		s.wantRefused(t, name, p, h, s.Unconfigured)
		_, err := p.Receive(t.Context(), h)
		if refused, ok := errors.AsType[*provider.HookError](err); ok && refused.Reason != "unconfigured" {
			t.Errorf("%s: reason %s, want unconfigured", name, refused.Reason)
		}
	}
}

// wantRefused checks that a request is refused, that nothing comes with the refusal, and that it tells nothing of the request.
func (s EventSuite) wantRefused(t *testing.T, name string, p provider.EventParser, h *provider.Hook, status int) {
	t.Helper()
	b, err := p.Receive(t.Context(), h)
	refused, ok := errors.AsType[*provider.HookError](err)
	switch {
	case !ok:
		t.Errorf("%s: %+v, %v, want a *HookError", name, b, err)
	case refused.Status != status || refused.Reason == "":
		t.Errorf("%s: %d, reason %q, want %d with a reason", name, refused.Status, refused.Reason, status)
	case len(b.Payloads) > 0:
		t.Errorf("%s: payloads come with the refusal", name)
	}
	for _, secret := range s.Secrets {
		if secret != "" && err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), s.Readable)) {
			t.Errorf("%s: the refusal quotes a secret or the request: %v", name, err)
		}
	}
}

// unreadableIsKept checks that an authentic payload without an event of ours is one unmapped event, which differs from others: the
// engine takes equal events for repetitions.
func unreadableIsKept(t *testing.T, s EventSuite) {
	t.Helper()
	p := s.open(t)
	seen := map[string]bool{}
	for _, payload := range s.Unreadable {
		got := taken(t, p, s.Sign(t, s.Secrets[0], payload))
		if len(got) != 1 || len(got[0].Events) != 1 || got[0].Events[0].Type != mail.EventUnmapped || !strings.Contains(string(got[0].Raw), payload) {
			t.Errorf("payload %q: %+v, want it whole, with one unmapped event", payload, got)
			continue
		}
		e := got[0].Events[0]
		if word := e.Name + " " + e.Detail; seen[word] {
			t.Errorf("payload %q: another one has the same event, %s", payload, word)
		} else {
			seen[word] = true
		}
	}
}

// CheckStorable looks for bytes that Postgres does not take, for fields that exceed their cap, and for a time that is far away.
func CheckStorable(t *testing.T, e *mail.Event) {
	t.Helper()
	texts := []string{e.Name, e.UniqueID, e.ProviderMessageID, e.Recipient, e.Detail}
	if e.Bounce != nil {
		texts = append(texts, e.Bounce.Text, e.Bounce.Code, e.Bounce.Enhanced)
		if e.Bounce.Class != e.Bounce.Reason.Class() || e.Bounce.Reason == "" {
			t.Errorf("bounce = %+v", e.Bounce)
		}
	}
	for _, s := range append(texts, e.URL) {
		if strings.ContainsRune(s, 0) || strings.ToValidUTF8(s, "") != s || len(s) > 2000 {
			t.Errorf("text %q can't be stored", s)
		}
	}
	for _, s := range texts {
		if len(s) > provider.MaxDetail {
			t.Errorf("text of %d bytes", len(s))
		}
	}
	if y := e.At.Year(); !e.At.IsZero() && (y < 1970 || y > 2242) {
		t.Errorf("at %s", e.At)
	}
}
