package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
)

type messagesCmd struct {
	List   messagesListCmd   `cmd:"" help:"List messages, newest first."`
	Show   messagesShowCmd   `cmd:"" help:"Show one message with its recipients, its attempts and why each went where it went."`
	Cancel messagesCancelCmd `cmd:"" help:"Stop a message that was not given to a provider yet."`
	Resend messagesResendCmd `cmd:"" help:"Queue a failed message again."`
}

type messagesListCmd struct {
	Status  string    `help:"Only messages in this status."`
	To      string    `help:"Only messages to this address."`
	From    string    `help:"Only messages from this address."`
	Tag     string    `help:"Only messages with this tag."`
	Stream  string    `help:"Only messages of this stream."`
	Account string    `help:"Only messages that this account took."`
	Since   time.Time `help:"Only messages accepted at or after this time (RFC 3339)."`
	Until   time.Time `help:"Only messages accepted before this time (RFC 3339)."`
	Limit   int       `default:"50" help:"At most this many, 1 to 200."`
	Cursor  string    `help:"Continue where the last page ended."`
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
func (c *messagesListCmd) Run(ctx context.Context, s *Streams) error {
	if c.Limit < 1 || c.Limit > maxPage {
		return usagef("--limit must be 1 to %d, got %d", maxPage, c.Limit)
	}
	client, err := s.caller()
	if err != nil {
		return err
	}
	page, err := client.Messages(ctx, api.MessageQuery{
		Status: c.Status, To: c.To, From: c.From, Tag: c.Tag, Stream: c.Stream, Account: c.Account,
		Since: c.Since, Until: c.Until, Limit: c.Limit, Cursor: c.Cursor,
	})
	if err != nil {
		return err
	}
	return c.showPage(s, page, page.NextCursor, func(w io.Writer) {
		row(w, "ID", "STATUS", "ACCEPTED", "FROM", "TO", "SUBJECT")
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
	return `Each attempt is one call to one account. Below it stands why the account was chosen, and why each other was not.

Example:

  sendgate messages show 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f`
}

// Run implements the command.
func (c *messagesShowCmd) Run(ctx context.Context, s *Streams) error {
	client, err := s.caller()
	if err != nil {
		return err
	}
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
	return `Fails when a provider may already have the message.

Example:

  sendgate messages cancel 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f`
}

// Run implements the command.
func (c *messagesCancelCmd) Run(ctx context.Context, s *Streams) error {
	client, err := s.caller()
	if err != nil {
		return err
	}
	m, err := client.Cancel(ctx, c.ID)
	if err != nil {
		return err
	}
	return showMessage(s, c.format, m)
}

type messagesResendCmd struct {
	ID string `arg:"" help:"Message id."`
	format
}

// Help implements kong.HelpProvider.
func (*messagesResendCmd) Help() string {
	return `Only a message that failed can be sent again; one whose outcome is unknown would risk a second copy.

Example:

  sendgate messages resend 01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f`
}

// Run implements the command.
func (c *messagesResendCmd) Run(ctx context.Context, s *Streams) error {
	client, err := s.caller()
	if err != nil {
		return err
	}
	m, err := client.Resend(ctx, c.ID)
	if err != nil {
		return err
	}
	return showMessage(s, c.format, m)
}

func showMessage(s *Streams, f format, m *api.Message) error {
	return f.show(s, m, func(w io.Writer) {
		row(w, "id", m.ID)
		row(w, "status", m.Status)
		row(w, "accepted", stamp(m.CreatedAt))
		row(w, "updated", stamp(m.UpdatedAt))
		if m.SendAt != nil {
			row(w, "send at", stampOf(m.SendAt))
		}
		row(w, "expires", stampOf(m.ExpiresAt))
		row(w, "from", mailbox(m.From.Name, m.From.Email))
		row(w, "subject", orDash(m.Subject))
		row(w, "stream", m.Stream)
		if len(m.Tags) > 0 {
			row(w, "tags", strings.Join(m.Tags, ", "))
		}
		row(w, "if unknown", m.OnAmbiguous)
		if m.Account != "" {
			row(w, "pinned to", m.Account)
		}
		for _, r := range m.Recipients {
			row(w, r.Kind, strings.TrimSpace(mailbox(r.Name, r.Email)+"  "+r.Status+"  "+r.Detail))
		}
		for _, a := range m.Attempts {
			showAttempt(w, a)
		}
		for _, e := range m.Events {
			row(w, "event", stamp(e.At)+"  "+e.Type+"  "+e.Recipient)
		}
	})
}

func mailbox(name, email string) string {
	if name == "" {
		return email
	}
	return name + " <" + email + ">"
}

func showAttempt(w io.Writer, a api.Attempt) {
	outcome := a.Class
	if outcome == "" {
		outcome = "under way"
	}
	facts := []string{a.Account + " (" + a.Provider + ")", outcome, stamp(a.StartedAt)}
	if a.TookMS != nil {
		facts = append(facts, fmt.Sprintf("%d ms", *a.TookMS))
	}
	if a.ProviderMessageID != "" {
		facts = append(facts, "id "+a.ProviderMessageID)
	}
	if a.VerdictSource != "" {
		facts = append(facts, "by "+a.VerdictSource)
	}
	row(w, fmt.Sprintf("attempt %d", a.N), strings.Join(facts, "  "))
	if reply := replyOf(a); reply != "" {
		row(w, "", "answer: "+reply)
	}
	for _, line := range explain(a.Decision) {
		row(w, "", line)
	}
}

// replyOf gives the provider's own words: "429 (rate_limit) too many requests".
func replyOf(a api.Attempt) string {
	var parts []string
	if a.Status != 0 {
		parts = append(parts, fmt.Sprint(a.Status))
	}
	if a.Code != "" {
		parts = append(parts, "("+a.Code+")")
	}
	if a.Error != "" {
		parts = append(parts, a.Error)
	}
	return strings.Join(parts, " ")
}

// explain tells a decision in sentences: how the account was found, then a line for each candidate.
func explain(raw json.RawMessage) []string {
	var d api.Decision
	if len(raw) == 0 || json.Unmarshal(raw, &d) != nil {
		return nil
	}
	lines := []string{headline(d)}
	for _, c := range d.Candidates {
		why := c.Reason
		switch {
		case c.Account == d.Chosen:
			why = "chosen"
		case why == "":
			why = "could have taken it"
		}
		lines = append(lines, fmt.Sprintf("- %s, weight %s: %s", c.Account, number(c.Weight), why))
	}
	return lines
}

func headline(d api.Decision) string {
	way := "pool " + d.Pool
	if d.Rule != 0 {
		way = fmt.Sprintf("rule %d, pool %s", d.Rule, d.Pool)
	}
	if d.Pinned {
		way = "pinned by the message"
	}
	chosen := "chose " + d.Chosen
	if d.Chosen == "" {
		chosen = "nobody could take it then"
	}
	if d.Spilled {
		chosen += ", spilled over since the first choice had no slot"
	}
	return fmt.Sprintf("why: %s, %s (configuration %d)", way, chosen, d.Config)
}
