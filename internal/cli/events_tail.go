package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sendgate/sendgate/api"
)

type eventsTailCmd struct {
	eventFilter

	After string `placeholder:"POSITION" help:"Continue after this position, which an earlier tail printed at its end; only new events when absent."`
	format
}

// Help implements kong.HelpProvider.
func (*eventsTailCmd) Help() string {
	return `Prints time, type, recipient, account and reason; with --json one JSON object per line. If the connection breaks, it connects again and continues from the ` +
		`same position, so that no event is missed or shown twice. Runs until Ctrl-C, and then prints how to continue.

Examples:

  sendgate events tail
  sendgate events tail --type bounced --type complained
  sendgate events tail --account mailgun --json`
}

// The wait before the next connection. It doubles after each connection that brought no event.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// Run implements the command.
func (c *eventsTailCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	t := &tail{
		stream: func(ctx context.Context, after string, each func(string, api.Event) error) error {
			return client.StreamEvents(ctx, c.query(), after, each)
		},
		print: func(e api.Event) error { return printEvent(s.Out, e, c.JSON) },
		note:  s.Err, gone: s.readerGone, position: c.After,
	}
	err := t.run(ctx)
	if t.position != "" && !s.readerGone() {
		fmt.Fprintln(s.Err, "to continue from here: add --after", clean(t.position))
	}
	return err
}

// tail follows a stream of events and reconnects when it breaks.
type tail struct {
	stream   func(ctx context.Context, after string, each func(string, api.Event) error) error // always ends with an error
	print    func(api.Event) error
	note     io.Writer
	gone     func() bool // reports whether the reader of the output is gone
	position string      // of the last printed event, or where a stream without events began
	seen     int         // events of this connection
}

// errGone ends a tail if nobody reads its output any more.
var errGone = errors.New("nobody reads any more")

// printError is a failure to print; a new connection would not help.
type printError struct{ err error }

// Error implements error.
func (e *printError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *printError) Unwrap() error { return e.err }

// run returns nil when ctx ends or the reader is gone, and an error if a new connection would not help.
func (t *tail) run(ctx context.Context) error {
	wait := firstRetry
	for {
		t.seen = 0
		err := t.stream(ctx, t.position, t.each)
		var broken *printError
		switch {
		case ctx.Err() != nil || errors.Is(err, errGone):
			return nil
		case errors.As(err, &broken):
			return broken.err
		case final(err):
			return err
		}
		if end := (*api.StreamEnd)(nil); errors.As(err, &end) {
			t.position = end.LastID
		}
		if t.seen > 0 {
			wait = firstRetry
		}
		now := max(wait, retryAfter(err))
		fmt.Fprintf(t.note, "%s; connecting again in %s\n", oneLine(err.Error()), shortDuration(now))
		if !pause(ctx, now) {
			return nil
		}
		wait = min(2*wait, lastRetry)
	}
}

func (t *tail) each(position string, e api.Event) error {
	if err := t.print(e); err != nil {
		return &printError{err}
	}
	if t.gone() {
		return errGone
	}
	t.position = position
	t.seen++
	return nil
}

// final reports whether the server refused the request itself, so that asking again would get the same answer.
func final(err error) bool {
	var p *api.Problem
	return errors.As(err, &p) && p.Status >= 400 && p.Status < 500 && p.Status != 408 && p.Status != 429
}

func retryAfter(err error) time.Duration {
	var p *api.Problem
	if errors.As(err, &p) {
		return p.RetryAfter
	}
	return 0
}

// printEvent prints one line. The columns have fixed widths, since later lines are not known yet.
func printEvent(w io.Writer, e api.Event, asJSON bool) error {
	if asJSON {
		return printLine(w, e)
	}
	_, err := fmt.Fprintf(w, "%s  %-12s  %-30s  %-12s  %s\n", stamp(e.At), clean(typeOf(e)), clean(orDash(e.Recipient)), clean(orDash(e.Account)),
		clean(orDash(shorten(whyOf(e), 160))))
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
