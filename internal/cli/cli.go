// Package cli is the command line of sendgate: the grammar, the output of each command, and its exit code.
//
// There are two kinds of commands. dev, serve, emulate, migrate, restore, secrets and doctor run the program itself; they
// call package app (run.go) or the emulator (emulate.go). All others are clients: they speak HTTP through package api and
// know nothing of the server's internals, so that they work with any installation.
//
// It is one package, with a file for each noun, because all commands share one grammar, one way to print and one set of exit codes.
//
// The likeliest mistake of a newcomer is to print with fmt.Println or to call os.Getenv. A command uses the outside world
// only through its Streams, so that tests can run whole command lines in parallel.
package cli

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// The exit codes of every command.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// grammar is the whole command line. kong fills it and calls Run of the chosen command.
type grammar struct {
	Dev     devCmd     `cmd:"" group:"run" help:"Run everything on this machine without configuration: Postgres, emulated providers, API."`
	Serve   serveCmd   `cmd:"" group:"run" help:"Run the service, configured by SENDGATE_* variables."`
	Emulate emulateCmd `cmd:"" group:"run" help:"Run the provider emulators alone."`
	Migrate migrateCmd `cmd:"" group:"run" help:"Bring the database schema up to date, or show its version."`
	Restore restoreCmd `cmd:"" group:"run" help:"After the database was restored from a backup: mark as unknown all messages that may have been sent, so that nobody is mailed twice."`
	Secrets secretsCmd `cmd:"" group:"run" help:"After a change of the secret key: encrypt stored secrets with the new key."`
	Doctor  doctorCmd  `cmd:"" group:"run" help:"Check database, clock, keys and provider accounts, and say how to fix each problem."`
	Version versionCmd `cmd:"" group:"run" help:"Print the version, the commit and the Go version of this program." example:"version --json"`

	Send     sendCmd     `cmd:"" group:"mail" help:"Send one message."`
	Messages messagesCmd `cmd:"" group:"mail" help:"List messages, show one with its history, cancel or resend it."`
	Events   eventsCmd   `cmd:"" group:"mail" help:"List, follow and count the events of messages."`
	Suppress suppressCmd `cmd:"" name:"suppressions" group:"mail" help:"List, add, remove, import and export addresses that get no mail."`
	Webhooks webhooksCmd `cmd:"" group:"mail" help:"List, add and change the endpoints that receive events."`

	Providers providersCmd `cmd:"" group:"ops" help:"List, add, pause and change provider accounts, their limits and their webhooks."`
	Pools     poolsCmd     `cmd:"" group:"ops" help:"Show pools and set their weights."`
	Rules     rulesCmd     `cmd:"" group:"ops" help:"List, add and remove the rules that choose the pool of a message."`
	Route     routeCmd     `cmd:"" group:"ops" help:"Explain where a message would go."`
	Tenants   tenantsCmd   `cmd:"" group:"ops" help:"List, create, change and pause tenants."`
	Keys      keysCmd      `cmd:"" group:"ops" help:"List, create, change, rotate and revoke API keys."`
	Users     usersCmd     `cmd:"" group:"ops" help:"List, create and change the people of the dashboard, and sign them out."`
	Queue     queueCmd     `cmd:"" group:"ops" help:"Show the messages that wait or are in flight, and the replicas."`
	Audit     auditCmd     `cmd:"" group:"ops" help:"Show who changed the configuration, newest first."`
	Load      loadCmd      `cmd:"" group:"ops" help:"Generate load and measure it."`
	Plan      planCmd      `cmd:"" group:"ops" help:"Say what an amount of mail needs: machines, disk, limits of the providers, and what it costs."`
}

const description = `One send API in front of many email providers.

Start with "sendgate dev"; it prints the next command to try. Client commands read SENDGATE_URL, SENDGATE_API_KEY and ` +
	`SENDGATE_ADMIN_KEY from the environment, and SENDGATE_ADMIN_URL if the admin API has a separate address. Without these variables they read ` +
	`./.sendgate/dev.env, which "sendgate dev" writes; you or root must own it, and nobody else may be able to change it. ` +
	`Keys are sent only by https, or by http to this machine, unless SENDGATE_ALLOW_HTTP=true.

Times are RFC 3339 (2026-01-31T12:00:00Z), dates (2026-01-31, which means its beginning in UTC) or spans (90m, 7d), which count back from now, ` +
	`or ahead for --send-at and --expires-at.

Exit codes: 0 done, 1 failed, 2 wrong usage.`

// errHelp ends parsing after --help has been printed.
var errHelp = errors.New("help was printed")

// Main runs one command line (without the program's name) and returns its exit code. It returns when the command is done,
// or soon after ctx is done.
func Main(ctx context.Context, args []string, s Streams) int {
	s = s.quiet()
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parser, err := newParser(ctx, &s)
	if err != nil {
		return fail(s, err)
	}
	line, err := parser.Parse(args)
	switch {
	case errors.Is(err, errHelp):
		return exitDone
	case err != nil:
		return fail(s, parseError(err))
	}
	if err := line.Run(); err != nil {
		return fail(s, err)
	}
	return exitDone
}

func newParser(ctx context.Context, s *Streams) (*kong.Kong, error) {
	return kong.New(&grammar{},
		kong.Name(s.program()),
		kong.Description(description),
		kong.Vars{"kinds": strings.Join(kinds(), ", ")},
		kong.Writers(s.Out, s.Err),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.Help(func(o kong.HelpOptions, line *kong.Context) error {
			if err := kong.DefaultHelpPrinter(o, line); err != nil {
				return err
			}
			return errHelp
		}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "run", Title: "Run sendgate:"},
			{Key: "mail", Title: "Mail:"},
			{Key: "ops", Title: "Operations:"},
			{Key: "msg", Title: "The message:"},
			{Key: "way", Title: "How it is sent:"},
		}),
		kong.TypeMapper(reflect.TypeFor[time.Time](), kong.MapperFunc(decodeTime)),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(s),
		kong.BindToProvider((*Streams).caller),
		kong.BindToProvider((*Streams).operator),
		kong.PostBuild(addExamples),
	)
}

// addExamples writes the tags detail and example of a command into its help. A command with more to say has the method Help.
func addExamples(k *kong.Kong) error {
	return kong.Visit(k.Model, func(v kong.Visitable, next kong.Next) error {
		if node, ok := v.(*kong.Node); ok && node.Tag != nil && node.Tag.Has("example") {
			node.Detail = strings.TrimSpace(node.Tag.Get("detail") + "\n\nExample:\n\n  sendgate " + node.Tag.Get("example"))
		}
		return next(nil)
	})
}

// decodeTime reads the time of a flag. A span counts back from now, or ahead if the flag has the tag span:"ahead".
func decodeTime(line *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := line.Scan.PopValueInto("time", &text); err != nil {
		return err
	}
	t, err := readTime(text, line.Value.Tag.Get("span") == "ahead", time.Now())
	if err != nil {
		return err
	}
	target.Set(reflect.ValueOf(t))
	return nil
}

// readTime reads a time in RFC 3339, a date, which means its beginning in UTC, or a span such as 90m or 7d.
func readTime(text string, ahead bool, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	span, err := readSpan(text)
	if err != nil || span < 0 {
		return time.Time{}, fmt.Errorf("want a time such as 2026-01-31T12:00:00Z (RFC 3339) or 2026-01-31, or a span such as 90m or 7d, got %q", text)
	}
	if ahead {
		return now.Add(span).UTC(), nil
	}
	return now.Add(-span).UTC(), nil
}

// readSpan reads a duration, which may be given in days.
func readSpan(text string) (time.Duration, error) {
	days, ok := strings.CutSuffix(text, "d")
	if !ok {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	return time.Duration(n) * 24 * time.Hour, err //nolint:gosec // 16 bits
}
