package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/httpapi"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/provider/catalog"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// Serve runs one replica until ctx ends, then drains. On the first start it makes accounts from the providers' usual
// environment variables and puts them into the pool "default" with equal weights; later changes belong to the admin API. On
// SIGHUP it reads its certificate again.
func Serve(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	a, err := New(cfg, log)
	if err != nil {
		return err
	}
	accounts, secrets, err := accountsOf(os.Environ())
	if err != nil {
		return err
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP) // otherwise SIGHUP would end the process
	defer signal.Stop(hangups)
	go a.reloadOn(ctx, hangups)
	log.Info("starting", "config", cfg.Dump())
	a.fitMemory()
	if cfg.BehindProxy && len(cfg.TrustedProxies) == 0 {
		log.Warn("SENDGATE_BEHIND_PROXY is set and SENDGATE_TRUSTED_PROXIES is not: all clients of the proxy share the limits of one address; " +
			"set it to the networks that the proxy's connections come from")
	}
	if err := a.openForBootstrap(ctx, accounts, secrets); err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		return err
	}
	log.Info("ready", "url", a.URL, "ops", a.OpsURL, "admin", cmp.Or(a.AdminURL, a.URL))
	if err := a.Run(ctx); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// accountsOf makes accounts of the providers' variables, and of the files that variables with _FILE behind these names lead to.
func accountsOf(environ []string) ([]route.Account, secretsByAccount, error) {
	environ, err := config.WithSecrets(environ, catalog.SecretVariables()...)
	if err != nil {
		return nil, nil, err
	}
	return catalog.Accounts(environ)
}

// openForBootstrap stores the admin key and the accounts from the environment, before the engine first reads the configuration.
func (a *App) openForBootstrap(ctx context.Context, accounts []route.Account, secrets secretsByAccount) error {
	db, err := postgres.Open(ctx, postgres.Options{URL: a.cfg.DatabaseURL.Reveal(), Box: a.box, Clock: a.clock})
	if err != nil {
		return err
	}
	defer db.Close()
	a.db = db
	if err := a.awaitDatabase(ctx); err != nil {
		return err
	}
	if err := ensureAdminKey(ctx, db, a.cfg.AdminKey.Reveal()); err != nil {
		return err
	}
	return a.firstAccounts(ctx, db, accounts, secrets)
}

// firstAccounts makes the accounts, unless there is one already: then this installation has been configured.
func (a *App) firstAccounts(ctx context.Context, db *postgres.DB, accounts []route.Account, secrets secretsByAccount) error {
	c, err := db.Config(ctx)
	if err != nil || len(c.Accounts) > 0 || len(accounts) == 0 {
		return err
	}
	for _, acc := range accounts {
		err := db.CreateAccount(ctx, "system", acc, secrets[acc.Name])
		if errors.Is(err, record.ErrConflict) { // another replica starts at the same time
			continue
		}
		if err != nil {
			return err
		}
		a.log.Info("account made from the environment", "account", acc.Name, "kind", acc.Kind)
	}
	return equalWeights(ctx, db, accounts)
}

// equalWeights puts accounts into the default pool at weight 1, unless the pool has members.
func equalWeights(ctx context.Context, db *postgres.DB, accounts []route.Account) error {
	c, err := db.Config(ctx)
	if err != nil {
		return err
	}
	pool := c.Pool(route.DefaultPool)
	if pool == nil || len(pool.Members) > 0 {
		return nil
	}
	next := route.Pool{Name: pool.Name, Overflow: pool.Overflow}
	for _, acc := range accounts {
		next.Members = append(next.Members, route.Member{Account: acc.Name, Weight: 1})
	}
	_, err = db.UpdatePool(ctx, "system", next, pool.Version)
	if errors.Is(err, record.ErrStale) {
		return nil
	}
	return err
}

// ensureAdminKey stores the bootstrap admin key, if one is given and it is not stored yet.
func ensureAdminKey(ctx context.Context, db *postgres.DB, full string) error {
	if full == "" {
		return nil
	}
	id, hash, err := httpapi.ParseKey(full)
	if err != nil {
		return errors.New("SENDGATE_ADMIN_KEY is not a sendgate key; make one with: sendgate keys generate")
	}
	key := record.Key{ID: id, Tenant: mail.DefaultTenant, Name: "bootstrap", Hash: hash, Scopes: []record.Scope{record.ScopeAdmin}}
	return ensureKey(ctx, db, key)
}

// ensureKey stores a key unless there is one of that id.
func ensureKey(ctx context.Context, db *postgres.DB, key record.Key) error {
	_, err := db.KeyByID(ctx, key.ID)
	if !errors.Is(err, record.ErrNotFound) {
		return err
	}
	if err := db.CreateKey(ctx, "system", key); err != nil && !errors.Is(err, record.ErrConflict) {
		return err
	}
	return nil
}

// MigrateUp applies the missing migrations of the schema.
func MigrateUp(ctx context.Context, dsn string, out io.Writer) error {
	if err := postgres.Migrate(ctx, dsn, out); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "schema is at version %d\n", postgres.SchemaVersion)
	return err
}

// MigrateStatus lists which migrations are applied and which are not.
func MigrateStatus(ctx context.Context, dsn string, out io.Writer) error {
	return postgres.MigrateStatus(ctx, dsn, out)
}
