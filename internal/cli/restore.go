package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sendgate/sendgate/internal/app"
)

type restoreCmd struct {
	Since  time.Time `required:"" help:"The time up to which the restored data reach. When in doubt, use a later one."`
	LostAt time.Time `help:"The time when the last process on the lost database had stopped; now when absent. Limits count as used up at that time."`
	DryRun bool      `help:"Change nothing; count what would be moved."`
	Yes    bool      `help:"Do not ask."`
	format
}

// Help implements kong.HelpProvider.
func (*restoreCmd) Help() string {
	return `In a restored database, mail that was sent after the end of the backup looks unsent. Run this before you start sendgate on it. Every open message ` +
		`that was accepted before --since becomes unknown, so that its own policy decides. With "reconcile" it is looked up at every account of its pool, and sent again only ` +
		`if all of them prove that they never had it. With "never" it ends. With "resend" it is sent again after SENDGATE_UNKNOWN_WAIT. ` +
		`Messages that are due only after the loss stay scheduled. The limits of all accounts count as used up once.

Works on SENDGATE_DATABASE_URL, and refuses to run while processes work on it. If it was interrupted, repeat it; running it once too often changes nothing. ` +
		`docs/operations.md describes a whole restore.

Examples:

  sendgate restore --since 2026-01-31T12:00:00Z --dry-run
  sendgate restore --since 2026-01-31T12:00:00Z --lost-at 2026-01-31T12:40:00Z --yes`
}

// Run implements the command.
func (c *restoreCmd) Run(ctx context.Context, s *Streams) error {
	if err := c.check(s, time.Now()); err != nil {
		return err
	}
	dsn, err := s.databaseURL()
	if err != nil {
		return err
	}
	r, err := app.NewRestoration(ctx, dsn, s.Env, c.Since, c.LostAt, actor())
	if err != nil {
		return err
	}
	defer r.Close()
	found, replicas, err := r.Count(ctx)
	if err != nil {
		return err
	}
	if c.DryRun {
		return c.report(s, restored{
			Ready: found.Ready, Inflight: found.Inflight, Unknown: found.Unknown, Later: found.Later, Done: found.Done, Younger: found.Younger,
			DryRun: true, Replicas: replicas,
		})
	}
	if len(replicas) > 0 {
		return fmt.Errorf("processes work on this database, stop them first: %s", strings.Join(replicas, ", "))
	}
	if ok, err := c.confirm(s, found.Open()); !ok || err != nil {
		return err
	}
	return c.move(ctx, s, r, found.Open())
}

// move runs the restoration, shows its progress and prints the result.
func (c *restoreCmd) move(ctx context.Context, s *Streams, r *app.Restoration, open int) error {
	var done atomic.Int64
	p := startProgress(s.Err, func(time.Duration) string {
		return fmt.Sprintf("%d of %d messages", done.Load(), open)
	})
	moved, err := r.Run(ctx, func(n int) { done.Store(int64(n)) })
	p.stop()
	if err != nil {
		if n := done.Load(); n > 0 {
			fmt.Fprintf(s.Err, "interrupted after %d messages; start no process, and repeat the command\n", n)
		}
		return err
	}
	return c.report(s, restored{
		Ready: moved.Ready, Inflight: moved.Inflight, Unknown: moved.Unknown, Later: moved.Later, Done: moved.Done, Younger: moved.Younger,
	})
}

func (c *restoreCmd) check(s *Streams, now time.Time) error {
	switch {
	case c.Since.After(now):
		return usagef("--since %s is in the future", c.Since.Format(time.RFC3339))
	case c.LostAt.After(now):
		return usagef("--lost-at %s is in the future", c.LostAt.Format(time.RFC3339))
	case !c.LostAt.IsZero() && c.LostAt.Before(c.Since):
		return usagef("--lost-at is before --since: the database must have been lost after the end of the restored data")
	case !c.Yes && !c.DryRun && !isTTY(s.In):
		return usagef("standard input is not a terminal, so nobody can confirm: add --yes, or --dry-run to see what would be done")
	}
	return nil
}

// confirm asks the user, unless --yes is given.
func (c *restoreCmd) confirm(s *Streams, n int) (bool, error) {
	if c.Yes {
		return true, nil
	}
	return ask(s, fmt.Sprintf("%d messages accepted before %s will become unknown, and all limits will count as used up. Continue?", n, c.Since.Format(time.RFC3339)))
}

// restored is the output of the command.
type restored struct {
	Ready    int      `json:"ready"`
	Inflight int      `json:"inflight"`
	Unknown  int      `json:"unknown"`
	Later    int      `json:"scheduled_later"`
	Done     int      `json:"done_before"`
	Younger  int      `json:"younger"`
	DryRun   bool     `json:"dry_run"`
	Replicas []string `json:"replicas,omitempty"`
}

func (c *restoreCmd) report(s *Streams, r restored) error {
	err := c.show(s, r, func(w io.Writer) {
		held := "held as unknown"
		if r.DryRun {
			held = "would be held as unknown"
		}
		row(w, held, strconv.Itoa(r.Ready+r.Inflight+r.Unknown),
			fmt.Sprintf("%d were ready, %d in flight, %d unknown before", r.Ready, r.Inflight, r.Unknown))
		row(w, "unchanged, due after the loss", strconv.Itoa(r.Later))
		row(w, "unchanged, held as unknown by an earlier run", strconv.Itoa(r.Done))
		row(w, "unchanged, accepted since", strconv.Itoa(r.Younger))
	})
	if err != nil {
		return err
	}
	if r.Younger > 0 {
		fmt.Fprintf(s.Err, "%d open messages were accepted at --since or later and will be sent as if they never had been. "+
			"Unless sendgate has run on this database since the restore, repeat this with a later --since.\n", r.Younger)
	}
	for _, name := range r.Replicas {
		fmt.Fprintln(s.Err, "works on this database, stop it first:", clean(name))
	}
	return nil
}

// actor returns user@host of this process, for the audit.
func actor() string {
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname() // an unnamed host becomes "unknown" below
	return cmp.Or(name, "somebody") + "@" + cmp.Or(host, "unknown")
}
