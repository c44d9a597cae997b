package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/catalog"
)

type emulateCmd struct {
	Listen     string `default:"127.0.0.1:8027" help:"HTTP listener, host:port. Loopback only: the ledger and the faults have no password."`
	SMTPListen string `default:"127.0.0.1:8028" help:"SMTP listener, host:port. Loopback only."`
	Ledger     string `placeholder:"FILE" help:"Keep the ledger of accepted messages in this file; in memory when absent."`
	Limits     string `enum:"documented,none" default:"documented" help:"Refuse calls over the documented limits, or none."`
	Verbose    bool   `short:"v" help:"Log what the emulators do, to standard error."`
}

// Help implements kong.HelpProvider.
func (*emulateCmd) Help() string {
	return `Speaks the wire formats of SendGrid, Mailgun, Postmark, Amazon SES and SMTP; nothing is delivered anywhere. Runs until Ctrl-C. ` +
		`The recipient's local part picks an outcome (bounce, softbounce, complaint, defer, suppressed, reject, open, click).

Examples:

  sendgate emulate
  sendgate emulate --listen 127.0.0.1:9000 --ledger mail.jsonl --limits none
  curl http://127.0.0.1:8027/_ledger
  curl -X PUT http://127.0.0.1:8027/_faults -d '{"sendgrid": [{"mode": "throttle", "count": 3}]}'`
}

// Run implements the command.
func (c *emulateCmd) Run(ctx context.Context, s *Streams) error {
	opt := emulator.Options{Listen: c.Listen, SMTPListen: c.SMTPListen, Credentials: emulator.DefaultCredentials()}
	if c.Ledger != "" {
		opt.LedgerPath = s.path(c.Ledger)
	}
	if c.Limits == "documented" {
		opt.Limits = documentedLimits()
	}
	if c.Verbose {
		opt.Log = slog.New(slog.NewTextHandler(s.Err, nil))
	}
	e, err := emulator.New(opt)
	if err != nil {
		return err
	}
	if err := e.Start(ctx); err != nil {
		return err
	}
	printErr := printEmulators(s.Out, e, opt.Credentials)
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
	for _, kind := range []provider.Kind{"sendgrid", "mailgun", "postmark", "ses", "smtp"} {
		limits[string(kind)] = catalog.DocumentedLimits(kind)
	}
	return limits
}

// printEmulators prints where each stands and what it wants to be shown.
func printEmulators(w io.Writer, e *emulator.Emulator, c emulator.Credentials) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row(t, "PROVIDER", "BASE URL", "CREDENTIALS (public, they open nothing else)")
	row(t, "sendgrid", e.URL()+"/sendgrid", "key "+c.SendGridKey)
	row(t, "mailgun", e.URL()+"/mailgun", "domain "+c.MailgunDomain+", key "+c.MailgunKey)
	row(t, "postmark", e.URL()+"/postmark", "token "+c.PostmarkToken)
	row(t, "ses", e.URL()+"/ses", fmt.Sprintf("region %s, access key %s, secret %s", c.AWSRegion, c.AWSAccessKeyID, c.AWSSecretAccessKey))
	row(t, "smtp", e.SMTPAddr(), "user "+c.SMTPUser+", password "+c.SMTPPassword)
	if err := flush(t); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "ready: curl %s/_ledger\n", e.URL())
	return err
}
