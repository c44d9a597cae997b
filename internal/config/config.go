// Package config reads the settings of `sendgate serve` from SENDGATE_* variables of the environment, and from nowhere
// else: no flags, no files but those that hold a secret. Accounts, pools, limits and keys are rows behind the admin API, not
// settings.
//
// It defines names, defaults and ranges, and which settings contradict each other. It opens no connection. Load reports
// all problems at once, so that an operator can fix a deployment in one round.
//
// The likeliest mistake of a newcomer is to read os.Getenv elsewhere: a variable that is not a field here, or in Elsewhere,
// is refused at start as a misspelling.
package config

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/sendgate/sendgate/internal/seal"
)

// Prefix begins the name of every setting.
const Prefix = "SENDGATE_"

// Config is a checked configuration. Only Load makes one.
type Config struct {
	Listen    string `env:"LISTEN"     envDefault:"127.0.0.1:8025"` // the API, host:port
	OpsListen string `env:"OPS_LISTEN" envDefault:"127.0.0.1:8026"` // /healthz, /readyz, /metrics

	OpsHosts []string `env:"OPS_HOSTS"` // further host names that OpsListen answers to, beside internal ones

	AdminListen   string   `env:"ADMIN_LISTEN"`   // the admin API, host:port; "": served beside the API
	AdminNetworks Networks `env:"ADMIN_NETWORKS"` // clients the admin API answers, comma-separated CIDRs; empty: all

	DatabaseURL         seal.Secret `env:"DATABASE_URL"`                         // postgres:// URL or key=value DSN; Load fills it from the file
	DatabaseURLFile     string      `env:"DATABASE_URL_FILE"`                    // instead of DATABASE_URL; see openSecret for its mode
	DatabaseConnections int         `env:"DATABASE_CONNECTIONS" envDefault:"18"` // of this replica, at most, 8..500

	SecretKey     seal.Secret `env:"SECRET_KEY"`      // 32 bytes in hex or base64; Load fills it from the file
	SecretKeyFile string      `env:"SECRET_KEY_FILE"` // instead of SECRET_KEY; see openSecret for its mode

	SecretKeyPrevious     seal.Secret `env:"SECRET_KEY_PREVIOUS"`      // earlier keys, at most 4, comma-separated; open, never seal
	SecretKeyPreviousFile string      `env:"SECRET_KEY_PREVIOUS_FILE"` // instead of SECRET_KEY_PREVIOUS, one key per line

	AdminKey     seal.Secret `env:"ADMIN_KEY"`      // first admin key, optional; from "sendgate keys generate"
	AdminKeyFile string      `env:"ADMIN_KEY_FILE"` // instead of ADMIN_KEY

	LogLevel  slog.Level `env:"LOG_LEVEL"  envDefault:"info"` // debug, info, warn, error
	LogFormat string     `env:"LOG_FORMAT" envDefault:"json"` // json, text

	MaxBodyBytes     Bytes `env:"MAX_BODY_BYTES"     envDefault:"30MiB"` // of one request, 1KiB..1GiB
	AcceptQueue      int   `env:"ACCEPT_QUEUE"       envDefault:"32768"` // messages waiting for a commit, 1..1,000,000
	AcceptQueueBytes Bytes `env:"ACCEPT_QUEUE_BYTES" envDefault:"96MiB"` // bytes of those messages; at least MaxBodyBytes

	AcceptWait        time.Duration `env:"ACCEPT_WAIT"        envDefault:"10s"`  // how long to wait for a commit, 1s..30s
	Lease             time.Duration `env:"LEASE"              envDefault:"15s"`  // how long a claim on messages lasts, 1s..10m
	DrainTimeout      time.Duration `env:"DRAIN_TIMEOUT"      envDefault:"25s"`  // for calls in progress at SIGTERM, 1s..1h
	UnknownWait       time.Duration `env:"UNKNOWN_WAIT"       envDefault:"60s"`  // before policies resend and never decide, 1s..24h
	ReconcileDeadline time.Duration `env:"RECONCILE_DEADLINE" envDefault:"40m"`  // how long to wait for evidence, UnknownWait..168h
	ReconcileFallback string        `env:"RECONCILE_FALLBACK" envDefault:"fail"` // after ReconcileDeadline: fail, resend
	ResendMax         int           `env:"RESEND_MAX"         envDefault:"2"`    // more copies after calls of unknown outcome, 0..10
	ParkProbe         time.Duration `env:"PARK_PROBE"         envDefault:"5m"`   // before a parked account is tried again; doubles, 1s..1h
	DefaultExpiry     time.Duration `env:"DEFAULT_EXPIRY"     envDefault:"72h"`  // of a message without expires_at, 1m..720h

	LookupSchedule  Durations `env:"LOOKUP_SCHEDULE"   envDefault:"1m,5m,30m"`        // look-up times after an unknown call; 1..10, rising
	RepeatSchedule  Durations `env:"REPEAT_SCHEDULE"   envDefault:"10s,1m,5m,30m,2h"` // before repeats of an unknown call whose provider takes a key; 1..10, rising
	SoftBounceLimit int       `env:"SOFT_BOUNCE_LIMIT" envDefault:"5"`                // so many in a row within 30 days suppress for 30 days; 0: never, max 1000

	PublicURL    string  `env:"PUBLIC_URL"`    // https://... at which providers and recipients reach us
	LMTPListen   string  `env:"LMTP_LISTEN"`   // for bounces: host:port on loopback, or unix:/path
	ForwardAllow Targets `env:"FORWARD_ALLOW"` // private addresses allowed for webhook endpoints: CIDR:port, comma-separated

	TLSCertFile    string   `env:"TLS_CERT_FILE"`   // PEM chain; with TLSKeyFile
	TLSKeyFile     string   `env:"TLS_KEY_FILE"`    // PEM key; see openSecret for its mode
	BehindProxy    bool     `env:"BEHIND_PROXY"`    // a proxy in front terminates TLS
	TrustedProxies Networks `env:"TRUSTED_PROXIES"` // whose X-Forwarded-For is believed, comma-separated CIDRs

	Retention     time.Duration `env:"RETENTION"      envDefault:"2160h"` // of messages and events, 24h..87600h
	BodyRetention time.Duration `env:"BODY_RETENTION" envDefault:"168h"`  // of bodies, DefaultExpiry..Retention

	AuditRetention time.Duration `env:"AUDIT_RETENTION" envDefault:"0s"` // of audit entries, 720h..87600h; 0: for ever
}

// TLS reports whether the API listener speaks TLS itself.
func (c *Config) TLS() bool { return c.TLSCertFile != "" }

// Box returns the box that seals credentials under the secret key. It also opens those sealed under earlier keys.
func (c *Config) Box() (*seal.Box, error) {
	key, err := seal.ParseKey(c.SecretKey.Reveal())
	if err != nil {
		return nil, err
	}
	previous, err := seal.ParseKeys(c.SecretKeyPrevious.Reveal())
	if err != nil {
		return nil, err
	}
	return seal.NewBox(key, previous...)
}

// Trusts reports whether X-Forwarded-For of this peer is believed: only with BehindProxy, and only from TrustedProxies.
func (c *Config) Trusts(peer netip.Addr) bool {
	if !c.BehindProxy {
		return false
	}
	peer = peer.Unmap()
	for _, n := range c.TrustedProxies {
		if n.Contains(peer) {
			return true
		}
	}
	return false
}

// Elsewhere lists the SENDGATE_ variables that are not settings of serve: those of the client commands, and those read
// by package catalog. They are allowed in the environment and ignored here.
func Elsewhere() []string {
	return []string{
		"SENDGATE_URL", "SENDGATE_ADMIN_URL", "SENDGATE_API_KEY", "SENDGATE_API_KEY_FILE", "SENDGATE_ALLOW_HTTP", "SENDGATE_EMULATOR_URL", "SENDGATE_SES",
	}
}
