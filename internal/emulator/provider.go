package emulator

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// OurID is the name under which a sender gives its own message id: in custom_args, v:, Metadata, EmailTags and Resend's tags. At a
// provider that takes plain tags only, it is the beginning of a tag.
const OurID = "gw_msg"

// Kind describes a provider to the emulator. catalog.Kinds lists them all.
type Kind struct {
	Name        string
	SMTP        bool              // it has a listener for SMTP, its faults have a stage, and it reports by LMTP
	MaxBody     int64             // largest send request, in bytes
	Credentials map[string]string // what callers must send, by name; Options.Credentials replaces them
	HookFields  []string          // the fields that a Hook of this kind may have besides url

	Lookups   bool     // it has an API for look-ups of messages
	Partial   [2]int   // lowest and highest status of fault mode partial; zero if it lacks that mode
	HookModes []string // fault modes of events that no other kind has

	Batch        int  // most events in one request; 0 is one
	Grouped      bool // one event is about all recipients with the same outcome
	AcceptedOnce bool // one accepted event is about the whole message

	// Course lists what happens to a recipient with an outcome, in order. Nil means the function Course.
	Course func(outcome string) []EventType
	// Deliver makes the request of a post and returns the status of the answer. Nil means an HTTP POST.
	Deliver func(context.Context, *Post) (int, error)
	// New makes the provider of one emulator and adds its calls to the host.
	New func(*Host) (Provider, error)
}

// Provider is one provider of a running emulator: its texts and its checks. Its methods may be called concurrently.
type Provider interface {
	// Account returns what a service needs to send through this provider at the given address: a base URL, or host:port of
	// the SMTP side. The names are those of the account settings of sendgate.
	Account(at string) Account
	// Keys are the values that a receiver needs to check events, by the names that GET /_hooks shows.
	Keys() map[string]string

	// Authenticate returns the refusal of an invalid credential, or nil.
	Authenticate(r *http.Request, body []byte) *Reply
	// Throttled refuses a call because a window is full.
	Throttled(f *Full) *Reply
	// Failure is the provider's own answer with a status.
	Failure(status int) *Reply
	// Decorate adds the headers that the provider sends with every answer to an authenticated call.
	Decorate(p *Reply)

	// CompleteHook checks the fields of a hook and fills in missing ones with the provider's own keys.
	CompleteHook(h Hook) error
	// Registered lists the receivers that were registered by the provider's API and want an event; nil lists all of them.
	Registered(ev *Event) []*Target
	// Forget drops everything that was registered.
	Forget()
	// Compose fills header and body of a post.
	Compose(p *Post) error
	// Answered says whether the status of an answer means that the receiver has the post. If not, it returns the pauses before
	// the repetitions of such a post, in units of Options.RetryPace. Status 0 means no answer.
	Answered(p *Post, status int) (taken bool, pauses []int)
}

// Account holds the settings and secrets of an account at a provider.
type Account struct {
	Kind     string
	Settings map[string]any
	Secrets  map[string]string
}

// Host is the emulator's side for one provider.
type Host struct {
	*meter
	kind     *Kind
	e        *Emulator
	provider Provider
	queue    *hookQueue
	hook     *Target // of the operator; guarded by Emulator.hooks
}

// newHosts makes the providers. The calls of each are below its base URL.
func (e *Emulator) newHosts(kinds []Kind) error {
	for i := range kinds {
		k := &kinds[i]
		h := &Host{kind: k, e: e, meter: &meter{now: e.now}}
		h.queue = newHookQueue(h)
		e.hosts = append(e.hosts, h)
		p, err := k.New(h)
		if err != nil {
			return fmt.Errorf("emulator of %s: %w", k.Name, err)
		}
		h.provider = p
	}
	for name, windows := range e.opt.Limits {
		h, err := e.host(name)
		if err != nil {
			return fmt.Errorf("emulator limits: %w", err)
		}
		if err := h.limit(windows); err != nil {
			return fmt.Errorf("emulator limits for %s: %w", name, err)
		}
	}
	return nil
}

// host finds a provider. Its error lists the existing ones.
func (e *Emulator) host(name string) (*Host, error) {
	var names []string
	for _, h := range e.hosts {
		if h.kind.Name == name {
			return h, nil
		}
		names = append(names, h.kind.Name)
	}
	return nil, fmt.Errorf("provider %q is not one of %s", name, strings.Join(names, ", "))
}

// Handle adds an HTTP call, with a pattern of net/http whose path is below the provider's base URL.
func (h *Host) Handle(pattern string, handler http.Handler) {
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		method, path = "", pattern
	}
	h.HandleRoot(strings.TrimSpace(method+" /"+h.kind.Name+path), handler)
}

// HandleRoot adds an HTTP call whose path is below the root of the emulator.
func (h *Host) HandleRoot(pattern string, handler http.Handler) { h.e.mux.Handle(pattern, handler) }

// At is the address of the provider: its base URL, or host:port of the SMTP side.
func (h *Host) At() string {
	if h.kind.SMTP {
		return h.e.SMTPAddr()
	}
	return h.e.URL() + "/" + h.kind.Name
}

// Root is the URL of the emulator.
func (h *Host) Root() string { return h.e.URL() }

// Credential is the value that a caller must send, or "" if no value is right.
func (h *Host) Credential(name string) string {
	if own, ok := h.e.opt.Credentials[h.kind.Name]; ok {
		return own[name]
	}
	return h.kind.Credentials[name]
}

// Now is the current time.
func (h *Host) Now() time.Time { return h.e.now() }

// Log is the logger for a provider.
func (h *Host) Log() *slog.Logger { return h.e.log }

// Limits are the windows of the provider.
func (h *Host) Limits() []limit.Window { return h.e.opt.Limits[h.kind.Name] }

// Sent lists the messages of the provider that arrived at the given time or later.
func (h *Host) Sent(since time.Time) []Entry {
	return filterLedger(h.e.ledger.snapshot(), h.kind.Name, since, -1)
}

// Hold waits for d, or until Stop begins. It reports whether the whole time passed.
func (h *Host) Hold(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-h.e.stopping:
		return false
	}
}

// RandomHex is n random bytes in hexadecimal.
func RandomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// Same compares a given credential with the wanted one in constant time. An empty wanted one equals nothing.
func Same(shown, wanted string) bool {
	return wanted != "" && subtle.ConstantTimeCompare([]byte(shown), []byte(wanted)) == 1
}
