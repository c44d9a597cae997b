package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/app"
	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/telemetry"
)

type devCmd struct {
	Listen string `default:"127.0.0.1:8025" help:"Where the API listens, host:port."`
	Data   string `default:".sendgate" help:"Directory for all data."`
	Limits string `enum:"documented,none" default:"documented" help:"Keep the providers' documented limits, or none (for load tests)."`

	AllowHost []string `placeholder:"NAME" help:"Another host name, besides localhost, at which the emulators answer (repeat)."`
}

// Help implements kong.HelpProvider.
func (*devCmd) Help() string {
	return `Starts a private Postgres under the data directory, emulators of the six providers, one account for each of them with equal weights, and the API. ` +
		`No mail leaves this machine. It writes its address and keys to DATA/dev.env, prints a link that signs you in at the dashboard, and runs until Ctrl-C. The next run has all data. ` +
		`With SENDGATE_DATABASE_URL it uses that database instead of a private Postgres. ` +
		`SENDGATE_FORWARD_ALLOW, SENDGATE_LOOKUP_SCHEDULE and SENDGATE_UNKNOWN_WAIT mean the same as for serve.

Examples:

  sendgate dev
  sendgate dev --listen 127.0.0.1:9025 --data /tmp/try --limits none
  SENDGATE_FORWARD_ALLOW=127.0.0.0/8:8080 sendgate dev`
}

// Run implements the command.
func (c *devCmd) Run(ctx context.Context, s *Streams) error {
	dsn, err := config.Secret(s.Env, "SENDGATE_DATABASE_URL")
	if err != nil {
		return err
	}
	return ended(ctx, app.Dev(ctx, c.options(s, dsn)))
}

func (c *devCmd) options(s *Streams, dsn string) app.DevOptions {
	return app.DevOptions{
		Listen: c.Listen, Data: s.path(c.Data), Limits: c.Limits, AllowHosts: c.AllowHost, Out: s.Out,
		Program: s.program(), Found: s.path(c.Data) == s.path(filepath.Dir(devEnv)),
		DatabaseURL:    dsn,
		ForwardAllow:   s.getenv("SENDGATE_FORWARD_ALLOW"),
		LookupSchedule: s.getenv("SENDGATE_LOOKUP_SCHEDULE"),
		UnknownWait:    s.getenv("SENDGATE_UNKNOWN_WAIT"),
	}
}

type serveCmd struct{}

// Help implements kong.HelpProvider.
func (*serveCmd) Help() string {
	return `Settings are environment variables; the README lists them. Any number of processes can run on one database. Logs go to standard error. ` +
		`On SIGTERM it takes no new mail and finishes calls in progress. On SIGHUP it reads the TLS certificate again.

Example:

  SENDGATE_DATABASE_URL=postgres://sendgate@db/sendgate SENDGATE_SECRET_KEY_FILE=/run/secrets/sendgate sendgate serve`
}

// Run implements the command.
func (*serveCmd) Run(ctx context.Context, s *Streams) error {
	cfg, err := config.Load(s.Env)
	if err != nil {
		return configError(s, err)
	}
	return ended(ctx, app.Serve(ctx, cfg, telemetry.NewLogger(s.Err, cfg.LogLevel, cfg.LogFormat)))
}

// ended turns an end by a signal into success.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// configError prints all problems of the settings, one line each.
func configError(s *Streams, err error) error {
	for _, line := range splitErrors(err) {
		fmt.Fprintln(s.Err, "sendgate:", clean(line))
	}
	return errShown
}

// splitErrors returns the text of each error in an errors.Join, nested ones too.
func splitErrors(err error) []string {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []string{err.Error()}
	}
	var lines []string
	for _, e := range joined.Unwrap() {
		lines = append(lines, splitErrors(e)...)
	}
	return lines
}

type keysGenerateCmd struct{}

// Help implements kong.HelpProvider.
func (*keysGenerateCmd) Help() string {
	return `This needs no server. serve stores the hash of SENDGATE_ADMIN_KEY when it starts; make all other keys with keys create.

Example:

  sendgate keys generate > admin.key`
}

// Run implements the command.
func (*keysGenerateCmd) Run(s *Streams) error {
	if _, err := fmt.Fprintln(s.Out, app.GenerateKey()); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

type migrateCmd struct {
	Up     migrateUpCmd     `cmd:"" help:"Apply the missing migrations."`
	Status migrateStatusCmd `cmd:"" help:"List the migrations that are applied and that are missing." detail:"Works on SENDGATE_DATABASE_URL and changes nothing." example:"migrate status"`
}

type migrateUpCmd struct{}

// Help implements kong.HelpProvider.
func (*migrateUpCmd) Help() string {
	return `Works on SENDGATE_DATABASE_URL. A running server of the previous version keeps working on the new schema.

Example:

  SENDGATE_DATABASE_URL=postgres://sendgate@db/sendgate sendgate migrate up`
}

// Run implements the command.
func (*migrateUpCmd) Run(ctx context.Context, s *Streams) error {
	dsn, err := s.databaseURL()
	if err != nil {
		return err
	}
	return app.MigrateUp(ctx, dsn, s.Out)
}

type migrateStatusCmd struct{}

// Run implements the command.
func (*migrateStatusCmd) Run(ctx context.Context, s *Streams) error {
	dsn, err := s.databaseURL()
	if err != nil {
		return err
	}
	return app.MigrateStatus(ctx, dsn, s.Out)
}

type doctorCmd struct {
	Ready bool `help:"Only ask the server of this environment once if it is ready (for the health check of a container)."`
	format
}

// Help implements kong.HelpProvider.
func (*doctorCmd) Help() string {
	return `Reads the same SENDGATE_* variables as serve and changes nothing. The exit code is 1 if a check failed; warnings do not change it.

Examples:

  sendgate doctor
  sendgate doctor --json
  sendgate doctor --ready`
}

// Run implements the command.
func (c *doctorCmd) Run(ctx context.Context, s *Streams) error {
	environ, refused := s.doctorEnv()
	cfg, err := config.Load(environ)
	err = errors.Join(refused, err)
	if c.Ready {
		return askReady(ctx, cfg.OpsListen)
	}
	var checks []app.Check
	if err != nil {
		for _, line := range splitErrors(err) {
			checks = append(checks, app.Check{Name: "settings", Level: "error", Detail: line, Fix: "correct it in the environment of this process"})
		}
	} else {
		checks = app.Doctor(ctx, cfg)
	}
	if err := showChecks(s, c.format, checks); err != nil {
		return err
	}
	for _, check := range checks {
		if failed(check) {
			return errShown
		}
	}
	return nil
}

// doctorEnv returns the environment. Without SENDGATE_DATABASE_URL it adds the settings that "sendgate dev" left in its folder.
func (s *Streams) doctorEnv() ([]string, error) {
	if s.getenv("SENDGATE_DATABASE_URL")+s.getenv("SENDGATE_DATABASE_URL_FILE") != "" {
		return s.Env, nil
	}
	vars, err := readEnvFile(s.path(devEnv))
	if errors.Is(err, fs.ErrNotExist) {
		return s.Env, nil
	}
	if err != nil {
		return s.Env, err
	}
	env := slices.Clone(s.Env)
	for name, value := range vars {
		if s.getenv(name) == "" {
			env = append(env, name+"="+value)
		}
	}
	key := filepath.Join(filepath.Dir(s.path(devEnv)), "secret.key")
	if _, err := os.Stat(key); err == nil && s.getenv("SENDGATE_SECRET_KEY")+s.getenv("SENDGATE_SECRET_KEY_FILE") == "" {
		env = append(env, "SENDGATE_SECRET_KEY_FILE="+key)
	}
	return env, nil
}

func failed(c app.Check) bool { return !c.OK && c.Level != "warn" }

func showChecks(s *Streams, f format, checks []app.Check) error {
	return f.show(s, api.List[app.Check]{Data: checks}, func(w io.Writer) {
		for _, c := range checks {
			mark := "ok"
			switch {
			case failed(c):
				mark = "FAILED"
			case !c.OK:
				mark = "warning"
			}
			row(w, mark, c.Name, oneLine(c.Detail))
			if !c.OK && c.Fix != "" {
				row(w, "", "", "-> "+c.Fix)
			}
		}
	})
}

// askReady asks /readyz once. For a listener on all addresses it uses loopback.
func askReady(ctx context.Context, listen string) error {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("SENDGATE_OPS_LISTEN: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("ask readiness: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask readiness: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // only its status counts
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(why))
	}
	return nil
}

// databaseURL returns the database of serve, or else the private one of sendgate dev.
func (s *Streams) databaseURL() (string, error) {
	dsn, err := config.Secret(s.Env, "SENDGATE_DATABASE_URL")
	if dsn != "" || err != nil {
		return dsn, err
	}
	vars, err := readEnvFile(s.path(devEnv))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if dsn := vars["SENDGATE_DATABASE_URL"]; dsn != "" {
		return dsn, nil
	}
	return "", fmt.Errorf("no database: set SENDGATE_DATABASE_URL, or run this where \"sendgate dev\" left ./%s", devEnv)
}
