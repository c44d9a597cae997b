package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// AccountStore keeps accounts, and gives the routing configuration that they are part of.
type AccountStore interface {
	// Config reads the whole routing configuration from the database. Capabilities may be empty: then those of the kind hold.
	Config(ctx context.Context) (*route.Config, error)
	// Secrets opens the secrets of an account, so that a change of its settings can be validated with them. If some do not open,
	// it returns the others with seal.ErrSealed. Handlers pass secrets to Kinds.Validate and nowhere else.
	Secrets(ctx context.Context, account int32) (map[string]seal.Secret, error)
	CreateAccount(ctx context.Context, actor string, a route.Account, secrets map[string]seal.Secret) error
	// UpdateAccount stores settings, concurrency and the given secrets; other secrets stay. It also ends the account's parks.
	UpdateAccount(ctx context.Context, actor string, a route.Account, secrets map[string]seal.Secret) error
	SetLimits(ctx context.Context, actor, account string, windows []limit.Window) error
	PauseAccount(ctx context.Context, actor, account string) error
	ResumeAccount(ctx context.Context, actor, account string) error // unpauses and clears parks
	DeleteAccount(ctx context.Context, actor, account string) error // drains first
}

const (
	minConcurrency = 1
	maxConcurrency = 1000
	maxSecret      = 16 << 10 // bytes: a PEM key fits
	maxWindows     = 10
)

// validName reports whether a name has the form of the names of accounts, pools and tenants.
func validName(name string) bool {
	return name != "" && len(name) <= 40 && only(name[:1], "abcdefghijklmnopqrstuvwxyz") &&
		only(name, "abcdefghijklmnopqrstuvwxyz0123456789-")
}

func invalidName(field string) error {
	return invalid(field, "invalid_name", "must begin with a letter a-z and hold at most 40 of a-z, 0-9 and hyphens")
}

// account finds the account that the path names.
func (s *Server) account(r *http.Request) (*route.Account, error) {
	return s.accountNamed(r, pathParam(r, "account"))
}

func (s *Server) accountNamed(r *http.Request, name string) (*route.Account, error) {
	cfg, err := s.store.Config(r.Context())
	if err != nil {
		return nil, err
	}
	if a := cfg.Account(name); a != nil {
		return a, nil
	}
	return nil, errNoAccount()
}

func errNoAccount() error {
	return refuse(http.StatusNotFound, "not_found", "There is no such account.")
}

func (s *Server) listAccounts(r *http.Request) (out api.List[api.Account], err error) {
	cfg, err := s.store.Config(r.Context())
	if err != nil {
		return out, err
	}
	return listView(cfg.Accounts, s.accountView), nil
}

func (s *Server) getAccount(r *http.Request) (out api.Account, err error) {
	a, err := s.account(r)
	if err != nil {
		return out, err
	}
	return s.accountView(a), nil
}

func (s *Server) createAccount(w http.ResponseWriter, r *http.Request) error {
	in, err := read[api.AccountRequest](s, w, r)
	if err != nil {
		return err
	}
	if !validName(in.Name) {
		return invalidName("name")
	}
	kind := provider.Kind(in.Kind)
	spec, known := s.kinds.Spec(kind)
	if !known {
		return invalid("kind", "unknown_kind", "is not a provider kind of this server")
	}
	a := route.Account{
		Name: in.Name, Kind: kind, Settings: settingsOr(in.Settings, "{}"), Capabilities: spec.Capabilities,
		Concurrency: spec.Concurrency, Limits: s.kinds.DocumentedLimits(kind),
	}
	secrets, err := s.applyAccount(&a, in, spec)
	if err != nil {
		return err
	}
	if err := s.kinds.Validate(a.Kind, a.Settings, secrets); err != nil {
		return errSettings(err)
	}
	if err := s.store.CreateAccount(r.Context(), principal(r).ID, a, secrets); err != nil {
		return conflict(err, "name_taken", "There is an account of that name.")
	}
	created, err := s.accountNamed(r, a.Name)
	if err != nil {
		return afterStore(err)
	}
	w.Header().Set("Location", "/admin/v1/accounts/"+a.Name)
	return writeJSON(w, http.StatusCreated, s.accountView(created))
}

func (s *Server) patchAccount(r *http.Request, in api.AccountRequest) (out api.Account, err error) {
	a, err := s.account(r)
	if err != nil {
		return out, err
	}
	if err := fixedFields(in, a); err != nil {
		return out, err
	}
	spec, known := s.kinds.Spec(a.Kind)
	if !known {
		return out, refuse(http.StatusConflict, "unknown_kind", "This server does not know the account's provider kind.")
	}
	before := a.Settings
	a.Settings = settingsOr(in.Settings, string(a.Settings))
	secrets, err := s.applyAccount(a, in, spec)
	if err != nil {
		return out, err
	}
	if err := redirects(a, before, secrets, spec); err != nil {
		return out, err
	}
	if err := s.updateAccount(r, a, secrets); err != nil {
		return out, err
	}
	return s.changedAccount(r)
}

// changedAccount shows the account after a change of it.
func (s *Server) changedAccount(r *http.Request) (api.Account, error) {
	out, err := s.getAccount(r)
	return out, afterStore(err)
}

// fixedFields refuses fields that a PATCH can't change.
func fixedFields(in api.AccountRequest, a *route.Account) error {
	switch {
	case in.Name != "" && in.Name != a.Name:
		return invalid("name", "fixed", "can't be changed")
	case in.Kind != "" && in.Kind != string(a.Kind):
		return invalid("kind", "fixed", "can't be changed")
	case in.Limits != nil:
		return invalid("limits", "fixed", "are changed with PUT /admin/v1/accounts/{account}/limits")
	}
	return nil
}

// applyAccount checks the parts of a request that do not need the adapter and puts them into the account.
func (s *Server) applyAccount(
	a *route.Account, in api.AccountRequest, spec provider.Spec,
) (map[string]seal.Secret, error) {
	if in.Concurrency != nil {
		if *in.Concurrency < minConcurrency || *in.Concurrency > maxConcurrency {
			return nil, invalid("concurrency", "out_of_range", "must be 1 to 1000")
		}
		a.Concurrency = *in.Concurrency
	}
	if in.Limits != nil {
		windows, err := windowsOf(*in.Limits)
		if err != nil {
			return nil, err
		}
		a.Limits = windows
	}
	if err := openSettings(a.Settings, spec, len(in.Settings) > 0); err != nil {
		return nil, err
	}
	return secretsOf(in.Secrets, spec)
}

// openSettings checks that the settings are an object without a secret, since settings are shown. Given settings must have
// exactly the names that the kind declares: by these names redirects decides which secrets a change affects.
func openSettings(settings json.RawMessage, spec provider.Spec, given bool) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(settings, &fields); err != nil || fields == nil {
		return invalid("settings", "expected_object", "must be an object")
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if slices.Contains(spec.Secrets, name) {
			return invalid("settings."+name, "is_secret", "is a secret: give it under secrets")
		}
		if _, known := spec.Settings[name]; given && !known {
			hint := didYouMean(name, slices.Collect(maps.Keys(spec.Settings)))
			return invalid("settings."+name, "unknown_field", "is not a setting of this kind"+hint)
		}
	}
	return nil
}

// secretsOf checks the secrets of a request against the names of the kind, and collects all mistakes.
func secretsOf(in map[string]string, spec provider.Spec) (map[string]seal.Secret, error) {
	out := make(map[string]seal.Secret, len(in))
	var bad complaints
	for _, name := range slices.Sorted(maps.Keys(in)) {
		field := "secrets." + name
		switch value := in[name]; {
		case !slices.Contains(spec.Secrets, name):
			bad.complain(field, "unknown_field", "is not a secret of this kind"+didYouMean(name, spec.Secrets))
		case value == "" || len(value) > maxSecret:
			bad.complain(field, "invalid_length", "must have 1 to "+strconv.Itoa(maxSecret)+" bytes")
		case len(value) < provider.MinGuessable && slices.Contains(spec.Guessable, name):
			bad.complain(field, "too_short",
				"must have at least "+strconv.Itoa(provider.MinGuessable)+" characters: whoever guesses it can report events")
		default:
			out[name] = seal.NewSecret(value)
		}
	}
	return out, bad.err()
}

// settingsOr returns the given settings, compacted, or stay if none are given.
func settingsOr(given json.RawMessage, stay string) json.RawMessage {
	if len(given) == 0 {
		return json.RawMessage(stay)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, given); err != nil {
		return given
	}
	return b.Bytes()
}

// updateAccount stores an account after the adapter has checked it as it will be: with the stored secrets, and the given ones
// over them. Stored secrets that do not open must be given again.
func (s *Server) updateAccount(r *http.Request, a *route.Account, given map[string]seal.Secret) error {
	if err := unreadable(a, given); err != nil {
		return err
	}
	secrets, err := s.store.Secrets(r.Context(), a.ID)
	if err != nil && !errors.Is(err, seal.ErrSealed) {
		return missing(err, "There is no such account.")
	}
	all := make(map[string]seal.Secret, len(secrets)+len(given))
	maps.Copy(all, secrets)
	maps.Copy(all, given)
	if err := s.kinds.Validate(a.Kind, a.Settings, all); err != nil {
		return errSettings(err)
	}
	return missing(s.store.UpdateAccount(r.Context(), principal(r).ID, *a, given), "There is no such account.")
}

func errSettings(err error) error {
	return invalid("settings", "invalid_settings", err.Error())
}

func (s *Server) pauseAccount(r *http.Request) (out api.Account, err error) {
	if err := s.store.PauseAccount(r.Context(), principal(r).ID, pathParam(r, "account")); err != nil {
		return out, missing(err, "There is no such account.")
	}
	return s.changedAccount(r)
}

func (s *Server) resumeAccount(r *http.Request) (out api.Account, err error) {
	if err := s.store.ResumeAccount(r.Context(), principal(r).ID, pathParam(r, "account")); err != nil {
		return out, missing(err, "There is no such account.")
	}
	return s.changedAccount(r)
}

// deleteAccount takes the account out of service. The answer is 202 with the account if it has to drain first, and 204 if it
// is gone at once.
func (s *Server) deleteAccount(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	name := pathParam(r, "account")
	if err := s.store.DeleteAccount(r.Context(), principal(r).ID, name); err != nil {
		return missing(err, "There is no such account.")
	}
	cfg, err := s.store.Config(r.Context())
	if err != nil {
		return afterStore(err)
	}
	if a := cfg.Account(name); a != nil {
		return writeJSON(w, http.StatusAccepted, s.accountView(a))
	}
	return noContent(w)
}

func (s *Server) getAccountLimits(r *http.Request) (out api.AccountLimits, err error) {
	a, err := s.account(r)
	if err != nil {
		return out, err
	}
	return s.limitsView(a.Kind, a.Limits), nil
}

func (s *Server) putAccountLimits(r *http.Request, in api.LimitsRequest) (out api.AccountLimits, err error) {
	if in.Limits == nil {
		return out, invalid("limits", "missing", "must be a list; an empty one means no limit")
	}
	windows, err := windowsOf(in.Limits)
	if err != nil {
		return out, err
	}
	a, err := s.account(r)
	if err != nil {
		return out, err
	}
	err = s.store.SetLimits(r.Context(), principal(r).ID, a.Name, windows)
	return s.limitsView(a.Kind, windows), missing(err, "There is no such account.")
}

func (s *Server) limitsView(kind provider.Kind, windows []limit.Window) api.AccountLimits {
	return api.AccountLimits{Limits: views(windows, limitView), Documented: views(s.kinds.DocumentedLimits(kind), limitView)}
}

// redirects refuses a change of settings that decide where stored secrets are sent, unless these secrets come with the change:
// otherwise anyone who may change an account could have its secrets sent to themselves. It does not judge the new place.
func redirects(a *route.Account, before json.RawMessage, given map[string]seal.Secret, spec provider.Spec) error {
	var bad complaints
	for _, name := range slices.Sorted(maps.Keys(spec.Settings)) {
		if reflect.DeepEqual(settingOf(before, name), settingOf(a.Settings, name)) {
			continue
		}
		var wanted []string
		for _, secret := range spec.Settings[name] {
			if _, here := given[secret]; !here && slices.Contains(a.SecretFields, secret) {
				wanted = append(wanted, secret)
			}
		}
		if len(wanted) > 0 {
			bad.complain("settings."+name, "secrets_required",
				"decides where secrets are sent, or how: give "+strings.Join(wanted, ", ")+" again, under secrets of the same request")
		}
	}
	return bad.err()
}

// settingOf reads one setting. It returns nil if the setting is absent, null or empty, which every adapter treats alike. Adapters
// accept names in any case, as encoding/json does. Requests must use the exact case, but old stored settings may not.
func settingOf(settings json.RawMessage, name string) any {
	var fields map[string]any
	if json.Unmarshal(settings, &fields) != nil { // openSettings has checked the settings of requests
		return nil
	}
	value, exact := fields[name]
	for other := range fields {
		if !exact && strings.EqualFold(other, name) {
			value = fields[other]
		}
	}
	if value == nil || reflect.ValueOf(value).IsZero() {
		return nil
	}
	return value
}

// unreadable is the 422 for secrets that don't open with the server's keys, unless all of them are given again.
func unreadable(a *route.Account, given map[string]seal.Secret) error {
	var bad complaints
	for _, name := range a.Unreadable {
		if _, here := given[name]; !here {
			bad.complain("secrets."+name, "unreadable",
				"was stored under a secret key that this server does not have: give it again, or the server that key as SENDGATE_SECRET_KEY_PREVIOUS")
		}
	}
	return bad.err()
}
