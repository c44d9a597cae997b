package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/sendgate/sendgate/api"
)

type topCmd struct {
	Interval time.Duration `default:"2s" help:"Time between two looks, 500ms to 1h. Rates are measured by the server, every few seconds."`
	Once     bool          `help:"Print one look and end."`
	format
}

// Help implements kong.HelpProvider.
func (*topCmd) Help() string {
	return `Shows messages accepted and sent per second, the queue, and for each account its state, its breaker and how much of each limit is used. ` +
		`A breaker that is "open 1/2" is open at one of two replicas. It needs only an admin key that may read. If the server does not answer, it says so and goes on asking. ` +
		`q or Ctrl-C ends it. If the output is no terminal, it prints each look below the last; with --json one line for each.

Examples:

  sendgate top
  sendgate top --once
  sendgate top --interval 10s --json >> top.jsonl`
}

// Validate implements kong's check of a command.
func (c *topCmd) Validate() error {
	if c.Interval < 500*time.Millisecond || c.Interval > time.Hour {
		return usagef("--interval must be 500ms to 1h, got %s", c.Interval)
	}
	return nil
}

// topLook is what top shows at one moment.
type topLook struct {
	At        time.Time    `json:"at"`
	Accepted  float64      `json:"accepted_per_second"`
	Sent      float64      `json:"sent_per_second"`
	Ready     int64        `json:"ready"`
	Scheduled int64        `json:"scheduled"`
	Inflight  int64        `json:"inflight"`
	Unknown   int64        `json:"unknown"`
	Webhooks  int64        `json:"webhooks"`
	AtLeast   []string     `json:"at_least,omitempty"`
	OldestDue *time.Time   `json:"oldest_due,omitempty"`
	Replicas  int          `json:"replicas"`
	Accounts  []topAccount `json:"accounts"`
}

type topAccount struct {
	Account string      `json:"account"`
	Kind    string      `json:"kind"`
	State   string      `json:"state"`
	Sent    float64     `json:"sent_per_second"`
	Breaker string      `json:"breaker"` // the worst of all replicas: closed, half-open, open
	Tripped int         `json:"tripped"` // replicas at which it is not closed
	Windows []topWindow `json:"limits"`
}

type topWindow struct {
	Limit        api.Limit  `json:"limit"`
	Used         int        `json:"used"`
	BlockedUntil *time.Time `json:"blocked_until,omitempty"`
}

// Run implements the command.
func (c *topCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	view := c.view(s)
	quit, err := view.begin()
	if err != nil {
		return err
	}
	defer view.end()
	for {
		look, err := c.look(ctx, client)
		switch {
		case ctx.Err() != nil || s.readerGone():
			return nil
		case err != nil && (c.Once || final(err)):
			return err
		}
		if err := view.show(look, err, time.Now()); err != nil {
			return err
		}
		if c.Once {
			return nil
		}
		next := time.NewTimer(c.Interval)
		select {
		case <-ctx.Done():
		case <-quit:
		case <-next.C:
			continue
		}
		next.Stop()
		return nil
	}
}

// look asks the admin API. A server that hangs counts as one that does not answer.
func (c *topCmd) look(ctx context.Context, client adminClient) (*topLook, error) {
	ctx, cancel := context.WithTimeout(ctx, max(c.Interval, 5*time.Second))
	defer cancel()
	q, err := client.Queue(ctx)
	if err != nil {
		return nil, err
	}
	accounts, err := client.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	windows, err := client.Limits(ctx)
	if err != nil {
		return nil, err
	}
	return newLook(q, accounts, windows, time.Now()), nil
}

// newLook adds up what the replicas say.
func newLook(q *api.Queue, accounts []api.Account, windows []api.WindowState, now time.Time) *topLook {
	l := &topLook{
		At: now.UTC(), Ready: q.Ready, Scheduled: q.Scheduled, Inflight: q.Inflight, Unknown: q.Unknown, Webhooks: q.Webhooks,
		AtLeast: q.AtLeast, OldestDue: q.OldestDue, Replicas: len(q.Replicas), Accounts: make([]topAccount, 0, len(accounts)),
	}
	for _, a := range accounts {
		t := topAccount{Account: a.Name, Kind: a.Kind, State: a.State, Breaker: "closed", Windows: []topWindow{}}
		if a.State == "active" && len(a.Parked) > 0 {
			t.State = "active, a sender parked"
		}
		for _, limit := range a.Limits {
			w := topWindow{Limit: limit}
			if i := slices.IndexFunc(windows, func(s api.WindowState) bool { return s.Account == a.Name && s.Limit == limit }); i >= 0 {
				w.Used, w.BlockedUntil = windows[i].Used, windows[i].BlockedUntil
			}
			t.Windows = append(t.Windows, w)
		}
		for _, r := range q.Replicas {
			t.add(r.Accounts)
		}
		l.Sent += t.Sent
		l.Accounts = append(l.Accounts, t)
	}
	for _, r := range q.Replicas {
		l.Accepted += r.AcceptedPerSecond
	}
	return l
}

// add adds what one replica says of the account.
func (t *topAccount) add(reports []api.ReplicaAccount) {
	for _, r := range reports {
		if r.Account != t.Account {
			continue
		}
		t.Sent += r.SentPerSecond
		if r.Breaker != "closed" {
			t.Tripped++
		}
		if r.Breaker == "open" || t.Breaker == "closed" {
			t.Breaker = r.Breaker
		}
	}
}

// write prints a look for people. No line is longer than width; 0 is no bound.
func (l *topLook) write(w io.Writer, width int) error {
	more := func(name string, n int64) string { return atLeast(n, slices.Contains(l.AtLeast, name)) }
	due := "nothing due"
	if l.OldestDue != nil {
		due = "oldest due for " + shortDuration(max(l.At.Sub(*l.OldestDue), 0).Truncate(time.Second))
	}
	t := &sheet{}
	for _, line := range flow([]string{
		stamp(l.At), "replicas " + strconv.Itoa(l.Replicas), "accepted " + perSecond(l.Accepted), "sent " + perSecond(l.Sent),
		"ready " + more("ready", l.Ready), due, "scheduled " + more("scheduled", l.Scheduled), "in flight " + count(l.Inflight),
		"unknown " + more("unknown", l.Unknown), "webhooks waiting " + more("webhooks", l.Webhooks),
	}, width) {
		fmt.Fprintln(t, line)
	}
	fmt.Fprintln(t)
	if err := t.print(w, width); err != nil {
		return err
	}
	t = &sheet{}
	head(t, "ACCOUNT", "STATE", "SENT", "USED", "LIMIT", "BREAKER", "BLOCKED UNTIL", "KIND")
	for _, a := range l.Accounts {
		a.rows(t, l.Replicas)
	}
	return t.print(w, width)
}

// rows prints a line for each window. Only the first has the account's own columns.
func (t *topAccount) rows(w io.Writer, replicas int) {
	breaker := t.Breaker
	if t.Tripped > 0 {
		breaker += fmt.Sprintf(" %d/%d", t.Tripped, replicas)
	}
	name, state, sent, kind := t.Account, t.State, perSecond(t.Sent), t.Kind
	if len(t.Windows) == 0 {
		row(w, name, state, sent, "-", "none", breaker, "-", kind)
	}
	for _, x := range t.Windows {
		blocked := "-"
		if x.BlockedUntil != nil {
			blocked = x.BlockedUntil.UTC().Format("15:04:05Z")
		}
		row(w, name, state, sent, percent(x.Used, x.Limit.N), limitText(x.Limit), breaker, blocked, kind)
		name, state, sent, breaker, kind = "", "", "", "", ""
	}
}

func percent(used, n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(used*100/n) + "%"
}

func perSecond(rate float64) string {
	if rate >= 100 || rate == 0 {
		return strconv.FormatFloat(rate, 'f', 0, 64) + "/s"
	}
	return strconv.FormatFloat(rate, 'f', 1, 64) + "/s"
}

// flow puts phrases into lines of at most width characters, if no phrase is longer. Without a width it makes one line.
func flow(phrases []string, width int) []string {
	lines := []string{phrases[0]}
	for _, p := range phrases[1:] {
		last := &lines[len(lines)-1]
		if width > 0 && len(*last)+len(p)+tableGap > width {
			lines = append(lines, p)
			continue
		}
		*last += "  " + p
	}
	return lines
}
