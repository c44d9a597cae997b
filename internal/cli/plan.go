package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/capacity"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/catalog"
)

type planCmd struct {
	Weights       []string `arg:"" optional:"" placeholder:"KIND=WEIGHT" help:"Plan with one account of each of these kinds, with its documented limits, instead of those of a server."`
	PerMonth      []string `required:"" sep:"," placeholder:"N" help:"Messages in 30 days, such as 500k or 1M. Several, separated by commas, make a table with a row for each."`
	Peak          string   `default:"10x" help:"Mail of the busiest hour, as a multiple of that of an average hour."`
	Size          string   `default:"30kB" help:"Size of a message, such as 30kB."`
	Recipients    float64  `default:"1.2" help:"Recipients of a message, on average."`
	Bulk          string   `default:"0%" help:"Share of the mail that has the same content for many, in a stream for bulk, such as 80%. More of it fits into one call."`
	Retention     string   `default:"2160h" help:"How long messages and events are kept, as in SENDGATE_RETENTION; days as 90d."`
	BodyRetention string   `default:"168h" help:"How long bodies are kept, as in SENDGATE_BODY_RETENTION."`
	Pool          string   `default:"default" help:"Pool that gets the mail."`
	Offline       bool     `help:"Ask no server: plan with one account of each kind, with equal weights and documented limits."`
	JSON          bool     `name:"json" help:"Print the plan as JSON."`
}

// Help implements kong.HelpProvider.
func (*planCmd) Help() string {
	return `Says what an amount of mail needs: cores, memory, disk, connections of Postgres, and what the limits of the accounts carry, with the limit ` +
		`that binds first. It takes accounts, limits and weights from the server, if there is an admin key for one. The costs of a message were ` +
		`measured, and the prices are those that vendors publish; the output says when. Everything is an estimate: measure your own mail with "sendgate load".

Examples:

  sendgate plan --per-month 500k
  sendgate plan --per-month 2M --peak 20x --size 60kB --recipients 1 ses=70 postmark=30
  sendgate plan --per-month 1M --bulk 80% --retention 30d --json
  sendgate plan --offline --per-month 10k,100k,1M,10M,100M`
}

// Run implements the command.
func (c *planCmd) Run(ctx context.Context, s *Streams) error {
	loads, err := c.loads()
	if err != nil {
		return err
	}
	pool, accounts, err := c.accounts(ctx, s)
	if err != nil {
		return err
	}
	var plans []capacity.Plan
	for _, l := range loads {
		plans = append(plans, capacity.Compute(l, pool.Name, pool.Overflow == "spill", accounts, capacity.Measured()))
	}
	switch {
	case len(plans) > 1 && c.JSON:
		return printJSON(s.Out, api.List[capacity.Plan]{Data: plans})
	case len(plans) > 1:
		return format{}.show(s, nil, func(w io.Writer) { planRows(w, plans) })
	default:
		return format{JSON: c.JSON}.show(s, plans[0], func(w io.Writer) { showPlan(w, plans[0]) })
	}
}

// loads reads the flags that describe the mail.
func (c *planCmd) loads() ([]capacity.Load, error) {
	var errs []error
	number := func(flag, text, example string, units map[string]float64) float64 {
		n, ok := quantity(text, units)
		if !ok {
			errs = append(errs, usagef("--%s: want %s, got %q", flag, example, text))
		}
		return n
	}
	span := func(flag, text string) capacity.Span {
		d, err := readSpan(text)
		if err != nil {
			errs = append(errs, usagef("--%s: want a time such as 168h or 7d, got %q", flag, text))
		}
		return capacity.Span(d)
	}
	l := capacity.Load{
		Peak: number("peak", c.Peak, "a multiple such as 10x", map[string]float64{"": 1, "x": 1}),
		Size: number("size", c.Size, "a size such as 30kB, 1MB or 512KiB",
			map[string]float64{"": 1, "b": 1, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "kib": 1 << 10, "mib": 1 << 20}),
		Bulk:       number("bulk", c.Bulk, "a share such as 80%", map[string]float64{"%": 0.01}),
		Recipients: c.Recipients, Retention: span("retention", c.Retention), BodyRetention: span("body-retention", c.BodyRetention),
	}
	var loads []capacity.Load
	for _, text := range c.PerMonth {
		l.PerMonth = number("per-month", text, "messages such as 10000, 500k or 1M", map[string]float64{"": 1, "k": 1e3, "m": 1e6, "g": 1e9})
		loads = append(loads, l)
	}
	if len(errs) > 0 {
		return nil, errs[0]
	}
	if len(loads) < 1 || len(loads) > 50 {
		return nil, usagef("--per-month: want 1 to 50 amounts, got %d", len(loads))
	}
	for _, l := range loads {
		if err := l.Validate(); err != nil {
			return nil, usagef("--%v", err)
		}
	}
	return loads, nil
}

var quantityForm = regexp.MustCompile(`^([0-9]{1,15}(?:\.[0-9]{1,15})?) ?([a-zA-Z%]*)$`)

// quantity reads a number with a unit, in upper or lower case.
func quantity(text string, units map[string]float64) (float64, bool) {
	m := quantityForm.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseFloat(m[1], 64)
	factor, known := units[strings.ToLower(m[2])]
	return n * factor, err == nil && known
}

// accounts returns the pool and its accounts: those that are named, those of the server, or one of each kind.
func (c *planCmd) accounts(ctx context.Context, s *Streams) (api.Pool, []capacity.Account, error) {
	weights, err := parseWeights(c.Weights)
	if err != nil {
		return api.Pool{}, nil, err
	}
	if len(weights) > 0 || c.Offline {
		return documented(weights)
	}
	client, err := s.operator()
	if errors.Is(err, errNoServer) || errors.Is(err, errNoAdminKey) {
		fmt.Fprintln(s.Err, "no server and admin key are set: one account of each kind, with equal weights and documented limits")
		return documented(nil)
	}
	if err != nil {
		return api.Pool{}, nil, err
	}
	pool, err := client.Pool(ctx, c.Pool)
	if err != nil {
		return api.Pool{}, nil, err
	}
	configured, err := client.Accounts(ctx)
	if err != nil {
		return api.Pool{}, nil, err
	}
	var accounts []capacity.Account
	for _, a := range configured {
		i := indexOf(pool.Accounts, a.Name)
		if i < 0 {
			continue
		}
		account, err := plannedAccount(a, pool.Accounts[i].Weight)
		if err != nil {
			return api.Pool{}, nil, fmt.Errorf("account %s: %w", a.Name, err)
		}
		accounts = append(accounts, account)
	}
	return *pool, accounts, nil
}

// documented returns an account of each kind that has a weight, or of every kind if none has.
func documented(weights []api.PoolMember) (api.Pool, []capacity.Account, error) {
	if len(weights) == 0 {
		for _, kind := range kinds() {
			weights = append(weights, api.PoolMember{Account: kind, Weight: 1})
		}
	}
	var accounts []capacity.Account
	for i, m := range weights {
		spec, ok := catalog.Spec(provider.Kind(m.Account))
		if !ok || indexOf(weights[:i], m.Account) >= 0 {
			return api.Pool{}, nil, usagef("want each kind once, of %s, got %q", strings.Join(kinds(), ", "), m.Account)
		}
		accounts = append(accounts, capacity.Account{
			Name: m.Account, Kind: m.Account, State: "active", Weight: m.Weight,
			Limits: catalog.DocumentedLimits(spec.Kind), Can: spec.Capabilities, Batch: spec.Batch,
		})
	}
	return api.Pool{Name: "documented limits", Overflow: "spill"}, accounts, nil
}

// plannedAccount turns an account of the server into one to plan with.
func plannedAccount(a api.Account, weight float64) (capacity.Account, error) {
	spec, _ := catalog.Spec(provider.Kind(a.Kind)) // a newer server may have other kinds
	out := capacity.Account{Name: a.Name, Kind: a.Kind, State: a.State, Weight: weight, Batch: spec.Batch}
	for _, l := range a.Limits {
		per, err := time.ParseDuration(l.Per)
		w := limit.Window{N: l.N, Per: per, Unit: limit.Unit(l.Unit)}
		if err := errors.Join(err, w.Validate()); err != nil {
			return out, err
		}
		out.Limits = append(out.Limits, w)
	}
	var settings struct {
		BatchSize int `json:"batch_size"`
	}
	if err := errors.Join(json.Unmarshal(a.Capabilities, &out.Can), json.Unmarshal(a.Settings, &settings)); err != nil {
		return out, fmt.Errorf("read what it can carry: %w", err)
	}
	out.Batch.Max = cmp.Or(settings.BatchSize, out.Batch.Max)
	return out, nil
}
