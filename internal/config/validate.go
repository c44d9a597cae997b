package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/seal"
)

// Validate checks ranges and contradictions between settings. The error joins all problems, one line each.
func (c *Config) Validate() error {
	var p problems
	c.checkListeners(&p)
	c.checkSecrets(&p)
	c.checkSizes(&p)
	c.checkTimes(&p)
	c.checkFeedback(&p)
	p.check(c.LogFormat == "json" || c.LogFormat == "text", "LOG_FORMAT", "%q is unknown; want json or text", c.LogFormat)
	p.check(c.ReconcileFallback == "fail" || c.ReconcileFallback == "resend", "RECONCILE_FALLBACK",
		"%q is unknown; want fail or resend", c.ReconcileFallback)
	return errors.Join(p...)
}

type problems []error

func (p *problems) check(ok bool, name, format string, args ...any) {
	if !ok {
		*p = append(*p, fmt.Errorf(Prefix+name+": "+format, args...))
	}
}

func (c *Config) checkListeners(p *problems) {
	host, port, err := splitListen(c.Listen)
	p.check(err == nil, "LISTEN", "%v", err)
	_, _, opsErr := splitListen(c.OpsListen)
	p.check(opsErr == nil, "OPS_LISTEN", "%v", opsErr)
	p.check(err != nil || port == 0 || c.Listen != c.OpsListen, "OPS_LISTEN",
		"%s is the same as SENDGATE_LISTEN; give each its own port", c.OpsListen)
	if c.AdminListen != "" {
		c.checkAdminListen(p)
	}
	p.check(len(c.AdminNetworks) == 0 || !c.BehindProxy || len(c.TrustedProxies) > 0, "ADMIN_NETWORKS",
		"needs the addresses of clients, but behind a proxy all clients have the proxy's; name the proxy in SENDGATE_TRUSTED_PROXIES")
	p.check((c.TLSCertFile == "") == (c.TLSKeyFile == ""), "TLS_CERT_FILE",
		"needs SENDGATE_TLS_KEY_FILE, and the other way round; set both or none")
	p.readable("TLS_CERT_FILE", c.TLSCertFile, os.Open)
	p.readable("TLS_KEY_FILE", c.TLSKeyFile, openSecret)
	p.check(err != nil || c.covered(host), "LISTEN", inClear, c.Listen)
	p.check(len(c.TrustedProxies) == 0 || c.BehindProxy, "TRUSTED_PROXIES", "needs SENDGATE_BEHIND_PROXY=true")
}

func (c *Config) checkAdminListen(p *problems) {
	host, port, err := splitListen(c.AdminListen)
	p.check(err == nil, "ADMIN_LISTEN", "%v", err)
	p.check(err != nil || port == 0 || c.AdminListen != c.Listen && c.AdminListen != c.OpsListen, "ADMIN_LISTEN",
		"%s is the same as SENDGATE_LISTEN or SENDGATE_OPS_LISTEN; give each its own port", c.AdminListen)
	p.check(err != nil || c.covered(host), "ADMIN_LISTEN", inClear, c.AdminListen)
}

const inClear = "%s would carry API keys in clear; set SENDGATE_TLS_CERT_FILE, or SENDGATE_BEHIND_PROXY=true if a proxy terminates TLS"

// covered reports whether keys sent to a listener on this host stay on the machine or are encrypted on their way.
func (c *Config) covered(host string) bool { return loopback(host) || c.TLS() || c.BehindProxy }

// readable reports a file that can't be opened.
func (p *problems) readable(name, file string, open func(string) (*os.File, error)) {
	if file == "" {
		return
	}
	f, err := open(file)
	p.check(err == nil, name, "%v", err)
	if err == nil {
		_ = f.Close()
	}
}

func (c *Config) checkSecrets(p *problems) {
	url := c.DatabaseURL.Reveal()
	p.check(url != "" || c.DatabaseURLFile != "", "DATABASE_URL",
		"is required, such as postgres://sendgate@db.internal/sendgate, or SENDGATE_DATABASE_URL_FILE")
	p.check(url == "" || strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://") ||
		(strings.Contains(url, "=") && !strings.Contains(url, "://")), "DATABASE_URL", "want a postgres:// URL or a key=value DSN")
	p.check(!c.SecretKey.IsZero() || c.SecretKeyFile != "", "SECRET_KEY",
		"is required, or SENDGATE_SECRET_KEY_FILE; make one: openssl rand -hex %d", seal.KeySize)
	if !c.SecretKey.IsZero() {
		_, err := seal.ParseKey(c.SecretKey.Reveal())
		p.check(err == nil, "SECRET_KEY", "%v", err)
	}
	_, err := seal.ParseKeys(c.SecretKeyPrevious.Reveal())
	p.check(err == nil, "SECRET_KEY_PREVIOUS", "%v", err)
	key := c.AdminKey.Reveal()
	p.check(key == "" || strings.HasPrefix(key, "sg_"), "ADMIN_KEY", "is not a key of sendgate; make one: sendgate keys generate")
}

func (c *Config) checkSizes(p *problems) {
	p.check(c.DatabaseConnections >= 8 && c.DatabaseConnections <= 500, "DATABASE_CONNECTIONS", "%d is out of range 8..500", c.DatabaseConnections)
	p.check(c.MaxBodyBytes >= 1<<10 && c.MaxBodyBytes <= 1<<30, "MAX_BODY_BYTES", "%s is out of range 1KiB..1GiB", c.MaxBodyBytes)
	p.check(c.AcceptQueue >= 1 && c.AcceptQueue <= 1_000_000, "ACCEPT_QUEUE", "%d is out of range 1..1000000", c.AcceptQueue)
	p.check(c.AcceptQueueBytes >= c.MaxBodyBytes, "ACCEPT_QUEUE_BYTES",
		"%s is less than SENDGATE_MAX_BODY_BYTES %s; the largest request would never fit", c.AcceptQueueBytes, c.MaxBodyBytes)
}

func (c *Config) checkTimes(p *problems) {
	const day = 24 * time.Hour
	for _, t := range []struct {
		name          string
		have, lo, top time.Duration
	}{
		{"ACCEPT_WAIT", c.AcceptWait, time.Second, 30 * time.Second},
		{"LEASE", c.Lease, time.Second, 10 * time.Minute},
		{"DRAIN_TIMEOUT", c.DrainTimeout, time.Second, time.Hour},
		{"UNKNOWN_WAIT", c.UnknownWait, time.Second, day},
		{"RECONCILE_DEADLINE", c.ReconcileDeadline, time.Second, 7 * day},
		{"PARK_PROBE", c.ParkProbe, time.Second, time.Hour},
		{"DEFAULT_EXPIRY", c.DefaultExpiry, time.Minute, 30 * day},
		{"RETENTION", c.Retention, day, 3650 * day},
		{"BODY_RETENTION", c.BodyRetention, time.Hour, 3650 * day},
		{"AUDIT_RETENTION", cmp.Or(c.AuditRetention, 30*day), 30 * day, 3650 * day},
	} {
		p.check(t.have >= t.lo && t.have <= t.top, t.name, "%s is out of range %s..%s", t.have, t.lo, t.top)
	}
	p.check(c.ReconcileDeadline >= c.UnknownWait, "RECONCILE_DEADLINE",
		"%s is shorter than SENDGATE_UNKNOWN_WAIT %s", c.ReconcileDeadline, c.UnknownWait)
	p.check(c.ResendMax >= 0 && c.ResendMax <= 10, "RESEND_MAX", "%d is out of range 0..10", c.ResendMax)
	p.check(c.BodyRetention >= c.DefaultExpiry, "BODY_RETENTION",
		"%s is less than SENDGATE_DEFAULT_EXPIRY %s; bodies would be deleted before their messages are sent", c.BodyRetention, c.DefaultExpiry)
	p.check(c.Retention >= c.BodyRetention, "RETENTION",
		"%s is less than SENDGATE_BODY_RETENTION %s", c.Retention, c.BodyRetention)
}

func splitListen(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not host:port", addr)
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%q has no port in 0..65535", addr)
	}
	return host, port, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
