package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/sendgate/sendgate/api"
)

type suppressCmd struct {
	List   suppressListCmd   `cmd:"" help:"List suppressed addresses."`
	Add    suppressAddCmd    `cmd:"" help:"Stop mail to an address."`
	Remove suppressRemoveCmd `cmd:"" help:"Allow mail to an address again."`
	Check  suppressCheckCmd  `cmd:"" help:"Show whether an address is suppressed, and why."`
	Import suppressImportCmd `cmd:"" help:"Add the addresses of a CSV file."`
	Export suppressExportCmd `cmd:"" help:"Write all suppressions as CSV."`
}

type suppressListCmd struct {
	Email  string `help:"Only this address."`
	Stream string `help:"Only those of this stream."`
	Reason string `help:"Only those for this reason: manual, hard_bounce, soft_bounce, complaint or unsubscribe."`
	paging
	format
}

// Help implements kong.HelpProvider.
func (*suppressListCmd) Help() string {
	return "Examples:\n\n  sendgate suppressions list\n  sendgate suppressions list --reason complaint --stream bulk"
}

// Run implements the command.
func (c *suppressListCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	page, err := client.FindSuppressions(ctx, api.SuppressionQuery{Email: c.Email, Stream: c.Stream, Reason: c.Reason, Cursor: c.Cursor, Limit: c.Limit})
	if err != nil {
		return err
	}
	return c.showPage(s, page, page.NextCursor, func(w io.Writer) { suppressionRows(w, page.Data) })
}

func suppressionRows(w io.Writer, list []api.Suppression) {
	head(w, "ADDRESS", "STREAM", "REASON", "ORIGIN", "SINCE", "UNTIL", "BY", "DETAIL")
	for _, x := range list {
		stream := x.Stream
		if stream == "" {
			stream = "all"
		}
		row(w, x.Email, stream, x.Reason, x.Origin, stamp(x.CreatedAt), stampOf(x.ExpiresAt), orDash(x.Account), orDash(shorten(x.Detail, 60)))
	}
}

type suppressAddCmd struct {
	Email  string        `arg:"" help:"Address."`
	Reason string        `default:"manual" help:"manual, hard_bounce, soft_bounce, complaint or unsubscribe."`
	Stream string        `help:"Stop mail of this stream only; of every stream when absent."`
	For    time.Duration `placeholder:"TIME" help:"How long, such as 720h; for ever when absent."`
	Detail string        `help:"A note for people, such as the reason; at most 200 characters."`
	format
}

// Help implements kong.HelpProvider.
func (*suppressAddCmd) Help() string {
	return `Examples:

  sendgate suppressions add ann@example.org
  sendgate suppressions add ann@example.org --stream bulk --for 720h --detail "on leave until March"`
}

// Run implements the command.
func (c *suppressAddCmd) Run(ctx context.Context, s *Streams) error {
	req := api.SuppressionRequest{Email: c.Email, Reason: c.Reason, Stream: c.Stream, Detail: c.Detail}
	if c.For < 0 {
		return usagef("--for can't be negative")
	}
	if c.For > 0 {
		at := time.Now().Add(c.For).UTC().Truncate(time.Second)
		req.ExpiresAt = &at
	}
	client, err := s.caller()
	if err != nil {
		return err
	}
	x, err := client.Suppress(ctx, req)
	if err != nil {
		return err
	}
	return c.show(s, x, func(w io.Writer) { suppressionRows(w, []api.Suppression{*x}) })
}

type suppressRemoveCmd struct {
	Email  string  `arg:"" help:"Address."`
	Stream *string `help:"Remove only the suppression for this stream (--stream= for the one for all streams); all suppressions of the address when absent."`
	format
}

// Help implements kong.HelpProvider.
func (*suppressRemoveCmd) Help() string {
	return `Providers have their own suppression lists, which this does not change.

Examples:

  sendgate suppressions remove ann@example.org
  sendgate suppressions remove ann@example.org --stream bulk`
}

// Run implements the command.
func (c *suppressRemoveCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	var err error
	if c.Stream == nil {
		err = client.Unsuppress(ctx, c.Email)
	} else {
		err = client.UnsuppressStream(ctx, c.Email, *c.Stream)
	}
	if err != nil {
		return err
	}
	return c.show(s, map[string]string{"removed": c.Email}, func(w io.Writer) { row(w, "removed", c.Email) })
}

type suppressCheckCmd struct {
	Email  string `arg:"" help:"Address."`
	Stream string `help:"Only suppressions that stop mail of this stream; of any stream when absent."`
	format
}

// Help implements kong.HelpProvider.
func (*suppressCheckCmd) Help() string {
	return `The exit code is 0 in both cases; scripts should use --json.

Examples:

  sendgate suppressions check ann@example.org
  sendgate suppressions check ann@example.org --stream bulk --json`
}

// Run implements the command.
func (c *suppressCheckCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	found, err := client.Suppressed(ctx, c.Email, c.Stream)
	if err != nil {
		return err
	}
	if found == nil {
		found = []api.Suppression{}
	}
	return c.show(s, api.List[api.Suppression]{Data: found}, func(w io.Writer) {
		if len(found) == 0 {
			fmt.Fprintln(w, clean(c.Email), "is not suppressed")
			return
		}
		suppressionRows(w, found)
	})
}
