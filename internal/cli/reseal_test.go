package cli

import (
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// Secrets go from one key to the next by the command, and what it says holds neither a key nor a secret.
func TestSecretsResealMovesThemToThePresentKey(t *testing.T) {
	t.Parallel()
	dsn := pgtest.NewURL(t)
	one, two := strings.Repeat("1a", seal.KeySize), strings.Repeat("2b", seal.KeySize)
	with := func(key string, more ...string) []string {
		return append([]string{"SENDGATE_DATABASE_URL=" + dsn, "SENDGATE_SECRET_KEY=" + key}, more...)
	}
	open := func(key string) *postgres.DB {
		t.Helper()
		cfg, err := config.Load(with(key))
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
		return db
	}
	db := open(one)
	err := db.CreateAccount(t.Context(), "ops", route.Account{Name: "a", Kind: "postmark", Settings: []byte("{}"), Concurrency: 1}, map[string]seal.Secret{
		"server_token": seal.NewSecret("hunter2"),
	})
	if err == nil {
		_, err = db.CreateEndpoint(t.Context(), "ops", record.Endpoint{Tenant: mail.DefaultTenant, URL: "https://a.example/"}, seal.NewSecret("whsec_hunter2"), seal.Secret{})
	}
	db.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what      string
		env       []string
		code      int
		out, errs string
	}{
		{"without the key that sealed them", with(two), 1, "unreadable", "SENDGATE_SECRET_KEY_PREVIOUS"},
		{"with both keys, and a mistake in another setting", with(two, "SENDGATE_SECRET_KEY_PREVIOUS="+one, "SENDGATE_LEASE=soon"), 1, "", "SENDGATE_LEASE"},
		{"with both keys", with(two, "SENDGATE_SECRET_KEY_PREVIOUS="+one), 0, `"resealed": 2`, ""},
		{"once more", with(two, "SENDGATE_SECRET_KEY_PREVIOUS="+one), 0, `"current": 2`, ""},
		{"with the new key alone", with(two), 0, `"current": 2`, ""},
		{"with the old key alone", with(one), 1, "account/", "none of the keys decrypts 2 secrets"},
	} {
		w := &world{t: t, dir: t.TempDir(), env: c.env}
		args := []string{"secrets", "reseal"}
		if c.code == 0 || strings.Contains(c.out, "/") {
			args = append(args, "--json")
		}
		got := w.run(args...)
		got.want(t, c.code, c.out, c.errs)
		for _, secret := range []string{one, two, "hunter2"} {
			if strings.Contains(got.out+got.err, secret) {
				t.Errorf("%s: it shows %q:\n%s%s", c.what, secret, got.out, got.err)
			}
		}
	}
	db = open(two)
	defer db.Close()
	cfg, err := db.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if secrets, err := db.Secrets(t.Context(), cfg.Account("a").ID); err != nil || secrets["server_token"].Reveal() != "hunter2" {
		t.Errorf("the secret under the new key: %v", err)
	}
}
