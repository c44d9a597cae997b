package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	emulated "github.com/sendgate/sendgate/internal/emulator/catalog"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/catalog"
)

type emulateCmd struct {
	Listen     string            `default:"127.0.0.1:8027" help:"HTTP listener, host:port. Loopback only: the ledger and the faults have no password."`
	SMTPListen string            `default:"127.0.0.1:8028" help:"SMTP listener, host:port. Loopback only."`
	AllowHost  []string          `placeholder:"NAME" help:"Another host name, besides localhost, at which it answers (repeat). Other names are refused, which keeps out pages in a browser."`
	Ledger     string            `placeholder:"FILE" help:"Keep the ledger of accepted messages in this file; in memory when absent."`
	Limits     string            `enum:"documented,none" default:"documented" help:"Refuse calls over the documented limits, or none."`
	Hook       map[string]string `mapsep:"none" placeholder:"KIND=URL" help:"URL for a provider's events, such as mailgun=http://127.0.0.1:8080/hooks/mailgun or smtp=lmtp://127.0.0.1:2424 (repeat). Only URLs of this machine."`
	EventPace  time.Duration     `default:"100ms" help:"Average time between two events of a message."`
	DeferFor   time.Duration     `default:"1h" help:"Time from a deferred event to the delivered one."`
	Verbose    bool              `short:"v" help:"Log what the emulators do, to standard error."`
}

// Help implements kong.HelpProvider.
func (*emulateCmd) Help() string {
	return `Speaks the wire formats of the providers; nothing is delivered anywhere. Runs until Ctrl-C. ` +
		`The local part of the recipient chooses an outcome (bounce, softbounce, complaint, defer, suppressed, reject, open, click). ` +
		`The events of each message go to the hooks, signed as the real ones are; GET /_hooks shows the keys to check them.

Examples:

  sendgate emulate
  sendgate emulate --listen 127.0.0.1:9000 --ledger mail.jsonl --limits none
  sendgate emulate --hook sendgrid=http://127.0.0.1:8080/hooks/sendgrid --hook smtp=lmtp://127.0.0.1:2424
  curl http://127.0.0.1:8027/_ledger
  curl http://127.0.0.1:8027/_ledger/MESSAGE_ID
  curl http://127.0.0.1:8027/_hooks
  curl -X PUT http://127.0.0.1:8027/_faults -d '{"sendgrid": [{"mode": "throttle", "count": 3}]}'
  curl -X PUT http://127.0.0.1:8027/_faults -d '{"mailgun": [{"mode": "hook_duplicate", "copies": 3, "match": "*@example.org"}]}'`
}

// Run implements the command.
func (c *emulateCmd) Run(ctx context.Context, s *Streams) error {
	opt := emulator.Options{
		Listen: c.Listen, SMTPListen: c.SMTPListen,
		AllowHosts: c.AllowHost, Hooks: map[string]emulator.Hook{}, EventPace: c.EventPace, DeferFor: c.DeferFor,
	}
	for kind, url := range c.Hook {
		opt.Hooks[kind] = emulator.Hook{"url": url}
	}
	if c.Ledger != "" {
		opt.LedgerPath = s.path(c.Ledger)
	}
	if c.Limits == "documented" {
		opt.Limits = documentedLimits()
	}
	if c.Verbose {
		opt.Log = slog.New(slog.NewTextHandler(s.Err, nil))
	}
	e, err := emulated.New(opt)
	if err != nil {
		return err
	}
	if err := e.Start(ctx); err != nil {
		return err
	}
	printErr := printEmulators(s.Out, e, &opt)
	if printErr == nil {
		<-ctx.Done()
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := e.Stop(stopping); err != nil {
		return err
	}
	return printErr
}

func documentedLimits() map[string][]limit.Window {
	limits := map[string][]limit.Window{}
	for _, k := range emulated.Kinds() {
		limits[k.Name] = catalog.DocumentedLimits(provider.Kind(k.Name))
	}
	return limits
}

// printEmulators prints the address and the credentials of each emulator.
func printEmulators(w io.Writer, e *emulator.Emulator, opt *emulator.Options) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row(t, "PROVIDER", "BASE URL", "CREDENTIALS (public, they open nothing else)")
	for _, k := range emulated.Kinds() {
		var shown []string
		for _, name := range slices.Sorted(maps.Keys(k.Credentials)) {
			shown = append(shown, name+" "+k.Credentials[name])
		}
		at := e.URL() + "/" + k.Name
		if k.SMTP {
			at = e.SMTPAddr()
		}
		row(t, k.Name, at, strings.Join(shown, ", "))
	}
	if err := flush(t); err != nil {
		return err
	}
	for _, kind := range slices.Sorted(maps.Keys(opt.Hooks)) {
		if _, err := fmt.Fprintf(w, "events of %s go to %s\n", kind, opt.Hooks[kind]["url"]); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "a mail: curl %[1]s/_ledger/MESSAGE_ID, or %[1]s/_ledger/MESSAGE_ID/html in a browser\nready: curl %[1]s/_ledger\n", e.URL())
	return err
}
