package smtp

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

// Kind is the kind of this adapter.
const Kind provider.Kind = "smtp"

// Names of the sealed settings.
const (
	passwordName     = "password"
	accessTokenName  = "access_token"
	clientSecretName = "client_secret"
	refreshTokenName = "refresh_token"
	dkimKeyName      = "dkim_private_key"
	verpKeyName      = "verp_key"
)

// TLSMode says how the connection is protected.
type TLSMode string

// The modes. None is for loopback; for any other host it needs allow_plaintext.
const (
	StartTLS TLSMode = "starttls" // RFC 3207, required: there is no fallback to plain text
	Implicit TLSMode = "implicit" // TLS from the first byte, RFC 8314
	None     TLSMode = "none"
)

// Defaults. DefaultMaxBytes and the recipient cap are Postfix's (postconf(5) message_size_limit, smtpd_recipient_limit). The idle
// timeout is below the 10 s that Postfix allows a client under load (smtpd_timeout, stress).
const (
	DefaultMaxBytes       = 10_240_000
	DefaultMaxConnections = 20
	DefaultMaxMessages    = 100
	DefaultIdleTimeout    = 8 * time.Second
	maxRecipients         = 1000
)

// Config is one relay account.
type Config struct {
	Host                     string        // name or IP address
	Port                     int           // 1..65535; default 587 for starttls, 465 for implicit, 25 for none
	TLS                      TLSMode       // default starttls, on loopback none
	AllowPlaintext           bool          // allows none for hosts beyond this machine
	ServerName               string        // name in the server's certificate; default Host
	CAPEM                    string        // certificates to trust instead of the system's
	Username                 string        // "" for no authentication
	Auth                     string        // auto (default), plain, login, cram-md5 or xoauth2
	TokenURL                 string        // where auth xoauth2 gets its tokens (RFC 6749)
	ClientID                 string        // with TokenURL
	Scope                    string        // with TokenURL: scopes, separated by spaces
	Helo                     string        // the name that we greet with; default the machine's host name
	EnvelopeFrom             string        // bounce address that is read elsewhere; default the message's From
	BounceDomain             string        // its mail comes to us: each message gets a bounce address there; not with EnvelopeFrom
	ReportsByHTTP            bool          // take reports at the account's hook too, not only by LMTP; with BounceDomain
	NotifySuccess            bool          // ask for reports of deliveries too (RFC 3461), which doubles the mail; with BounceDomain
	MaxConnections           int           // 1..1000
	MaxMessagesPerConnection int           // 1..100000
	IdleTimeout              time.Duration // how long a connection is kept unused; up to 5 minutes
	MaxBytes                 int64         // the relay's size limit for routing; at the send the SIZE of EHLO decides
	SMTPUTF8                 bool          // the relay carries non-ASCII local parts (RFC 6531)
	DKIM                     DKIM
	Password                 seal.Secret
	AccessToken              seal.Secret // for auth xoauth2 without TokenURL
	ClientSecret             seal.Secret // with TokenURL
	RefreshToken             seal.Secret // with TokenURL, if tokens come from a user's consent and not from client credentials
	VERPKey                  seal.Secret // at least 32 characters, with BounceDomain: makes and verifies bounce addresses
}

// DKIM says how messages are signed. The zero value signs nothing.
type DKIM struct {
	Domain     string
	Selector   string
	PrivateKey seal.Secret // PEM: RSA of at least 1024 bits (PKCS 1 or 8), or Ed25519 (PKCS 8)
}

// settings is the JSON form of Config without its secrets.
type settings struct {
	Host                     string        `json:"host"`
	Port                     int           `json:"port,omitempty"`
	TLS                      TLSMode       `json:"tls,omitempty"`
	AllowPlaintext           bool          `json:"allow_plaintext,omitempty"`
	ServerName               string        `json:"server_name,omitempty"`
	CAPEM                    string        `json:"ca_pem,omitempty"`
	Username                 string        `json:"username,omitempty"`
	Auth                     string        `json:"auth,omitempty"`
	TokenURL                 string        `json:"token_url,omitempty"`
	ClientID                 string        `json:"client_id,omitempty"`
	Scope                    string        `json:"scope,omitempty"`
	Helo                     string        `json:"helo,omitempty"`
	EnvelopeFrom             string        `json:"envelope_from,omitempty"`
	BounceDomain             string        `json:"bounce_domain,omitempty"`
	ReportsByHTTP            bool          `json:"reports_by_http,omitempty"`
	NotifySuccess            bool          `json:"notify_success,omitempty"`
	MaxConnections           int           `json:"max_connections,omitempty"`
	MaxMessagesPerConnection int           `json:"max_messages_per_connection,omitempty"`
	IdleTimeout              string        `json:"idle_timeout,omitempty"` // Go duration: "8s"
	MaxBytes                 int64         `json:"max_bytes,omitempty"`
	SMTPUTF8                 bool          `json:"smtputf8,omitempty"`
	DKIM                     *dkimSettings `json:"dkim,omitempty"`
}

type dkimSettings struct {
	Domain   string `json:"domain"`
	Selector string `json:"selector"`
}

// ParseConfig reads an account's settings and secrets, fills in the defaults and validates. Unknown fields, unknown
// secrets and anything after the JSON object are errors.
func ParseConfig(raw []byte, secrets map[string]seal.Secret) (Config, error) {
	var s settings
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return Config{}, fmt.Errorf("smtp settings: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("smtp settings: something follows the object")
	}
	for name := range secrets {
		if !slices.Contains(secretNames(), name) {
			return Config{}, fmt.Errorf("smtp settings: unknown secret %q", name)
		}
	}
	c, err := s.config()
	if err != nil {
		return Config{}, err
	}
	c.Password, c.DKIM.PrivateKey, c.VERPKey = secrets[passwordName], secrets[dkimKeyName], secrets[verpKeyName]
	c.AccessToken, c.ClientSecret, c.RefreshToken = secrets[accessTokenName], secrets[clientSecretName], secrets[refreshTokenName]
	c = c.withDefaults()
	return c, c.Validate()
}

func (s *settings) config() (Config, error) {
	c := Config{
		Host: s.Host, Port: s.Port, TLS: s.TLS, AllowPlaintext: s.AllowPlaintext, ServerName: s.ServerName, CAPEM: s.CAPEM,
		Username: s.Username, Auth: s.Auth, TokenURL: s.TokenURL, ClientID: s.ClientID, Scope: s.Scope, Helo: s.Helo, EnvelopeFrom: s.EnvelopeFrom, MaxConnections: s.MaxConnections,
		MaxMessagesPerConnection: s.MaxMessagesPerConnection, MaxBytes: s.MaxBytes, SMTPUTF8: s.SMTPUTF8,
		BounceDomain: strings.ToLower(strings.TrimSuffix(s.BounceDomain, ".")), NotifySuccess: s.NotifySuccess,
		ReportsByHTTP: s.ReportsByHTTP,
	}
	if s.DKIM != nil {
		c.DKIM.Domain, c.DKIM.Selector = s.DKIM.Domain, s.DKIM.Selector
	}
	if s.IdleTimeout != "" {
		d, err := time.ParseDuration(s.IdleTimeout)
		if err != nil || d <= 0 {
			return Config{}, fmt.Errorf("smtp settings: idle_timeout %q: want a duration such as 8s", s.IdleTimeout)
		}
		c.IdleTimeout = d
	}
	return c, nil
}

// withDefaults fills in the settings that are unset.
func (c Config) withDefaults() Config {
	if c.TLS == "" {
		c.TLS = StartTLS
		if isLoopback(c.Host) {
			c.TLS = None
		}
	}
	if c.Port == 0 {
		c.Port = map[TLSMode]int{StartTLS: 587, Implicit: 465, None: 25}[c.TLS]
	}
	setDefault(&c.ServerName, c.Host)
	setDefault(&c.Auth, authAuto)
	setDefault(&c.MaxConnections, DefaultMaxConnections)
	setDefault(&c.MaxMessagesPerConnection, DefaultMaxMessages)
	setDefault(&c.IdleTimeout, DefaultIdleTimeout)
	setDefault(&c.MaxBytes, DefaultMaxBytes)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// demand is one rule of the configuration.
type demand struct {
	bad  bool
	what string
}

// Validate says what is wrong with the configuration. It never quotes a secret.
func (c Config) Validate() error {
	checks := []demand{
		{c.Host == "" || !isHost(c.Host), "host: want a host name or an IP address"},
		{!slices.Contains([]TLSMode{StartTLS, Implicit, None}, c.TLS), "tls: want starttls, implicit or none"},
		{c.Port < 1 || c.Port > 65535, "port: want 1..65535"},
		{c.TLS == None && !c.AllowPlaintext && !isLoopback(c.Host), "tls: none sends mail in plain text; beyond loopback that needs allow_plaintext"},
		{!slices.Contains([]string{authAuto, authPlain, authLogin, authCRAMMD5, authXOAUTH2}, c.Auth), "auth: want auto, plain, login, cram-md5 or xoauth2"},
		{c.Auth != authXOAUTH2 && (c.Username == "") != c.Password.IsZero(), "username and password: want both or neither"},
		{hasControl(c.Username), "username: holds a control character"},
		{c.Helo != "" && !isHelo(c.Helo), "helo: want a host name or an address literal"},
		{c.EnvelopeFrom != "" && !isEnvelopeFrom(c.EnvelopeFrom), "envelope_from: want an address"},
		{c.BounceDomain != "" && (!isName(c.BounceDomain) || len(c.BounceDomain) > maxBounceDomain), "bounce_domain: want a domain of at most 200 characters"},
		{c.BounceDomain != "" && c.EnvelopeFrom != "", "bounce_domain and envelope_from: want one of them"},
		{c.BounceDomain != "" && c.VERPKey.IsZero(), "bounce_domain: needs the secret verp_key"}, // verp_key may outlive bounce_domain
		{!c.VERPKey.IsZero() && len(c.VERPKey.Reveal()) < minVERPKey, "verp_key: want at least 32 characters"},
		{c.NotifySuccess && c.BounceDomain == "", "notify_success: the reports need bounce_domain"},
		{c.ReportsByHTTP && c.BounceDomain == "", "reports_by_http: the reports need bounce_domain"},
		{c.MaxConnections < 1 || c.MaxConnections > 1000, "max_connections: want 1..1000"},
		{c.MaxMessagesPerConnection < 1 || c.MaxMessagesPerConnection > 100_000, "max_messages_per_connection: want 1..100000"},
		{c.IdleTimeout <= 0 || c.IdleTimeout > 5*time.Minute, "idle_timeout: want more than 0 and at most 5m"},
		{c.MaxBytes < 0, "max_bytes: want 0 or more"},
		{c.CAPEM != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(c.CAPEM)), "ca_pem: holds no certificate"},
	}
	for _, check := range append(checks, c.tokenChecks()...) {
		if check.bad {
			return errors.New("smtp settings: " + check.what)
		}
	}
	_, err := newSigner(c.DKIM)
	return err
}

// Capabilities says what this relay can carry.
func (c Config) Capabilities() provider.Capabilities {
	c = c.withDefaults()
	return provider.Capabilities{MaxBytes: c.MaxBytes, MaxRecipients: maxRecipients, SMTPUTF8: c.SMTPUTF8, Calendar: true}
}

// secretNames lists the settings that are sealed.
func secretNames() []string {
	return []string{passwordName, accessTokenName, clientSecretName, refreshTokenName, dkimKeyName, verpKeyName}
}

// Spec describes the kind. A relay's own limits are in Config.Capabilities. A relay reports acceptance only in its answer to our
// call. It reports deliveries only if NotifySuccess is set and every hop reports.
func Spec() provider.Spec {
	return provider.Spec{
		Kind: Kind,
		Privacy: provider.PrivacySpec{
			Keeps: "what the relay's logs and queue hold: with Postfix the mail log has sender, recipient and outcome, for as long as the host keeps logs",
			Erase: "on the relay's hosts: delete old logs, and mail that waits (postsuper -d)",
		},
		Capabilities: Config{}.Capabilities(),
		Concurrency:  DefaultMaxConnections,
		Secrets:      secretNames(),
		Settings:     directions(),
		Events:       provider.EventSpec{Accepted: false, Delivered: false},
	}
}

// directions lists, for each setting, the secrets whose destination it decides. The secrets for the relay go to the host; that
// includes access tokens and the secrets that get them. The keys of DKIM and of bounce addresses are sent nowhere.
func directions() map[string][]string {
	all := map[string][]string{}
	for _, name := range []string{"host", "port", "tls", "allow_plaintext", "server_name", "ca_pem", "auth"} {
		all[name] = []string{passwordName, accessTokenName, clientSecretName, refreshTokenName}
	}
	for _, name := range []string{"token_url", "client_id", "scope"} {
		all[name] = []string{clientSecretName, refreshTokenName}
	}
	for _, name := range []string{
		"username", "helo", "envelope_from", "bounce_domain", "notify_success", "max_connections", "max_messages_per_connection",
		"idle_timeout", "max_bytes", "smtputf8", "dkim", "reports_by_http",
	} {
		all[name] = nil
	}
	return all
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func isHost(s string) bool { return net.ParseIP(s) != nil || isName(s) }

// isName reports whether s consists of labels of letters, digits, hyphens and underscores. Host names of containers have
// underscores.
func isName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		bad := strings.ContainsFunc(label, func(r rune) bool {
			alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
			return !alnum && r != '-' && r != '_'
		})
		if label == "" || len(label) > 63 || bad {
			return false
		}
	}
	return true
}

// isHelo accepts a name or an address literal (RFC 5321 section 4.1.3).
func isHelo(s string) bool {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		return ok && net.ParseIP(strings.TrimPrefix(inner, "IPv6:")) != nil
	}
	return isName(s)
}

func isEnvelopeFrom(s string) bool {
	at := strings.LastIndexByte(s, '@')
	return at > 0 && wireSafe(s) && isASCII(s) && isName(s[at+1:])
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
