package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/sendgate/sendgate/api"
)

type messagesCmd struct {
	List   messagesListCmd   `cmd:"" help:"List messages, newest first."`
	Show   messagesShowCmd   `cmd:"" help:"Show one message with its recipients, attempts and events, in order of time."`
	Cancel messagesCancelCmd `cmd:"" help:"Stop a message that no provider has yet."`
	Resend messagesResendCmd `cmd:"" help:"Queue a failed message again."`
}

type messagesListCmd struct {
	Status     string    `help:"Only messages in this status."`
	To         string    `help:"Only messages to this address."`
	From       string    `help:"Only messages from this address."`
	Tag        string    `help:"Only messages with this tag."`
	Stream     string    `help:"Only messages of this stream."`
	Account    string    `help:"Only messages that this account took."`
	ProviderID string    `name:"provider-id" help:"Only messages that a provider gave this id."`
	Since      time.Time `help:"Only messages accepted at or after this time."`
	Until      time.Time `help:"Only messages accepted before this time."`
	paging
	format
}

// Help implements kong.HelpProvider.
func (*messagesListCmd) Help() string {
	return `Examples:

  sendgate messages list
  sendgate messages list --status failed --since 2026-01-31T00:00:00Z
  sendgate messages list --tag order --json`
}

// Run implements the command.
func (c *messagesListCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	page, err := client.Messages(ctx, api.MessageQuery{
		Status: c.Status, To: c.To, From: c.From, Tag: c.Tag, Stream: c.Stream, Account: c.Account,
		ProviderMessageID: c.ProviderID, Since: c.Since, Until: c.Until, Limit: c.Limit, Cursor: c.Cursor,
	})
	if err != nil {
		return err
	}
	return c.showPage(s, page, page.NextCursor, func(w io.Writer) {
		head(w, "ID", "STATUS", "ACCEPTED", "FROM", "TO", "SUBJECT")
		for _, m := range page.Data {
			row(w, m.ID, m.Status, stamp(m.CreatedAt), m.From.Email, firstRecipient(m.Recipients), shorten(m.Subject, 50))
		}
	})
}

func firstRecipient(rs []api.Recipient) string {
	switch len(rs) {
	case 0:
		return "-"
	case 1:
		return rs[0].Email
	default:
		return fmt.Sprintf("%s +%d", rs[0].Email, len(rs)-1)
	}
}

func shorten(text string, runes int) string {
	if r := []rune(text); len(r) > runes {
		return string(r[:runes-1]) + "…"
	}
	return text
}

type messagesShowCmd struct {
	ID string `arg:"" help:"Message id."`
	format
}

// Help implements kong.HelpProvider.
func (*messagesShowCmd) Help() string {
	return `Each attempt is one call to one account. Below it you see why the account was chosen, and why each other account was not. Events are the later reports ` +
		`of the provider, or of the recipient's host through the provider; their times are from the provider's clock.

Example:

  sendgate messages show 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f`
}

// Run implements the command.
func (c *messagesShowCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	m, err := client.Message(ctx, c.ID)
	if err != nil {
		return err
	}
	return showMessage(s, c.format, m)
}

type messagesCancelCmd struct {
	ID string `arg:"" help:"Message id."`
	format
}

// Help implements kong.HelpProvider.
func (*messagesCancelCmd) Help() string {
	return `Fails if a provider may already have the message.

Example:

  sendgate messages cancel 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f`
}

// Run implements the command.
func (c *messagesCancelCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	m, err := client.Cancel(ctx, c.ID)
	if err != nil {
		return err
	}
	return showMessage(s, c.format, m)
}

type messagesResendCmd struct {
	ID    string `arg:"" help:"Message id."`
	Force bool   `help:"Send it even if a provider may have sent it already; its recipients may then get a second copy."`
	format
}

// Help implements kong.HelpProvider.
func (*messagesResendCmd) Help() string {
	return `Only a message that failed can be sent again. One that ended as failed_unknown may have reached its recipients, and needs --force.

Examples:

  sendgate messages resend 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f
  sendgate messages resend 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f --force`
}

// Run implements the command.
func (c *messagesResendCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	resend := client.Resend
	if c.Force {
		resend = client.ResendAnyway
	}
	m, err := resend(ctx, c.ID)
	if err != nil {
		return err
	}
	return showMessage(s, c.format, m)
}
