package smtp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/provider"
)

// early is how long before its expiry a token is replaced: a session may be opened with it until then.
const early = time.Minute

// tokens are the access tokens of an account with auth xoauth2. There is one at a time. It is replaced before it expires, and
// once more if the relay refuses it. Only one request for a new one runs at a time.
type tokens struct {
	fetch func(context.Context) (*oauth2.Token, error) // nil: there is only the token of the settings
	http  *http.Client                                 // of fetch
	now   func() time.Time
	busy  chan struct{} // holds an item while someone uses current

	current *oauth2.Token // nil before the first
}

// newTokens chooses how tokens are fetched: by a refresh token, by client credentials, or not at all.
func newTokens(cfg Config) *tokens {
	t := &tokens{now: time.Now, busy: make(chan struct{}, 1), current: &oauth2.Token{AccessToken: cfg.AccessToken.Reveal()}}
	if cfg.TokenURL == "" {
		return t
	}
	client := jail.New(tokenJail(cfg.TokenURL))
	t.current, t.http = nil, client
	t.fetch = func(ctx context.Context) (*oauth2.Token, error) {
		return clientCredentials(cfg).Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	}
	if cfg.RefreshToken.IsZero() {
		return t
	}
	// Microsoft gives another refresh token with each access token. The newest is used as long as the process lives. After a
	// restart the sealed one is used again, which stays valid for months.
	refresh := cfg.RefreshToken.Reveal()
	grant := &oauth2.Config{
		ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret.Reveal(), Scopes: strings.Fields(cfg.Scope),
		Endpoint: oauth2.Endpoint{TokenURL: cfg.TokenURL, AuthStyle: oauth2.AuthStyleInParams},
	}
	t.fetch = func(ctx context.Context) (*oauth2.Token, error) {
		ctx = context.WithValue(ctx, oauth2.HTTPClient, client)
		fresh, err := grant.TokenSource(ctx, &oauth2.Token{RefreshToken: refresh}).Token()
		if err == nil {
			refresh = fresh.RefreshToken
		}
		return fresh, err
	}
	return t
}

// tokenChecks are the rules of auth xoauth2. Secrets that it does not use may stay set, because none can be removed.
func (c Config) tokenChecks() []demand {
	on := c.Auth == authXOAUTH2
	return []demand{
		{!on && c.TokenURL+c.ClientID+c.Scope != "", "token_url, client_id and scope: need auth xoauth2"},
		{on && c.Username == "", "username: auth xoauth2 needs the mailbox that it logs in to"},
		{on && c.TokenURL == "" && c.AccessToken.IsZero(), "auth: xoauth2 needs token_url and client_id, with the secret client_secret or refresh_token; or the secret access_token"},
		{on && c.TokenURL == "" && c.ClientID+c.Scope != "", "client_id and scope: need token_url"},
		{c.TokenURL != "" && c.ClientID == "", "client_id: token_url needs it"},
		{c.TokenURL != "" && c.ClientSecret.IsZero() && c.RefreshToken.IsZero(), "token_url: needs the secret client_secret or refresh_token"},
		{c.TokenURL != "" && jail.CheckURL(c.TokenURL, tokenJail(c.TokenURL)) != nil, "token_url: want an https URL of a public host"},
		{hasControl(c.ClientID) || hasControl(c.Scope), "client_id and scope: hold a control character"},
	}
}

func clientCredentials(cfg Config) *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret.Reveal(), TokenURL: cfg.TokenURL,
		Scopes: strings.Fields(cfg.Scope), AuthStyle: oauth2.AuthStyleInParams,
	}
}

// tokenJail allows token requests to public addresses by https, and to loopback if the setting names that.
func tokenJail(tokenURL string) jail.Options {
	u, err := url.Parse(tokenURL)
	if err != nil || !isLoopback(u.Hostname()) {
		return jail.Options{}
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		port = map[string]uint64{"http": 80, "https": 443}[u.Scheme]
	}
	return jail.Options{Allow: []jail.Target{
		{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Port: uint16(port)},
		{Prefix: netip.MustParsePrefix("::1/128"), Port: uint16(port)},
	}}
}

// get returns a token that is still valid for a while and is not the refused one. again says whether there may be another if the
// relay refuses this one.
func (t *tokens) get(ctx context.Context, refused string) (token string, again bool, perr *provider.Error) {
	select {
	case t.busy <- struct{}{}:
	case <-ctx.Done():
		return "", false, unreachable(ctx, "wait for a token", ctx.Err())
	}
	defer func() { <-t.busy }()
	if t.fetch == nil {
		return t.current.AccessToken, false, nil
	}
	if t.current != nil && t.current.AccessToken != refused && t.good() {
		return t.current.AccessToken, refused == "", nil
	}
	fresh, err := t.fetch(ctx)
	if err != nil {
		return "", false, tokenFailure(ctx, err)
	}
	t.current = fresh
	return fresh.AccessToken, false, nil
}

// close drops idle connections.
func (t *tokens) close() {
	if t != nil && t.http != nil {
		t.http.CloseIdleConnections()
	}
}

// good reports whether the current token is valid long enough. A token without a known expiry counts until it is refused.
func (t *tokens) good() bool {
	if t.current.Expiry.IsZero() {
		return true
	}
	lifetime := time.Duration(t.current.ExpiresIn) * time.Second
	return t.current.Expiry.Sub(t.now()) > min(early, lifetime/2)
}

// tokenErrors are the codes of RFC 6749 section 5.2 and of OpenID Connect, and those that large providers add.
var tokenErrors = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
	"invalid_resource", "access_denied", "server_error", "temporarily_unavailable", "slow_down", "interaction_required",
	"login_required", "consent_required", "admin_policy_enforced", "org_internal", "deleted_client", "disabled_client",
}

// tokenFailure says what a failed request for a token means. Of the answer it shows only one of these codes and its description:
// other JSON may have an "error" too.
func tokenFailure(ctx context.Context, err error) *provider.Error {
	answer, answered := errors.AsType[*oauth2.RetrieveError](err)
	_, network := errors.AsType[*url.Error](err)
	switch {
	case errors.Is(err, jail.ErrForbidden):
		return &provider.Error{Class: provider.Misconfigured, Detail: "token_url: " + jail.ErrForbidden.Error(), Err: err}
	case answered:
		status := answer.Response.StatusCode
		detail, code := fmt.Sprintf("token_url answered %d", status), ""
		if slices.Contains(tokenErrors, answer.ErrorCode) {
			code = answer.ErrorCode
			detail += " " + code + ": " + answer.ErrorDescription
		}
		class := provider.Misconfigured
		if status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500 {
			class = provider.Transient
		}
		return &provider.Error{Class: class, Code: code, Detail: detail, Err: errors.New(detail)}
	case network || ctx.Err() != nil:
		return unreachable(ctx, "token_url", err)
	default:
		const detail = "token_url answered without an access_token" // the error may quote the answer
		return &provider.Error{Class: provider.Misconfigured, Detail: detail, Err: errors.New(detail)}
	}
}
