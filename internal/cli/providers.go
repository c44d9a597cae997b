package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/provider/catalog"
)

type providersCmd struct {
	List   providersListCmd   `cmd:"" help:"List accounts, their state and what is left of their limits." detail:"LEFT is how much each limit still allows now." example:"providers list"`
	Show   providersShowCmd   `cmd:"" help:"Show one account." detail:"Secrets are listed by name only: the API never shows them." example:"providers show ses-eu"`
	Add    providersAddCmd    `cmd:"" help:"Add an account."`
	Change providersChangeCmd `cmd:"" help:"Change settings or secrets of an account, such as a rotated key."`
	Limits providersLimitsCmd `cmd:"" help:"Show or replace the limits of an account."`
	Pause  providersPauseCmd  `cmd:"" help:"Stop giving mail to an account." detail:"Calls in progress finish. Waiting mail goes to the other accounts of its pool." example:"providers pause mailgun"`
	Resume providersResumeCmd `cmd:"" help:"Give mail to a paused or parked account again." example:"providers resume mailgun"`
	Remove providersRemoveCmd `cmd:"" help:"Remove an account; it first finishes its calls." example:"providers remove mailgun"`

	Webhooks providersWebhooksCmd `cmd:"" help:"Show whether events of an account arrive, or set up its webhooks."`
}

type providersListCmd struct{ format }

// Run implements the command.
func (c *providersListCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	accounts, err := client.Accounts(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.Out, api.List[api.Account]{Data: accounts})
	}
	windows, err := client.Limits(ctx)
	if err != nil {
		return err
	}
	return c.show(s, nil, func(w io.Writer) {
		head(w, "ACCOUNT", "KIND", "STATE", "CALLS", "LIMIT", "LEFT", "BLOCKED UNTIL")
		for _, a := range accounts {
			accountRows(w, a, windows)
		}
	})
}

// accountRows prints a line per window. Only the first line has the account's own columns.
func accountRows(w io.Writer, a api.Account, windows []api.WindowState) {
	head := []string{a.Name, a.Kind, stateOf(a), strconv.Itoa(a.Concurrency)}
	if len(a.Limits) == 0 {
		row(w, append(head, "none")...)
	}
	for _, l := range a.Limits {
		left, blocked := windowState(windows, a.Name, l)
		row(w, append(head, limitText(l), left, blocked)...)
		head = []string{"", "", "", ""}
	}
}

// windowState returns how much of a window is left and until when it is blocked, or dashes if it has not been used yet.
func windowState(windows []api.WindowState, account string, l api.Limit) (left, blocked string) {
	i := slices.IndexFunc(windows, func(s api.WindowState) bool { return s.Account == account && s.Limit == l })
	if i < 0 {
		return "-", "-"
	}
	return strconv.Itoa(windows[i].Free), stampOf(windows[i].BlockedUntil)
}

func stateOf(a api.Account) string {
	if len(a.Parked) == 0 {
		return a.State
	}
	return a.State + " (see show)"
}

// limitText returns a text such as "100 requests per 5m".
func limitText(l api.Limit) string {
	per := l.Per
	if d, err := time.ParseDuration(per); err == nil {
		per = shortDuration(d)
	}
	return fmt.Sprintf("%d %s per %s", l.N, l.Unit, per)
}

// shortDuration omits the trailing zero parts of a duration: 5m, not 5m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

type providersShowCmd struct {
	Name string `arg:"" help:"Account."`
	format
}

// Run implements the command.
func (c *providersShowCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	a, err := client.Account(ctx, c.Name)
	if err != nil {
		return err
	}
	return showAccount(s, c.format, a)
}

func showAccount(s *Streams, f format, a *api.Account) error {
	return f.show(s, a, func(w io.Writer) {
		row(w, "account", a.Name)
		row(w, "kind", a.Kind)
		row(w, "state", a.State)
		for _, p := range a.Parked {
			what := "parked"
			if p.SenderDomain != "" {
				what = "parked for senders of " + p.SenderDomain
			}
			if p.Sender != "" {
				what = "parked for the sender " + p.Sender
			}
			row(w, what, "since "+stamp(p.Since)+": "+p.Reason)
			if !p.NextProbe.IsZero() {
				row(w, "next probe", "from "+stamp(p.NextProbe)+" on")
			}
		}
		if len(a.Parked) > 0 && len(a.UnreadableSecrets) == 0 {
			row(w, "to fix", "remove the cause; the next probe then ends the park, or at once: sendgate providers resume "+a.Name)
		}
		row(w, "settings", string(a.Settings))
		row(w, "secrets set", orDash(strings.Join(a.Secrets, ", ")))
		if len(a.UnreadableSecrets) > 0 {
			row(w, "unreadable", strings.Join(a.UnreadableSecrets, ", ")+": store them again with --secret, or give the server the key that they were encrypted with")
		}
		row(w, "calls at once", strconv.Itoa(a.Concurrency))
		for _, l := range a.Limits {
			row(w, "limit", limitText(l))
		}
		for _, line := range capabilities(a.Capabilities) {
			row(w, "carries", line)
		}
		row(w, "changed", stamp(a.UpdatedAt))
	})
}

type accountFlags struct {
	Set         []string `sep:"none" placeholder:"KEY=VALUE" help:"Setting of the account (repeat); KEY:=JSON for numbers, true and false."`
	Secret      []string `sep:"none" placeholder:"NAME=@FILE" help:"Secret from a file (NAME=@FILE) or a variable (NAME=env:VAR); with NAME alone you are asked for it."`
	Concurrency *int     `help:"At most this many calls in flight, all replicas together."`
}

type providersAddCmd struct {
	Name  string       `arg:"" help:"Name of the new account, such as ses-eu."`
	Kind  string       `required:"" placeholder:"KIND" help:"One of ${kinds}."`
	Limit []string     `sep:"none" placeholder:"N/PER/UNIT" help:"Limit that replaces the documented limits of the kind (repeat), such as 14/1s/requests."`
	Flags accountFlags `embed:""`
	format
}

// Help implements kong.HelpProvider.
func (*providersAddCmd) Help() string {
	return `docs/providers.md lists the settings and secrets of each kind. A new account gets no mail until a pool gives it a weight (sendgate pools set).

Examples:

  sendgate providers add sendgrid --kind sendgrid --secret api_key=env:SENDGRID_API_KEY
  sendgate providers add mg-eu --kind mailgun --set domain=mg.example.com --set region=eu --secret api_key=@mailgun.key
  sendgate providers add relay --kind smtp --set host=mail.internal --set port:=587 --set username=sendgate --secret password
  sendgate providers add gmail --kind smtp --set host=smtp.gmail.com --set username=shop@example.com --set auth=xoauth2 --set token_url=https://oauth2.googleapis.com/token --set client_id=APP --secret client_secret=@client.secret --secret refresh_token=@refresh.token`
}

// Run implements the command.
func (c *providersAddCmd) Run(ctx context.Context, s *Streams) error {
	req, err := c.Flags.request(ctx, s)
	if err != nil {
		return err
	}
	req.Name, req.Kind = c.Name, c.Kind
	if len(c.Limit) > 0 {
		limits, err := parseLimits(c.Limit)
		if err != nil {
			return err
		}
		req.Limits = &limits
	}
	client, err := s.operator()
	if err != nil {
		return err
	}
	a, err := client.CreateAccount(ctx, req)
	if err != nil {
		return err
	}
	if err := showAccount(s, c.format, a); err != nil || c.JSON {
		return err
	}
	fmt.Fprintf(s.Out, "next: %s pools set default %s=1\n", s.program(), a.Name)
	return nil
}

type providersChangeCmd struct {
	Name  string       `arg:"" help:"Account."`
	Flags accountFlags `embed:""`
	format
}

// Help implements kong.HelpProvider.
func (*providersChangeCmd) Help() string {
	return `Settings and secrets that are not named stay as they are. A change also ends the parks of the account. Some settings decide where or how secrets are sent, such as ` +
		`base_url, region, host and tls. If you change one of them, give those secrets again.

Examples:

  sendgate providers change sendgrid --secret api_key
  sendgate providers change ses-eu --set configuration_set=main --concurrency 32
  sendgate providers change relay --set host=mail2.internal --secret password`
}

// Run implements the command.
func (c *providersChangeCmd) Run(ctx context.Context, s *Streams) error {
	req, err := c.Flags.request(ctx, s)
	if err != nil {
		return err
	}
	if req.Settings == nil && req.Secrets == nil && req.Concurrency == nil {
		return usagef("nothing to change: give --set, --secret or --concurrency")
	}
	client, err := s.operator()
	if err != nil {
		return err
	}
	if req.Settings != nil { // the API replaces settings as a whole
		old, err := client.Account(ctx, c.Name)
		if err != nil {
			return err
		}
		if req.Settings, err = mergeSettings(old.Settings, c.Flags.Set); err != nil {
			return err
		}
	}
	a, err := client.PatchAccount(ctx, c.Name, req)
	if err != nil {
		return err
	}
	return showAccount(s, c.format, a)
}

// kinds are the names of the providers.
func kinds() []string {
	var names []string
	for _, s := range catalog.Specs() {
		names = append(names, string(s.Kind))
	}
	return names
}
