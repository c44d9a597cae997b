package app

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestDoctorWarnsOfWhatStrangersCanUse(t *testing.T) {
	t.Parallel()
	dsn := pgtest.NewURL(t)
	look := func(settings ...string) string {
		t.Helper()
		cfg, err := config.Load(append([]string{"SENDGATE_DATABASE_URL=" + dsn, "SENDGATE_SECRET_KEY=" + strings.Repeat("ab", 32)}, settings...))
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, c := range Doctor(t.Context(), cfg) {
			if !c.OK && c.Level == "warn" && c.Fix != "" {
				found = append(found, c.Name+": "+c.Detail)
			}
		}
		return strings.Join(found, "\n")
	}
	cfg, err := config.Load([]string{"SENDGATE_DATABASE_URL=" + dsn, "SENDGATE_SECRET_KEY=" + strings.Repeat("ab", 32)})
	if err != nil {
		t.Fatal(err)
	}
	box, err := cfg.Box()
	if err != nil {
		t.Fatal(err)
	}
	db, err := postgres.Open(t.Context(), postgres.Options{URL: dsn, Box: box})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for name, password := range map[string]string{"short": "x", "long": strings.Repeat("x", 16)} {
		err := db.CreateAccount(t.Context(), "ops", route.Account{Name: name, Kind: "postmark", Settings: []byte("{}"), Concurrency: 1}, map[string]seal.Secret{
			"server_token": seal.NewSecret("token"), "webhook_password": seal.NewSecret(password), "webhook_password_previous": seal.NewSecret(password),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	got := look("SENDGATE_BEHIND_PROXY=true")
	for _, want := range []string{"account short: webhook_password has", "account short: webhook_password_previous has", "SENDGATE_TRUSTED_PROXIES: "} {
		if !strings.Contains(got, want) {
			t.Errorf("findings lack %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "account long") {
		t.Errorf("a password of 16 characters is warned of:\n%s", got)
	}
	named := config.Config{BehindProxy: true, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, c := range reachChecks(t.Context(), db, &named, time.Now()) {
		if c.Name == "SENDGATE_TRUSTED_PROXIES" {
			t.Errorf("a proxy that is named is warned of: %s", c.Detail)
		}
	}
}
