package config

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/seal"
)

const (
	testKey = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	testDSN = "postgres://sendgate:dbPASSword@127.0.0.1/sendgate"
)

// base is the smallest environment that works, with extra variables behind it.
func base(extra ...string) []string {
	return append([]string{"PATH=/bin", "SENDGATE_DATABASE_URL=" + testDSN, "SENDGATE_SECRET_KEY=" + testKey}, extra...)
}

func load(t *testing.T, environ []string) Config {
	t.Helper()
	c, err := Load(environ)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	want := Config{
		Listen: "127.0.0.1:8025", OpsListen: "127.0.0.1:8026",
		DatabaseURL: seal.NewSecret(testDSN), SecretKey: seal.NewSecret(testKey),
		DatabaseConnections: 18, LogLevel: slog.LevelInfo, LogFormat: "json",
		MaxBodyBytes: 30 << 20, AcceptQueue: 32768, AcceptQueueBytes: 96 << 20, AcceptWait: 10 * time.Second,
		Lease: 15 * time.Second, DrainTimeout: 25 * time.Second, UnknownWait: time.Minute,
		ReconcileDeadline: 40 * time.Minute, ReconcileFallback: "fail", ResendMax: 2, DefaultExpiry: 72 * time.Hour, ParkProbe: 5 * time.Minute,
		LookupSchedule: Durations{time.Minute, 5 * time.Minute, 30 * time.Minute}, SoftBounceLimit: 5,
		RepeatSchedule: Durations{10 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour},
		Retention:      90 * 24 * time.Hour, BodyRetention: 7 * 24 * time.Hour,
	}
	got := load(t, base("SENDGATE_LOG_LEVEL=")) // an empty value counts as not set
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
}

func TestEverySettingIsRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	for _, f := range []string{cert, key} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := load(t, base(
		"SENDGATE_LISTEN=0.0.0.0:443", "SENDGATE_OPS_LISTEN=:9000", "SENDGATE_OPS_HOSTS=ops.example.com,*.corp.example", "SENDGATE_ADMIN_LISTEN=:9001", "SENDGATE_ADMIN_NETWORKS=::ffff:10.0.0.0/104", "SENDGATE_ADMIN_KEY=sg_0123abcd_adminKEY",
		"SENDGATE_LOG_LEVEL=debug", "SENDGATE_LOG_FORMAT=text", "SENDGATE_MAX_BODY_BYTES=1024", "SENDGATE_ACCEPT_QUEUE=7", "SENDGATE_ACCEPT_WAIT=4s",
		"SENDGATE_ACCEPT_QUEUE_BYTES=1GiB", "SENDGATE_LEASE=2s", "SENDGATE_DRAIN_TIMEOUT=3s", "SENDGATE_UNKNOWN_WAIT=4s",
		"SENDGATE_RECONCILE_DEADLINE=5m", "SENDGATE_RECONCILE_FALLBACK=resend", "SENDGATE_RESEND_MAX=0", "SENDGATE_DEFAULT_EXPIRY=6h", "SENDGATE_PARK_PROBE=7s",
		"SENDGATE_TLS_CERT_FILE="+cert, "SENDGATE_TLS_KEY_FILE="+key, "SENDGATE_BEHIND_PROXY=true",
		"SENDGATE_TRUSTED_PROXIES=10.1.2.3/8, 192.0.2.7,2001:db8::/32", "SENDGATE_RETENTION=400d", "SENDGATE_BODY_RETENTION=30d", "SENDGATE_AUDIT_RETENTION=730d",
		"SENDGATE_LOOKUP_SCHEDULE=2s, 1h", "SENDGATE_REPEAT_SCHEDULE=1s", "SENDGATE_SOFT_BOUNCE_LIMIT=0", "SENDGATE_PUBLIC_URL=https://mail.example.com/in",
		"SENDGATE_DATABASE_CONNECTIONS=9", "SENDGATE_LMTP_LISTEN=unix:/run/sendgate/lmtp", "SENDGATE_FORWARD_ALLOW=10.1.2.3/8:8443, [fd00::/8]:443",
	))
	want := Config{
		Listen: "0.0.0.0:443", OpsListen: ":9000", OpsHosts: []string{"ops.example.com", "*.corp.example"}, AdminListen: ":9001", AdminNetworks: Networks{netip.MustParsePrefix("10.0.0.0/8")}, AdminKey: seal.NewSecret("sg_0123abcd_adminKEY"),
		DatabaseURL: seal.NewSecret(testDSN), SecretKey: seal.NewSecret(testKey),
		DatabaseConnections: 9, LogLevel: slog.LevelDebug, LogFormat: "text", MaxBodyBytes: 1024, AcceptQueue: 7, AcceptWait: 4 * time.Second, AcceptQueueBytes: 1 << 30,
		Lease: 2 * time.Second, DrainTimeout: 3 * time.Second, UnknownWait: 4 * time.Second,
		ReconcileDeadline: 5 * time.Minute, ReconcileFallback: "resend", ResendMax: 0, DefaultExpiry: 6 * time.Hour, ParkProbe: 7 * time.Second,
		TLSCertFile: cert, TLSKeyFile: key, BehindProxy: true,
		TrustedProxies: Networks{
			netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::/32"),
		},
		Retention: 400 * 24 * time.Hour, BodyRetention: 30 * 24 * time.Hour, AuditRetention: 730 * 24 * time.Hour,
		LookupSchedule: Durations{2 * time.Second, time.Hour}, RepeatSchedule: Durations{time.Second}, PublicURL: "https://mail.example.com/in",
		LMTPListen:   "unix:/run/sendgate/lmtp",
		ForwardAllow: Targets{{netip.MustParsePrefix("10.0.0.0/8"), 8443}, {netip.MustParsePrefix("fd00::/8"), 443}},
	}
	compare := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
}

func TestProblemsNameTheVariable(t *testing.T) {
	t.Parallel()
	for env, want := range map[string]string{
		"SENDGATE_LISTEN=8025":                          "SENDGATE_LISTEN:",
		"SENDGATE_LISTEN=127.0.0.1:99999":               "SENDGATE_LISTEN:",
		"SENDGATE_LISTEN=0.0.0.0:8025":                  "SENDGATE_BEHIND_PROXY=true",
		"SENDGATE_OPS_LISTEN=x":                         "SENDGATE_OPS_LISTEN:",
		"SENDGATE_OPS_LISTEN=127.0.0.1:8025":            "SENDGATE_OPS_LISTEN:",
		"SENDGATE_ADMIN_LISTEN=8029":                    "SENDGATE_ADMIN_LISTEN:",
		"SENDGATE_ADMIN_LISTEN=0.0.0.0:8029":            "SENDGATE_ADMIN_LISTEN: 0.0.0.0:8029 would carry API keys in clear",
		"SENDGATE_ADMIN_LISTEN=127.0.0.1:8025":          "SENDGATE_ADMIN_LISTEN:",
		"SENDGATE_ADMIN_LISTEN=127.0.0.1:8026":          "SENDGATE_ADMIN_LISTEN:",
		"SENDGATE_ADMIN_NETWORKS=office":                "SENDGATE_ADMIN_NETWORKS:",
		"SENDGATE_ADMIN_NETWORKS=::ffff:0:0/90":         "SENDGATE_ADMIN_NETWORKS:",
		"SENDGATE_ADMIN_NETWORKS= , ":                   "SENDGATE_ADMIN_NETWORKS:",
		"SENDGATE_DATABASE_URL=":                        "SENDGATE_DATABASE_URL:",
		"SENDGATE_DATABASE_URL=mysql://u:dbPASSword@h/": "SENDGATE_DATABASE_URL:",
		"SENDGATE_SECRET_KEY=":                          "SENDGATE_SECRET_KEY:",
		"SENDGATE_SECRET_KEY=tooshortSECRET":            "SENDGATE_SECRET_KEY:",
		"SENDGATE_ADMIN_KEY=shortSECRET":                "SENDGATE_ADMIN_KEY:",
		"SENDGATE_ADMIN_KEY=longSECRET-of-other-form":   "SENDGATE_ADMIN_KEY:",
		"SENDGATE_LOG_LEVEL=loud":                       "SENDGATE_LOG_LEVEL:",
		"SENDGATE_DATABASE_CONNECTIONS=7":               "SENDGATE_DATABASE_CONNECTIONS:",
		"SENDGATE_DATABASE_CONNECTIONS=501":             "SENDGATE_DATABASE_CONNECTIONS:",
		"SENDGATE_LOG_FORMAT=xml":                       "SENDGATE_LOG_FORMAT:",
		"SENDGATE_MAX_BODY_BYTES=30MB":                  "SENDGATE_MAX_BODY_BYTES:",
		"SENDGATE_MAX_BODY_BYTES=1":                     "SENDGATE_MAX_BODY_BYTES:",
		"SENDGATE_ACCEPT_QUEUE=many":                    "SENDGATE_ACCEPT_QUEUE:",
		"SENDGATE_ACCEPT_QUEUE=0":                       "SENDGATE_ACCEPT_QUEUE:",
		"SENDGATE_ACCEPT_WAIT=900ms":                    "SENDGATE_ACCEPT_WAIT:",
		"SENDGATE_ACCEPT_WAIT=31s":                      "SENDGATE_ACCEPT_WAIT:",
		"SENDGATE_ACCEPT_QUEUE_BYTES=1MiB":              "SENDGATE_ACCEPT_QUEUE_BYTES:",
		"SENDGATE_LEASE=15":                             "SENDGATE_LEASE:",
		"SENDGATE_LEASE=1ms":                            "SENDGATE_LEASE:",
		"SENDGATE_DRAIN_TIMEOUT=0s":                     "SENDGATE_DRAIN_TIMEOUT:",
		"SENDGATE_UNKNOWN_WAIT=-1s":                     "SENDGATE_UNKNOWN_WAIT:",
		"SENDGATE_RECONCILE_DEADLINE=10s":               "SENDGATE_RECONCILE_DEADLINE:",
		"SENDGATE_RECONCILE_FALLBACK=guess":             "SENDGATE_RECONCILE_FALLBACK:",
		"SENDGATE_RESEND_MAX=-1":                        "SENDGATE_RESEND_MAX:",
		"SENDGATE_RESEND_MAX=11":                        "SENDGATE_RESEND_MAX:",
		"SENDGATE_RESEND_MAX=twice":                     "SENDGATE_RESEND_MAX:",
		"SENDGATE_DEFAULT_EXPIRY=200h":                  "SENDGATE_BODY_RETENTION:",
		"SENDGATE_BODY_RETENTION=100d":                  "SENDGATE_RETENTION:",
		"SENDGATE_RETENTION=1h":                         "SENDGATE_RETENTION:",
		"SENDGATE_AUDIT_RETENTION=29d":                  "SENDGATE_AUDIT_RETENTION:",
		"SENDGATE_TLS_CERT_FILE=/nonexistent/cert":      "SENDGATE_TLS_CERT_FILE:",
		"SENDGATE_BEHIND_PROXY=maybe":                   "SENDGATE_BEHIND_PROXY:",
		"SENDGATE_TRUSTED_PROXIES=10.0.0.0/8":           "SENDGATE_TRUSTED_PROXIES:",
		"SENDGATE_TRUSTED_PROXIES=proxy.internal":       "SENDGATE_TRUSTED_PROXIES:",
		"SENDGATE_SECRET_KEY_FILE=/nonexistent/key":     "SENDGATE_SECRET_KEY_FILE:",
		"SENDGATE_LOOKUP_SCHEDULE=5m,1m":                "SENDGATE_LOOKUP_SCHEDULE:",
		"SENDGATE_REPEAT_SCHEDULE=5m,5m":                "SENDGATE_REPEAT_SCHEDULE:",
		"SENDGATE_LOOKUP_SCHEDULE=soon":                 "SENDGATE_LOOKUP_SCHEDULE:",
		"SENDGATE_SOFT_BOUNCE_LIMIT=-1":                 "SENDGATE_SOFT_BOUNCE_LIMIT:",
		"SENDGATE_PUBLIC_URL=http://mail.example.com":   "SENDGATE_PUBLIC_URL:",
		"SENDGATE_PUBLIC_URL=https://mail.example.com/": "SENDGATE_PUBLIC_URL:",
		"SENDGATE_PUBLIC_URL=https://u:p@example.com":   "SENDGATE_PUBLIC_URL:",
		"SENDGATE_LMTP_LISTEN=0.0.0.0:24":               "SENDGATE_LMTP_LISTEN:",
		"SENDGATE_LMTP_LISTEN=relative":                 "SENDGATE_LMTP_LISTEN:",
		"SENDGATE_FORWARD_ALLOW=10.0.0.0/8":             "SENDGATE_FORWARD_ALLOW:",
		"SENDGATE_FORWARD_ALLOW=host:80":                "SENDGATE_FORWARD_ALLOW:",
	} {
		_, err := Load(base(env))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Load with %s = %v, want an error with %s", env, err, want)
			continue
		}
		for _, secret := range []string{"SECRET", "dbPASSword", testKey} {
			if strings.Contains(strings.ReplaceAll(err.Error(), "SENDGATE_SECRET", ""), secret) {
				t.Errorf("Load with %s: the error holds a secret: %v", env, err)
			}
		}
	}
}

func TestAllProblemsComeAtOnceOneLineEach(t *testing.T) {
	t.Parallel()
	_, err := Load([]string{"SENDGATE_LEASE=soon", "SENDGATE_LOG_FORMAT=xml", "SENDGATE_LISTEM=:1"})
	if err == nil {
		t.Fatal("Load succeeded")
	}
	var got []string
	for line := range strings.Lines(err.Error()) {
		name, _, _ := strings.Cut(line, ":")
		got = append(got, name)
	}
	want := []string{
		"SENDGATE_LEASE", "SENDGATE_LISTEM", "SENDGATE_DATABASE_URL", "SENDGATE_SECRET_KEY", "SENDGATE_LOG_FORMAT",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s\n%v", diff, err)
	}
}

func TestUnknownVariablesAreErrorsWithASuggestion(t *testing.T) {
	t.Parallel()
	for env, want := range map[string]string{
		"SENDGATE_LISTN=:1":       "did you mean SENDGATE_LISTEN?",
		"SENDGATE_DATABASE=x":     "did you mean SENDGATE_DATABASE_URL?",
		"SENDGATE_UNKNOWN_WAITS=": "did you mean SENDGATE_UNKNOWN_WAIT?",
		"SENDGATE_QWERTZUIOP=1":   "unset it",
		"SENDGATE_PORT=8025":      "SENDGATE_PORT",
	} {
		_, err := Load(base(env))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Load with %s = %v, want %q", env, err, want)
		}
	}
}

func TestVariablesOfOthersAreLeftAlone(t *testing.T) {
	t.Parallel()
	load(t, base(
		"SENDGATE_URL=http://127.0.0.1:8025", "SENDGATE_API_KEY=k", "SENDGATE_EMULATOR_URL=http://127.0.0.1:1", "SENDGATE_SES=1",
		"SENDGATEX=1", "OTHER_THING=1",
		// what Kubernetes sets for a Service named sendgate, and one named sendgate-ops
		"SENDGATE_SERVICE_HOST=10.0.0.1", "SENDGATE_SERVICE_PORT=8025", "SENDGATE_SERVICE_PORT_HTTP=8025",
		"SENDGATE_PORT=tcp://10.0.0.1:8025", "SENDGATE_PORT_8025_TCP=tcp://10.0.0.1:8025", "SENDGATE_PORT_8025_TCP_ADDR=10.0.0.1",
		"SENDGATE_OPS_SERVICE_HOST=10.0.0.2", "SENDGATE_OPS_PORT=tcp://10.0.0.2:8026",
	))
}

func TestSecretKeyFile(t *testing.T) {
	t.Parallel()
	write := func(mode os.FileMode, text string) string {
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for name, c := range map[string]struct {
		file string
		want string // "" for good
	}{
		"private":           {write(0o600, testKey+"\n"), ""},
		"read only":         {write(0o400, testKey), ""},
		"others may write":  {write(0o602, testKey), "chmod 600"},
		"directory":         {t.TempDir(), "regular file"},
		"missing":           {"/nonexistent", "SENDGATE_SECRET_KEY_FILE"},
		"not a key":         {write(0o600, "hello"), "SENDGATE_SECRET_KEY_FILE"},
		"empty":             {write(0o600, ""), "SENDGATE_SECRET_KEY_FILE"},
		"much longer":       {write(0o600, testKey+strings.Repeat("x", 4096)), "SENDGATE_SECRET_KEY_FILE"},
		"key and more text": {write(0o600, testKey+" # comment"), "SENDGATE_SECRET_KEY_FILE"},
	} {
		got, err := Load([]string{"SENDGATE_DATABASE_URL=" + testDSN, "SENDGATE_SECRET_KEY_FILE=" + c.file})
		switch {
		case c.want == "" && (err != nil || got.SecretKey.Reveal() != testKey):
			t.Errorf("%s: Load = %v, want the key of the file", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: Load = %v, want an error with %s", name, err, c.want)
		}
	}
	_, err := Load(base("SENDGATE_SECRET_KEY_FILE=" + write(0o600, testKey)))
	if err == nil || !strings.Contains(err.Error(), "SENDGATE_SECRET_KEY_FILE") {
		t.Errorf("Load with key and key file = %v, want an error", err)
	}
}

func TestBoxSealsUnderTheKey(t *testing.T) {
	t.Parallel()
	c := load(t, base())
	box, err := c.Box()
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.Box()
	if err != nil {
		t.Fatal(err)
	}
	got, err := other.Open(box.Seal(seal.NewSecret("x"), "b"), "b")
	if err != nil || got.Reveal() != "x" {
		t.Errorf("Open = %v, want what another box of the same key sealed", err)
	}
}

func TestDumpHoldsEverySettingAndNoSecret(t *testing.T) {
	t.Parallel()
	c := load(t, base("SENDGATE_ADMIN_KEY=sg_0123abcd_adminKEY"))
	attrs := c.Dump()
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).LogAttrs(t.Context(), slog.LevelInfo, "configuration", attrs...)
	for _, secret := range []string{"dbPASSword", testKey, "sg_0123abcd_adminKEY"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("Dump holds a secret: %s", out.String())
		}
	}
	for _, want := range []string{"database_url_set=true", "max_body_bytes=30MiB", "lease=15s", "log_level=INFO", "secret_key_file="} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("Dump lacks %s: %s", want, out.String())
		}
	}
	if len(attrs) != len(names()) {
		t.Errorf("Dump has %d settings, want %d", len(attrs), len(names()))
	}
}

func TestOnlyNamedProxiesAreTrusted(t *testing.T) {
	t.Parallel()
	c := load(t, base("SENDGATE_BEHIND_PROXY=1", "SENDGATE_TRUSTED_PROXIES=10.0.0.0/8,::1"))
	for addr, want := range map[string]bool{
		"10.9.9.9": true, "::ffff:10.9.9.9": true, "::1": true, "11.0.0.1": false, "::2": false,
	} {
		if got := c.Trusts(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Trusts(%s) = %v, want %v", addr, got, want)
		}
	}
	c.BehindProxy = false
	if c.Trusts(netip.MustParseAddr("10.9.9.9")) {
		t.Error("Trusts believes a proxy though none is configured")
	}
}

func FuzzTypesReadOrRefuse(f *testing.F) {
	for _, s := range []string{"30MiB", "1GiB", "9223372036854775807KiB", "-1", "90d", "1h", "99999999999d", "10.0.0.0/8,::1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var b, again Bytes
		if b.UnmarshalText([]byte(s)) == nil {
			if b < 0 {
				t.Errorf("%q is %d bytes", s, b)
			}
			if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
				t.Errorf("%q prints as %s, which reads as %d, %v", s, b, again, err)
			}
		}
		var n Networks
		if n.UnmarshalText([]byte(s)) == nil {
			for _, p := range n {
				if !p.IsValid() {
					t.Errorf("%q gives an invalid range", s)
				}
			}
		}
		_, _ = parseDuration(s)
	})
}

func TestWaitsNeedNoOtherSetting(t *testing.T) {
	t.Parallel()
	unknown, reconcile, err := Waits([]string{"SENDGATE_RECONCILE_DEADLINE=3h"})
	if unknown != time.Minute || reconcile != 3*time.Hour || err != nil {
		t.Errorf("Waits = %s, %s, %v; want the default of one and the other as set", unknown, reconcile, err)
	}
}
