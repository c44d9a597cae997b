package cli

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
)

type eventsCmd struct {
	List      eventsListCmd      `cmd:"" help:"List events, newest first."`
	Tail      eventsTailCmd      `cmd:"" help:"Follow events as they come, one line each."`
	Stats     eventsStatsCmd     `cmd:"" help:"Count recipients by their status, for each account, stream or domain."`
	Reproject eventsReprojectCmd `cmd:"" help:"Read the stored payloads of providers again and correct the events from them."`
}

// eventFilter are the flags that list and tail share.
type eventFilter struct {
	Type      []string `help:"Only these types (repeat, or with commas), such as delivered, bounced or complained."`
	Message   string   `placeholder:"ID" help:"Only events of this message."`
	Recipient string   `placeholder:"ADDRESS" help:"Only events about this address."`
	Account   string   `help:"Only events of this account."`
	Stream    string   `help:"Only events of this stream."`
}

func (f *eventFilter) query() api.EventQuery {
	return api.EventQuery{Types: f.Type, MessageID: f.Message, Recipient: f.Recipient, Account: f.Account, Stream: f.Stream}
}

type eventsListCmd struct {
	eventFilter

	Since time.Time `help:"Only events received at or after this time."`
	Until time.Time `help:"Only events received before this time."`
	paging
	format
}

// Help implements kong.HelpProvider.
func (*eventsListCmd) Help() string {
	return `AT is from the provider's clock; --since and --until are about the time when sendgate received the event.

Examples:

  sendgate events list --type bounced,complained
  sendgate events list --recipient ann@example.org --since 2026-01-31T00:00:00Z
  sendgate events list --account ses-eu --json`
}

// Run implements the command.
func (c *eventsListCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	q := c.query()
	q.Since, q.Until, q.Limit, q.Cursor = c.Since, c.Until, c.Limit, c.Cursor
	page, err := client.Events(ctx, q)
	if err != nil {
		return err
	}
	return c.showPage(s, page, page.NextCursor, func(w io.Writer) {
		head(w, "AT", "TYPE", "RECIPIENT", "ACCOUNT", "MESSAGE", "WHY")
		for _, e := range page.Data {
			row(w, stamp(e.At), typeOf(e), orDash(e.Recipient), orDash(e.Account), orDash(e.MessageID), orDash(shorten(whyOf(e), 80)))
		}
	})
}

// typeOf returns the type of an event. An empty type means that sendgate has none for it.
func typeOf(e api.Event) string {
	if e.Type == "" {
		return "unmapped"
	}
	return e.Type
}

// whyOf returns what matters beside the type: the bounce, the link, or the provider's own type.
func whyOf(e api.Event) string {
	var parts []string
	switch {
	case e.Bounce != nil:
		parts = append(parts, bounceText(e.Bounce))
	case e.URL != "":
		parts = append(parts, e.URL)
	case e.Type == "":
		parts = append(parts, e.ProviderType)
	}
	if e.Machine {
		parts = append(parts, "(by a machine)")
	}
	return strings.Join(parts, " ")
}

// bounceText returns a text such as "hard invalid_address 550 5.1.1 by reply/mailbox_unknown: no such user".
func bounceText(b *api.Bounce) string {
	var parts []string
	for _, p := range []string{b.Class, b.Reason, b.Code, b.Enhanced} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	if b.Rule != "" {
		parts = append(parts, "by "+b.Rule)
	}
	text := strings.Join(parts, " ")
	if b.Text != "" {
		text += ": " + b.Text
	}
	return text
}
