package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sendgate/sendgate/api"
)

type bulkCmd struct {
	Cancel  bulkCancelCmd  `cmd:"" help:"End messages that wait as cancelled."`
	Fail    bulkFailCmd    `cmd:"" help:"End messages that wait, or whose outcome is unknown, as failed."`
	Requeue bulkRequeueCmd `cmd:"" help:"Try messages now that wait for a retry, or whose outcome is unknown."`
	Resend  bulkResendCmd  `cmd:"" help:"Send messages again that have ended without being sent."`
}

// bulkFlags select the messages.
type bulkFlags struct {
	To      string    `placeholder:"ADDRESS" help:"Only messages to this address."`
	From    string    `placeholder:"ADDRESS" help:"Only messages from this address."`
	Tenant  string    `help:"Only messages of this tenant; of all tenants when absent."`
	Tag     string    `help:"Only messages with this tag."`
	Stream  string    `help:"Only messages of this stream."`
	Account string    `help:"Only messages with an attempt through this account."`
	Since   time.Time `help:"Only messages accepted at or after this time."`
	Until   time.Time `help:"Only messages accepted before this time."`
	All     bool      `help:"Take all messages; required if there is no other filter."`
	DryRun  bool      `help:"Change nothing; count the messages."`
	Yes     bool      `help:"Do not ask."`
	format
}

const bulkHelp = `It counts first and asks. Then it works page by page and shows its progress. If it is interrupted, run the same command again: what is done no longer matches. ` +
	`Messages that are accepted after the count are left alone. The audit gets one entry, with the filter and the count.

Examples:

`

type bulkCancelCmd struct {
	Status string `enum:",queued,scheduled" default:"" placeholder:"STATUS" help:"Only queued or only scheduled messages; both when absent."`
	bulkFlags
}

// Help implements kong.HelpProvider.
func (*bulkCancelCmd) Help() string {
	return bulkHelp + "  sendgate bulk cancel --tag spring-sale --dry-run\n  sendgate bulk cancel --tag spring-sale --status scheduled --yes"
}

// Run implements the command.
func (c *bulkCancelCmd) Run(ctx context.Context, s *Streams) error {
	return c.run(ctx, s, c.request("cancel", c.Status, false))
}

type bulkFailCmd struct {
	Status string `enum:",queued,scheduled,unknown" default:"" placeholder:"STATUS" help:"Only messages in this status: queued, scheduled or unknown; queued and scheduled when absent."`
	bulkFlags
}

// Help implements kong.HelpProvider.
func (*bulkFailCmd) Help() string {
	return `Unlike cancel, this writes events, so that your services learn of it. A message that a provider may have sent ends as failed_unknown. ` + bulkHelp +
		"  sendgate bulk fail --stream bulk --until 24h --dry-run\n  sendgate bulk fail --status unknown --account mailgun --yes"
}

// Run implements the command.
func (c *bulkFailCmd) Run(ctx context.Context, s *Streams) error {
	return c.run(ctx, s, c.request("fail", c.Status, false))
}

type bulkRequeueCmd struct {
	Status string `enum:",queued,unknown" default:"" placeholder:"STATUS" help:"queued or unknown; queued when absent."`
	Force  bool   `help:"Required for unknown messages: a provider may have sent them, and their recipients may get a second copy."`
	bulkFlags
}

// Help implements kong.HelpProvider.
func (*bulkRequeueCmd) Help() string {
	return `No message goes before its send_at. Unknown messages are sent again as with on_ambiguous "resend", at most SENDGATE_RESEND_MAX times. ` + bulkHelp +
		"  sendgate bulk requeue --account mailgun --yes\n  sendgate bulk requeue --status unknown --stream codes --force --dry-run"
}

// Run implements the command.
func (c *bulkRequeueCmd) Run(ctx context.Context, s *Streams) error {
	return c.run(ctx, s, c.request("requeue", c.Status, c.Force))
}

type bulkResendCmd struct {
	Status string `enum:"failed,failed_unknown,expired,cancelled" default:"failed" placeholder:"STATUS" help:"failed, failed_unknown, expired or cancelled."`
	Force  bool   `help:"Also messages that a provider may have sent; their recipients may get a second copy. Required for failed_unknown."`
	bulkFlags
}

// Help implements kong.HelpProvider.
func (*bulkResendCmd) Help() string {
	return `Without --since it looks at the messages of the last 24 hours. ` + bulkHelp +
		"  sendgate bulk resend --account mailgun --since 2h --yes\n  sendgate bulk resend --status expired --tag order --since 3d --dry-run"
}

// Run implements the command.
func (c *bulkResendCmd) Run(ctx context.Context, s *Streams) error {
	return c.run(ctx, s, c.request("resend", c.Status, c.Force))
}

func (f *bulkFlags) request(action, status string, force bool) api.BulkRequest {
	return api.BulkRequest{
		Action: action, Status: status, Tenant: f.Tenant, To: f.To, From: f.From, Tag: f.Tag, Stream: f.Stream, Account: f.Account,
		Since: f.Since, Until: f.Until, All: f.All, Force: force,
	}
}

// bulkOutput is what the commands print.
type bulkOutput struct {
	Action    string `json:"action"`
	DryRun    bool   `json:"dry_run"`
	Matched   int    `json:"matched"`
	AtLeast   bool   `json:"at_least,omitempty"`
	Done      int    `json:"done"`
	MaybeSent int    `json:"maybe_sent"`
	Skipped   int    `json:"skipped"`
}

// run counts the messages, asks, and changes them page by page.
func (f *bulkFlags) run(ctx context.Context, s *Streams, req api.BulkRequest) error {
	if !f.Yes && !f.DryRun && !isTTY(s.In) {
		return usagef("standard input is not a terminal, so nobody can confirm: add --yes, or --dry-run to count the messages")
	}
	client, err := s.operator()
	if err != nil {
		return err
	}
	first := req
	first.DryRun = true
	counted, err := client.Bulk(ctx, first)
	if err != nil {
		return err
	}
	out := bulkOutput{Action: req.Action, DryRun: f.DryRun, Matched: counted.Matched, AtLeast: counted.AtLeast}
	if !f.DryRun && counted.Matched > 0 {
		if !f.Yes {
			if ok, err := ask(s, fmt.Sprintf("%s %s messages?", req.Action, atLeast(int64(out.Matched), out.AtLeast))); !ok || err != nil {
				return err
			}
		}
		req.Cursor = counted.Cursor
		if err := f.pages(ctx, s, client, req, &out); err != nil {
			return err
		}
	}
	return f.show(s, out, func(w io.Writer) {
		row(w, "matched", atLeast(int64(out.Matched), out.AtLeast))
		if f.DryRun {
			return
		}
		row(w, "done", count(int64(out.Done)))
		if out.MaybeSent > 0 {
			row(w, "left alone", count(int64(out.MaybeSent)), "a provider may have sent them: --force sends them again")
		}
		if out.Skipped > 0 {
			row(w, "skipped", count(int64(out.Skipped)), "their state changed meanwhile, or their body is gone")
		}
	})
}

// bulkTries is how often a page is tried before the command gives up. A page can be repeated, since what is done no longer
// matches.
const bulkTries = 5

// pages goes through all pages and adds them up.
func (f *bulkFlags) pages(ctx context.Context, s *Streams, client adminClient, req api.BulkRequest, out *bulkOutput) error {
	var done atomic.Int64
	p := startProgress(s.Err, func(time.Duration) string {
		return fmt.Sprintf("%s of %s messages", count(done.Load()), atLeast(int64(out.Matched), out.AtLeast))
	})
	defer p.stop()
	for try := 1; ; {
		page, err := client.Bulk(ctx, req)
		switch {
		case err == nil:
			try = 1
		case try == bulkTries || final(err) || !pause(ctx, max(firstRetry, retryAfter(err))):
			return fmt.Errorf("stopped after %d messages; to continue, run the same command again: %w", out.Done, err)
		default:
			try++
			continue
		}
		out.Done, out.MaybeSent, out.Skipped = out.Done+page.Done, out.MaybeSent+page.MaybeSent, out.Skipped+page.Skipped
		done.Store(int64(out.Done))
		if page.Cursor == "" {
			return nil
		}
		req.Cursor = page.Cursor
	}
}

// ask asks a question on the terminal. Anything but yes is no, which ends the command.
func ask(s *Streams, question string) (bool, error) {
	fmt.Fprintf(s.Err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(s.In).ReadString('\n')
	if err != nil && answer == "" {
		return false, fmt.Errorf("nobody answers (%w); repeat the command with --yes if you are sure", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	fmt.Fprintln(s.Err, "nothing was changed")
	return false, errShown
}
