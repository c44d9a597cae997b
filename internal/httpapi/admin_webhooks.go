package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// Registrars finds the provider.Registrar of an account, which makes a provider send its events to us.
type Registrars interface {
	// Registrar returns the account's registrar. It returns false if the adapter is not built or the provider has no API for
	// this.
	Registrar(account string) (provider.Registrar, bool)
}

// noRegistrars knows no registrar.
type noRegistrars struct{}

// Registrar implements Registrars.
func (noRegistrars) Registrar(string) (provider.Registrar, bool) { return nil, false }

const (
	registerTimeout = 20 * time.Second // for one round at the provider
	settleTimeout   = 5 * time.Second  // until the running configuration has the stored settings
	settlePoll      = 100 * time.Millisecond
	silence         = time.Hour
	maxURL          = 2048
)

// getAccountWebhooks shows the state of an account's receiver.
func (s *Server) getAccountWebhooks(r *http.Request) (out api.AccountWebhooks, err error) {
	a, err := s.account(r)
	if err != nil {
		return out, err
	}
	all, err := s.store.HookHealth(r.Context())
	h := record.HookHealth{}
	for i := range all {
		if all[i].Account == a.Name {
			h = all[i]
		}
	}
	spec, _ := s.kinds.Spec(a.Kind)
	return api.AccountWebhooks{
		Account: a.Name, Path: hookPath(a.Name), LastEventAt: optional(h.LastEvent), Events: h.Events, Refused: h.Refused,
		LastRefusedAt: optional(h.LastRefused), LastRefusal: h.LastRefusal, LastSentAt: optional(h.LastSent),
		Silent: spec.Events.Delivered && silent(&h, a.CreatedAt, s.clock()),
	}, err
}

func hookPath(account string) string { return "/hooks/" + account }

// silent reports whether events are missing: a call was accepted after the last event (or after created, if there is none),
// and it came an hour after that event, or an hour has passed since the call. An event and the record of its call may be a
// minute out of order.
func silent(h *record.HookHealth, created, now time.Time) bool {
	last := h.LastEvent
	if last.IsZero() {
		last = created
	}
	if h.LastSent.IsZero() || !h.LastSent.After(last.Add(time.Minute)) {
		return false
	}
	return h.LastSent.Sub(last) >= silence || now.Sub(h.LastSent) >= silence
}

// registerWebhooks has the account's adapter set up our URL at its provider. The results, such as the provider's signing key,
// are stored with the account.
func (s *Server) registerWebhooks(r *http.Request, in api.AccountWebhooksRequest) (out api.AccountWebhooksResult, err error) {
	base, err := hookBase(in.URL)
	if err != nil {
		return out, err
	}
	a, err := s.account(r)
	if err != nil {
		return out, err
	}
	if err := s.ownURL(r, base, a.Kind); err != nil {
		return out, err
	}
	out.URL = base + hookPath(a.Name)
	again, err := s.registerOnce(r, a.Name, &out)
	if err == nil && again {
		_, err = s.registerOnce(r, a.Name, &out)
	}
	if len(out.Done) > 0 {
		err = afterStore(err)
	}
	return out, err
}

// hookBase checks the base URL. It must be https; http is allowed only to this machine, for emulators.
func hookBase(raw string) (string, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || len(raw) > maxURL || u.Host == "" || u.Opaque != "" || !clean(raw):
		return "", invalid("url", "invalid_url", "must be the https URL at which the provider reaches this service")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", invalid("url", "invalid_url", "must have no user, query or fragment")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return "", invalid("url", "not_https", "must begin with https://")
	}
	return strings.TrimRight(raw, "/"), nil
}

// ownURL refuses a URL that may not be ours, where the provider is given a password to use there. Otherwise an admin key that
// may not read secrets could have the password sent to another address. Ours is SENDGATE_PUBLIC_URL, and on this machine the
// port that took this request.
func (s *Server) ownURL(r *http.Request, base string, kind provider.Kind) error {
	spec, _ := s.kinds.Spec(kind)
	if len(spec.Guessable) == 0 {
		return nil
	}
	theirs, err := url.Parse(base)
	if err != nil {
		return invalid("url", "invalid_url", "must be the https URL at which the provider reaches this service")
	}
	local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	switch ours, err := url.Parse(s.publicURL); {
	case loopback(theirs.Hostname()) && local != nil && portOf(theirs) == strconv.Itoa(local.Port):
		return nil
	case s.publicURL == "":
		return invalid("url", "foreign_url", "needs SENDGATE_PUBLIC_URL: the provider gets the account's password, to use at that address only")
	case err != nil || !strings.EqualFold(ours.Hostname(), theirs.Hostname()) || portOf(ours) != portOf(theirs):
		return invalid("url", "foreign_url", "must be at SENDGATE_PUBLIC_URL ("+ours.Host+"): the provider gets the account's password, to use there")
	}
	return nil
}

// portOf returns the port of a URL, by its scheme if it names none.
func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// registerOnce makes one round: it calls the provider and stores the results. If the adapter wants another round, it waits
// until the adapter has the stored results, since its provider may call us to check.
func (s *Server) registerOnce(r *http.Request, account string, out *api.AccountWebhooksResult) (again bool, err error) {
	registrar, ok := s.registrars.Registrar(account)
	if !ok {
		return false, refuse(http.StatusConflict, "no_registration",
			"There is no API for this at the provider, or the account is not running. Give it this URL by hand: "+out.URL)
	}
	ctx, cancel := context.WithTimeout(r.Context(), registerTimeout)
	defer cancel()
	made, err := registrar.Register(ctx, out.URL)
	if err != nil {
		return false, providerRefusal(err)
	}
	out.Done, out.Steps = append(out.Done, made.Done...), append(out.Steps, made.Steps...)
	if len(made.Settings) == 0 && len(made.Secrets) == 0 {
		return made.Again, nil
	}
	_, before, _ := s.hooks.Hook(account)
	if err := s.keepRegistration(r, account, made); err != nil {
		return false, err
	}
	if made.Again {
		return true, s.settled(ctx, account, before)
	}
	return false, nil
}

// providerRefusal is a 502 with the provider's answer to our call.
func providerRefusal(err error) error {
	var e *provider.Error
	if !errors.As(err, &e) {
		return err
	}
	return &refusal{
		status: http.StatusBadGateway, code: "provider_refused", detail: "The provider did not do it: " + e.Error(),
		retryAfter: e.RetryAfter, cause: err,
	}
}

// keepRegistration stores the settings and secrets of a registration over those that the account has now.
func (s *Server) keepRegistration(r *http.Request, account string, made provider.Registration) error {
	a, err := s.accountNamed(r, account)
	if err != nil {
		return err
	}
	if err := mergeSettings(a, made.Settings); err != nil {
		return err
	}
	secrets := make(map[string]seal.Secret, len(made.Secrets))
	for name, value := range made.Secrets {
		secrets[name] = seal.NewSecret(value)
	}
	return s.updateAccount(r, a, secrets)
}

// mergeSettings sets more fields in the settings of an account.
func mergeSettings(a *route.Account, more map[string]any) error {
	fields := map[string]json.RawMessage{}
	if len(a.Settings) > 0 {
		if err := json.Unmarshal(a.Settings, &fields); err != nil {
			return err
		}
	}
	for name, value := range more {
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		fields[name] = raw
	}
	merged, err := json.Marshal(fields)
	a.Settings = merged
	return err
}

// settled waits until the adapter was rebuilt with the stored settings.
func (s *Server) settled(ctx context.Context, account string, before provider.EventParser) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		if _, now, _ := s.hooks.Hook(account); now != nil && now != before {
			return nil
		}
		if !wait(ctx, settlePoll) {
			return &record.Unavailable{Reason: "not_ready", RetryAfter: 2 * time.Second, Err: errNotSettled}
		}
	}
}

var errNotSettled = errors.New("what the registration stored is not in force yet: the call can be repeated")

const (
	defaultReproject = 500
	maxReproject     = 1000
)

// reproject parses one page of kept payloads again with the present parser, and rebuilds what follows from their events.
func (s *Server) reproject(r *http.Request, in api.ReprojectRequest) (out api.ReprojectResult, err error) {
	in.Limit = cmp.Or(in.Limit, defaultReproject)
	if in.Limit < 1 || in.Limit > maxReproject {
		return out, invalid("limit", "out_of_range", "must be 1 to 1000")
	}
	l := listing{name: "reproject", filter: in.Account + "\n" + in.Since.UTC().Format(timeFormat)}
	after, err := cursorAt(s.cursors, l, in.Cursor, mail.ParseID)
	if err != nil {
		return out, err
	}
	if err := s.knownAccount(r, in.Account); err != nil {
		return out, err
	}
	raw, err := s.store.RawEvents(r.Context(), in.Account, in.Since, after, in.Limit)
	if err != nil {
		return out, err
	}
	out.Payloads = len(raw)
	if len(raw) == in.Limit {
		out.Cursor = s.cursors.seal(l, raw[len(raw)-1].Origin.String())
	}
	parsed := s.reread(raw)
	for _, p := range parsed {
		out.Events += len(p.Events)
	}
	out.Changed, out.Messages, err = s.store.Reproject(r.Context(), parsed, in.DryRun)
	return out, err
}

// knownAccount refuses an unknown account name: it would select no payloads and look like success.
func (s *Server) knownAccount(r *http.Request, name string) error {
	if name == "" {
		return nil
	}
	cfg, err := s.store.Config(r.Context())
	if err == nil && cfg.Account(name) == nil {
		return invalid("account", "unknown_account", "is not the name of an account")
	}
	return err
}

// reread parses payloads with the accounts' present adapters. Payloads of an account without an adapter are left out, so their
// events stay as they are.
func (s *Server) reread(raw []record.RawEvent) []record.Reprojected {
	out := make([]record.Reprojected, 0, len(raw))
	for _, p := range raw {
		if _, parser, _ := s.hooks.Hook(p.Account); parser != nil {
			out = append(out, record.Reprojected{Origin: p.Origin, Events: parser.Parse(p.Raw)})
		}
	}
	return out
}
