package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/dash"
	"github.com/sendgate/sendgate/internal/devpg"
	"github.com/sendgate/sendgate/internal/emulator"
	emulated "github.com/sendgate/sendgate/internal/emulator/catalog"
	"github.com/sendgate/sendgate/internal/httpapi"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/provider/catalog"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// DevOptions are the options of Dev.
type DevOptions struct {
	Listen     string    // API, host:port
	Data       string    // folder for everything that is kept
	Limits     string    // "documented" or "none"
	AllowHosts []string  // host names that the emulators answer to, beside localhost
	Out        io.Writer // progress, and the line that begins with "ready"

	Program string // first word of the printed commands, default "sendgate"
	Found   bool   // client commands started here find dev.env by themselves

	DatabaseURL string // the user's own server; "" for a private one under Data

	// These mean the same as serve's variables of the same names; "" is the default.
	ForwardAllow, LookupSchedule, UnknownWait string
}

// dev is one running sendgate dev.
type dev struct {
	DevOptions
	log    *slog.Logger
	keys   devKeys
	emu    *emulator.Emulator
	dsn    string
	secret string // SENDGATE_SECRET_KEY
}

// Dev runs everything on this machine: a private Postgres under Data, the emulators, an account at each, and the service. It
// returns when ctx has ended and all parts have stopped.
func Dev(ctx context.Context, o DevOptions) (err error) {
	d := &dev{DevOptions: o}
	if err := os.MkdirAll(o.Data, 0o711); err != nil { //nolint:gosec // Postgres runs as another user when we are root
		return fmt.Errorf("data folder: %w", err)
	}
	if err := d.checkOwned(); err != nil {
		return err
	}
	logFile, err := os.OpenFile(filepath.Join(o.Data, "sendgate.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("log file: %w", err)
	}
	defer func() { _ = logFile.Close() }()
	d.log = telemetry.NewLogger(logFile, slog.LevelInfo, "text")

	if _, err := d.config("postgres://later", strings.Repeat("0", 2*seal.KeySize)); err != nil {
		return err // nothing has been started yet
	}
	if err := freeToListen(ctx, o.Listen); err != nil {
		return err
	}
	if d.keys, err = readDevEnv(d.envPath()); err != nil {
		return err
	}
	stop, err := d.startPostgres(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	if err := d.startEmulator(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.emu.Stop(context.WithoutCancel(ctx))) }()
	return d.serve(ctx)
}

// checkOwned refuses a data folder in which another user could have put keys, a database, or links that we would write to.
func (d *dev) checkOwned() error {
	for _, dir := range []string{d.Data, d.privateDir()} {
		if err := config.CheckOwnedDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("data folder: %w (or choose another one with --data)", err)
		}
	}
	return nil
}

// freeToListen returns an error if the address is taken, before anything is started.
func freeToListen(ctx context.Context, addr string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("%w (choose another address with --listen)", err)
	}
	return l.Close()
}

func (d *dev) say(format string, args ...any) { _, _ = fmt.Fprintf(d.Out, format+"\n", args...) }

// startPostgres starts the private server, or uses the user's. A DatabaseURL from an earlier run's dev.env, which the shell may
// have exported, means the private server.
func (d *dev) startPostgres(ctx context.Context) (stop func() error, err error) {
	if d.DatabaseURL != "" && !d.isPrivate(d.DatabaseURL) {
		d.say("using the database of SENDGATE_DATABASE_URL")
		d.dsn = d.DatabaseURL
		return func() error { return nil }, nil
	}
	pg, err := devpg.Start(ctx, devpg.Options{Dir: d.privateDir(), Log: d.say})
	if err != nil {
		return nil, err
	}
	if d.dsn, err = devpg.EnsureDatabase(ctx, pg.URL(), "sendgate"); err != nil {
		return nil, errors.Join(err, pg.Stop())
	}
	return pg.Stop, nil
}

// isPrivate reports whether a URL is that of the private server in dev.env.
func (d *dev) isPrivate(url string) bool {
	_, err := os.Stat(d.privateDir())
	return err == nil && url == d.keys.database
}

func (d *dev) privateDir() string { return filepath.Join(d.Data, "pg") }

// prepare migrates the schema and reads, or makes, the secret key of this data folder.
func (d *dev) prepare(ctx context.Context) error {
	err := postgres.Migrate(ctx, d.dsn, io.Discard)
	if err != nil {
		return err
	}
	d.secret, err = keptSecret(filepath.Join(d.Data, "secret.key"))
	return err
}

// keptSecret reads a secret key, or makes one and keeps it with mode 0600.
func keptSecret(path string) (string, error) {
	b, err := os.ReadFile(path) //nolint:gosec // under the data folder that the user named
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("secret key: %w", err)
	}
	key := make([]byte, seal.KeySize)
	_, _ = rand.Read(key) // never fails since Go 1.24
	s := hex.EncodeToString(key)
	if err := os.WriteFile(path, []byte(s+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("secret key: %w", err)
	}
	return s, nil
}

func (d *dev) startEmulator(ctx context.Context) error {
	limits := map[string][]limit.Window{}
	if d.Limits == "documented" {
		for _, s := range catalog.Specs() {
			limits[string(s.Kind)] = catalog.DocumentedLimits(s.Kind)
		}
	}
	emu, err := emulated.New(emulator.Options{
		LedgerPath: filepath.Join(d.Data, "ledger.jsonl"), Limits: limits, AllowHosts: d.AllowHosts, Log: d.log,
	})
	if err != nil {
		return err
	}
	if err := emu.Start(ctx); err != nil {
		return err
	}
	d.emu = emu
	return nil
}

func (d *dev) serve(ctx context.Context) error {
	cfg, err := d.config(d.dsn, d.secret)
	if err != nil {
		return err
	}
	a, err := New(cfg, d.log)
	if err != nil {
		return err
	}
	a.mailbox = func() []dash.Mail { return mailbox(d.emu) }
	a.linger, a.devLinks = 0, true // there is no load balancer here, and nobody else
	if err := d.configure(ctx, a); err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		return err
	}
	if err := d.emu.SetHooks(d.hooks(a)); err != nil {
		return errors.Join(err, a.Stop())
	}
	if err := d.announce(ctx, a); err != nil {
		return errors.Join(err, a.Stop())
	}
	return a.Run(ctx)
}

// config returns the settings of serve for this machine.
func (d *dev) config(dsn, secret string) (config.Config, error) {
	return config.Load([]string{
		"SENDGATE_LISTEN=" + d.Listen, "SENDGATE_OPS_LISTEN=127.0.0.1:0", "SENDGATE_DATABASE_URL=" + dsn,
		"SENDGATE_SECRET_KEY=" + secret, "SENDGATE_LMTP_LISTEN=127.0.0.1:0", "SENDGATE_PUBLIC_URL=" + d.publicURL(),
		"SENDGATE_FORWARD_ALLOW=" + d.ForwardAllow, "SENDGATE_UNKNOWN_WAIT=" + cmp.Or(d.UnknownWait, "60s"),
		"SENDGATE_LOOKUP_SCHEDULE=" + cmp.Or(d.LookupSchedule, "1m,5m,30m"),
	})
}

// publicURL is the URL of this service on this machine, "" if its port is not known yet.
func (d *dev) publicURL() string {
	if _, port, err := net.SplitHostPort(d.Listen); err != nil || port == "0" {
		return ""
	}
	return "http://" + d.Listen
}

// hooks returns, for each emulator, where it sends its events.
func (d *dev) hooks(a *App) map[string]emulator.Hook {
	hooks := map[string]emulator.Hook{}
	for _, k := range emulated.Kinds() {
		hooks[k.Name] = emulator.Hook{"url": a.URL + "/hooks/" + k.Name}
		if k.SMTP {
			hooks[k.Name]["url"] = "lmtp://" + a.LMTPAddr
		}
	}
	return hooks
}

// configure stores the keys and updates the accounts to the addresses of the emulators, which change at each start.
func (d *dev) configure(ctx context.Context, a *App) error {
	db, err := postgres.Open(ctx, postgres.Options{URL: d.dsn, Box: a.box})
	if err != nil {
		return err
	}
	defer db.Close()
	if d.keys.api == "" {
		_, d.keys.api, _ = httpapi.NewKey()
		_, d.keys.admin, _ = httpapi.NewKey()
	}
	if err := d.storeKeys(ctx, db); err != nil {
		return err
	}
	return d.storeAccounts(ctx, db)
}

func (d *dev) storeKeys(ctx context.Context, db *postgres.DB) error {
	for full, scopes := range map[string][]record.Scope{
		d.keys.api:   {record.ScopeSend, record.ScopeRead, record.ScopeSuppressionsWrite, record.ScopeComplaints, record.ScopeWebhooksWrite},
		d.keys.admin: {record.ScopeAdmin, record.ScopeSubjectsRead, record.ScopeSubjectsWrite},
	} {
		id, hash, err := httpapi.ParseKey(full)
		if err != nil {
			return fmt.Errorf("%s contains a broken key; remove the file to get new keys: %w", d.envPath(), err)
		}
		k := record.Key{ID: id, Tenant: mail.DefaultTenant, Name: "dev", Hash: hash, Scopes: scopes}
		if err := ensureKey(ctx, db, k); err != nil {
			return err
		}
	}
	return nil
}

// announce waits until the service is ready, writes dev.env and prints the ready line.
func (d *dev) announce(ctx context.Context, a *App) error {
	for err := a.ready(ctx); err != nil; err = a.ready(ctx) {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := d.writeEnv(a.URL); err != nil {
		return err
	}
	link, err := a.devLink(ctx)
	if err != nil {
		return err
	}
	d.say("ready  API %s   emulators %s and smtp://%s   data and log in %s", a.URL, d.emu.URL(), d.emu.SMTPAddr(), d.Data)
	d.say("look   %s/_ledger lists the sent mails, /_ledger/MESSAGE_ID/html there shows one", d.emu.URL())
	d.say("dash   %s signs you in at the dashboard, once", link)
	if !d.Found {
		d.say("keys   set -a; . %s; set +a", d.envPath())
	}
	d.say("try    %s send --from shop@example.com --to ann@example.org --subject Hello --text 'It works.'", cmp.Or(d.Program, "sendgate"))
	return nil
}
