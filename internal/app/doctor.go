package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/catalog"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// Check is one finding of Doctor.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Level  string `json:"level"` // error, warn: how bad it is when not OK
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // what to do
}

// Doctor checks everything that could stop mail: the database and its settings, clock, schema, secret key, the books, the
// accounts, whether their events arrive, and which addresses webhooks may reach. It changes nothing and sends nothing.
func Doctor(ctx context.Context, cfg config.Config) []Check {
	a, err := New(cfg, nil)
	if err != nil {
		return []Check{{Name: "settings", Level: "error", Detail: err.Error(), Fix: "set SENDGATE_SECRET_KEY"}}
	}
	db, err := postgres.Open(ctx, postgres.Options{URL: cfg.DatabaseURL.Reveal(), Box: a.box})
	if err != nil {
		return []Check{{Name: "database", Level: "error", Detail: err.Error(), Fix: "correct SENDGATE_DATABASE_URL"}}
	}
	defer db.Close()
	pooler, err := postgres.CheckSessions(ctx, cfg.DatabaseURL.Reveal())
	if errors.Is(err, postgres.ErrPooled) {
		return []Check{{Name: "pooler", Level: "error", Detail: err.Error(), Fix: "set pool_mode = session for this database, or point SENDGATE_DATABASE_URL at PostgreSQL itself"}}
	}
	if err != nil {
		return []Check{unreachable(err, cfg)}
	}
	vitals, err := db.Vitals(ctx)
	if err != nil {
		return []Check{unreachable(err, cfg)}
	}
	checks := append(databaseChecks(vitals, cfg.DatabaseConnections), failoverChecks(vitals, cfg.DatabaseURL.Reveal())...)
	if pooler {
		checks = append(checks, Check{
			Name: "pooler", OK: true, Level: "error",
			Detail: fmt.Sprintf("keeps sessions; its pool must allow %d connections for each replica and a few more", cfg.DatabaseConnections),
		})
	}
	if err := db.Ping(ctx); err != nil {
		return append(checks, Check{Name: "schema", Level: "error", Detail: err.Error(), Fix: "sendgate migrate up"})
	}
	checks = append(checks, Check{Name: "schema", OK: true, Level: "error", Detail: fmt.Sprintf("version %d", postgres.SchemaVersion)})
	checks = append(checks, roleCheck(ctx, db, vitals.Superuser), partitionCheck(ctx, db))
	checks = append(checks, bookChecks(ctx, db)...)
	made, _, err := accountsOf(os.Environ())
	if err != nil {
		checks = append(checks, Check{Name: "providers", Level: "error", Detail: err.Error(), Fix: "correct it: serve does not start with this error"})
	}
	checks = append(checks, secretKeyCheck(ctx, db))
	checks = append(checks, accountChecks(ctx, db, made)...)
	checks = append(checks, receiverChecks(ctx, db, vitals.Now)...)
	return append(checks, reachChecks(ctx, db, &cfg, vitals.Now)...)
}

func unreachable(err error, cfg config.Config) Check {
	return Check{
		Name: "database", Level: "error", Detail: err.Error(),
		Fix: "start it, or correct SENDGATE_DATABASE_URL (" + postgres.SafeURL(cfg.DatabaseURL.Reveal()) + ")",
	}
}

func databaseChecks(v postgres.Vitals, connections int) []Check {
	return []Check{
		{Name: "database", OK: v.VersionNum >= 150000, Level: "error", Detail: "PostgreSQL " + v.Version, Fix: "use PostgreSQL 15 or newer"},
		{Name: "primary", OK: !v.InRecovery, Level: "error", Detail: onOff(!v.InRecovery, "accepts writes", "is a standby"), Fix: "point SENDGATE_DATABASE_URL at the primary"},
		{Name: "fsync", OK: v.Fsync == "on", Level: "error", Detail: v.Fsync, Fix: "set fsync = on: without it a 202 does not survive a crash"},
		{Name: "full_page_writes", OK: v.FullPageWrites == "on", Level: "error", Detail: v.FullPageWrites, Fix: "set full_page_writes = on"},
		{Name: "synchronous_commit", OK: v.SynchronousCommit != "off", Level: "error", Detail: v.SynchronousCommit, Fix: "set synchronous_commit = on for this role"},
		connectionCheck(v.MaxConnections, connections),
		{
			Name: "idle_in_transaction_session_timeout", OK: v.IdleInTransaction != "0", Level: "warn", Detail: onOff(v.IdleInTransaction != "0", v.IdleInTransaction, "none"),
			Fix: "set it, for instance to 10min: a forgotten transaction keeps dead rows in the queue, which slows down sending",
		},
		clockCheck(v.ClockSkew),
	}
}

// forOthers is how many connections a database server needs beside those of a replica: for its own work, and for people.
const forOthers = 10

func connectionCheck(most, ours int) Check {
	return Check{
		Name: "max_connections", OK: most >= ours+forOthers, Level: "warn", Detail: fmt.Sprint(most),
		Fix: fmt.Sprintf("allow %d for each replica and %d for others, or lower SENDGATE_DATABASE_CONNECTIONS", ours, forOthers),
	}
}

// clockCheck warns of a clock that is off, since providers and receivers of webhooks check the time too. Beyond mail.ClockBound
// it is an error, since serve does not start then.
func clockCheck(skew time.Duration) Check {
	c := Check{
		Name: "clock", OK: skew.Abs() < 2*time.Second, Level: "warn",
		Detail: fmt.Sprintf("this host's clock differs from the database's by %s", skew.Round(time.Millisecond)), Fix: "run NTP on both hosts",
	}
	if skew.Abs() > mail.ClockBound {
		c.Level, c.Fix = "error", fmt.Sprintf("run NTP on both hosts: if the clocks differ by more than %s, serve does not start and nothing is accepted", mail.ClockBound)
	}
	return c
}

// failoverChecks checks whether, when another server takes over, we would find it and it would have all data.
func failoverChecks(v postgres.Vitals, dsn string) []Check {
	var checks []Check
	if hosts, chosen, err := postgres.Hosts(dsn); err == nil && len(hosts) > 1 {
		checks = append(checks, Check{
			Name: "target_session_attrs", OK: chosen, Level: "warn",
			Detail: fmt.Sprintf("%s: %s", strings.Join(hosts, ", "), onOff(chosen, "it is set", "it is not set, so sendgate uses the first that answers, even a standby")),
			Fix:    "add target_session_attrs=read-write to SENDGATE_DATABASE_URL",
		})
	}
	waits := v.SynchronousStandbys != "" && v.SynchronousCommit != "local" && v.SynchronousCommit != "off"
	switch {
	case v.Standbys == 0 && v.SynchronousStandbys == "":
		return checks
	case waits:
		return append(checks, Check{Name: "standbys", OK: true, Level: "warn", Detail: "a commit waits for " + v.SynchronousStandbys})
	}
	return append(checks, Check{
		Name: "standbys", Level: "warn", Detail: fmt.Sprintf("%d connected, but no commit waits for any of them: a failover loses what the standby has not received", v.Standbys),
		Fix: "set synchronous_standby_names, with synchronous_commit = on; or run sendgate restore after each failover",
	})
}

func onOff(ok bool, yes, no string) string {
	if ok {
		return yes
	}
	return no
}

// roleCheck checks the database role of serve: it must be able to do what serve needs, and should not be a superuser.
func roleCheck(ctx context.Context, db *postgres.DB, superuser bool) Check {
	if superuser {
		return Check{
			Name: "role", Level: "warn", Detail: "a superuser: an attacker who takes over this process controls the database server",
			Fix: "run serve as a role that reads and writes rows only: docs/operations.md, \"Roles\"",
		}
	}
	c := Check{Name: "role", Level: "error", Fix: "grant them: docs/operations.md, \"Roles\""}
	missing, err := db.MissingPrivileges(ctx)
	if err != nil {
		c.Detail = err.Error()
		return c
	}
	c.OK, c.Detail = len(missing) == 0, onOff(len(missing) == 0, "may do what serve needs", "may not use "+strings.Join(missing, ", "))
	return c
}

func partitionCheck(ctx context.Context, db *postgres.DB) Check {
	c := Check{Name: "partitions", Level: "error", Fix: "start a replica, which makes them, or run SELECT ensure_partitions(current_date, current_date + 7)"}
	days, err := db.PartitionsAhead(ctx)
	if err != nil {
		c.Detail = err.Error()
		return c
	}
	c.OK, c.Detail = days >= 3, fmt.Sprintf("made %d days ahead", days)
	return c
}

// booksWait bounds the check of the books.
const booksWait = 30 * time.Second

// bookChecks checks the books: one line for the messages and one for the calls, or one for each contradiction.
func bookChecks(ctx context.Context, db *postgres.DB) []Check {
	ctx, cancel := context.WithTimeout(ctx, booksWait)
	defer cancel()
	a, err := db.Accounting(ctx)
	if err != nil {
		return []Check{{Name: "accounting", Level: "error", Detail: "not checked: " + err.Error(), Fix: "run doctor again when the database is less busy"}}
	}
	sum := a.Total()
	checks := []Check{
		{Name: "accounting", OK: true, Level: "error", Detail: fmt.Sprintf("%d open messages, 0 unaccounted", sum.Open())},
		{Name: "accounting of calls", OK: true, Level: "error", Detail: fmt.Sprintf("%d in progress, %d unknown, 0 unaccounted", sum.Started, sum.Unknown)},
	}
	balanced := []bool{true, true} // messages, calls
	var wrong []Check
	for _, v := range a.Violations {
		which := 0
		if v.Kind.OfAttempts() {
			which = 1
		}
		balanced[which] = false
		wrong = append(wrong, Check{Name: checks[which].Name, Level: "error", Detail: contradiction(v), Fix: "docs/operations.md, \"The books do not balance\""})
	}
	for i := range checks {
		if balanced[i] {
			wrong = append(wrong, checks[i])
		}
	}
	return wrong
}

// contradiction describes a violation: how many, of which tenant, what is wrong, and the first ids.
func contradiction(v queue.Violation) string {
	ids := make([]string, 0, len(v.IDs))
	for _, id := range v.IDs {
		ids = append(ids, id.String())
	}
	more := ""
	if v.Count > len(ids) {
		more = ", ..."
	}
	return fmt.Sprintf("%s: %d of tenant %s %s: %s%s", v.Kind, v.Count, v.Tenant, v.Kind.Says(), strings.Join(ids, ", "), more)
}

// accountChecks checks each account. An installation without accounts is new: its first start makes those of the environment.
func accountChecks(ctx context.Context, db *postgres.DB, firstStart []route.Account) []Check {
	c, err := db.Config(ctx)
	if err != nil {
		return []Check{{Name: "accounts", Level: "error", Detail: err.Error()}}
	}
	if len(c.Accounts) == 0 {
		return []Check{noAccounts(firstStart)}
	}
	var checks []Check
	for i := range c.Accounts {
		checks = append(checks, accountCheck(ctx, db, &c.Accounts[i]))
		checks = append(checks, guessChecks(ctx, db, &c.Accounts[i])...)
	}
	return checks
}

func noAccounts(firstStart []route.Account) Check {
	if len(firstStart) == 0 {
		return Check{Name: "accounts", Level: "warn", Detail: "none", Fix: "set the providers' variables before the first start of serve, or sendgate providers add after it"}
	}
	names := make([]string, 0, len(firstStart))
	for i := range firstStart {
		names = append(names, firstStart[i].Name)
	}
	return Check{Name: "accounts", OK: true, Level: "warn", Detail: "none yet; the first start of serve makes " + strings.Join(names, ", ")}
}

// accountCheck checks the secrets and settings of one account, and whether it is parked.
func accountCheck(ctx context.Context, db *postgres.DB, a *route.Account) Check {
	check := Check{Name: "account " + a.Name, Level: "error"}
	secrets, err := db.Secrets(ctx, a.ID)
	if err != nil {
		check.Detail, check.Fix = err.Error(), "set SENDGATE_SECRET_KEY_PREVIOUS to the key that they were encrypted with, or: sendgate providers change "+a.Name+" with --secret for each"
		return check
	}
	if err := (catalog.Catalog{}).Validate(a.Kind, a.Settings, secrets); err != nil {
		check.Detail, check.Fix = err.Error(), "sendgate providers change "+a.Name
		return check
	}
	if len(a.Parked) > 0 { // a park of the whole account comes first
		p := a.Parked[0]
		check.Detail = "parked: " + p.Reason
		check.Fix = "fix it at the provider; the next probe then ends the park, or at once: sendgate providers resume " + a.Name
		if p.SenderDomain != "" {
			check.Level, check.Detail = "warn", fmt.Sprintf("parked for %d senders, such as one of %s: %s", len(a.Parked), p.SenderDomain, p.Reason)
		}
		return check
	}
	check.OK, check.Detail = true, string(a.Kind)
	if a.Paused {
		check.Detail += ", paused"
	}
	return check
}

// guessChecks warns of secrets that are short enough to guess. They were stored before there was a minimum length.
func guessChecks(ctx context.Context, db *postgres.DB, a *route.Account) []Check {
	secrets, err := db.Secrets(ctx, a.ID)
	if err != nil {
		return nil // accountCheck says so
	}
	spec, _ := catalog.Spec(a.Kind)
	var checks []Check
	for _, name := range spec.Guessable {
		for _, stored := range []string{name, name + "_previous"} {
			if s := secrets[stored]; !s.IsZero() && len(s.Reveal()) < provider.MinGuessable {
				checks = append(checks, Check{
					Name: "account " + a.Name, Level: "warn",
					Detail: fmt.Sprintf("%s has fewer than %d characters: whoever guesses it can report bounces and complaints", stored, provider.MinGuessable),
					Fix:    "set a longer one at the provider and here: docs/webhooks.md",
				})
			}
		}
	}
	return checks
}

// silence is how long an account that sends may be without an event: providers report within seconds, and batch for half a
// minute at most. An event and the record of its call may be eventSlack out of order.
const (
	silence    = time.Hour
	eventSlack = time.Minute
)

// receiverChecks checks whether the events of the accounts arrive.
func receiverChecks(ctx context.Context, db *postgres.DB, now time.Time) []Check {
	health, err := db.HookHealth(ctx)
	if err != nil {
		return []Check{{Name: "events", Level: "error", Detail: err.Error()}}
	}
	c, err := db.Config(ctx)
	if err != nil {
		return []Check{{Name: "events", Level: "error", Detail: err.Error()}}
	}
	var checks []Check
	for i := range c.Accounts {
		for _, h := range health {
			if h.Account == c.Accounts[i].Name && !h.LastSent.IsZero() && !c.Accounts[i].Draining {
				checks = append(checks, receiverCheck(&c.Accounts[i], h, now))
			}
		}
	}
	return checks
}

// receiverCheck judges one account that has sent something.
func receiverCheck(a *route.Account, h record.HookHealth, now time.Time) Check {
	check := Check{Name: "events of " + a.Name, Level: "warn", Fix: "sendgate providers webhooks " + a.Name + " shows more; with --url it sets them up"}
	spec, _ := catalog.Spec(a.Kind)
	switch {
	case !spec.Events.Accepted && !spec.Events.Delivered: // no event is normal: it reports failures only
		check.OK = reportsBounces(a.Settings)
		check.Detail = onOff(check.OK, "it reports bounces only", "later bounces are not seen")
		check.Fix = "set bounce_domain and verp_key, and route mail for the domain to sendgate: docs/postfix.md"
	case h.Events == 0 && h.Refused > 0:
		check.Detail = fmt.Sprintf("none; %d requests were refused, the last for %q", h.Refused, h.LastRefusal)
	case h.Events == 0 && now.Sub(h.LastSent) < eventSlack && now.Sub(a.CreatedAt) < silence:
		check.OK, check.Detail = true, "none yet; it has just sent its first mail"
	case h.Events == 0:
		check.Detail = "none has ever come, although it sent mail " + ago(now, h.LastSent) + ": its webhooks are not set up"
	case fellSilent(&h, now):
		check.Detail = "the last came " + ago(now, h.LastEvent) + ", although it sent mail " + ago(now, h.LastSent)
	default:
		check.OK, check.Detail = true, "the last came "+ago(now, h.LastEvent)
	}
	return check
}

// fellSilent reports whether silence has passed without an event although the account sent after the last one.
func fellSilent(h *record.HookHealth, now time.Time) bool {
	if !h.LastSent.After(h.LastEvent.Add(eventSlack)) {
		return false
	}
	return h.LastSent.Sub(h.LastEvent) >= silence || now.Sub(h.LastSent) >= silence
}

// reportsBounces reports whether a relay's settings make bounces come back to us.
func reportsBounces(settings json.RawMessage) bool {
	var s struct {
		BounceDomain string `json:"bounce_domain"`
	}
	return json.Unmarshal(settings, &s) == nil && s.BounceDomain != ""
}

func ago(now, then time.Time) string {
	d := now.Sub(then).Abs()
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	}
}

// bulkStream is the stream whose mail offers one-click unsubscribing. Streams such as bulk-news do too.
const bulkStream = "bulk"

// reachChecks checks the settings that decide who can reach us, and which addresses we may call.
func reachChecks(ctx context.Context, db *postgres.DB, cfg *config.Config, now time.Time) []Check {
	checks := adminChecks(ctx, db, cfg)
	if cfg.PublicURL == "" && sendsBulk(ctx, db, now) {
		checks = append(checks, Check{
			Name: "unsubscribe", Level: "warn", Detail: "bulk mail goes out without a one-click unsubscribe link, which large mailbox providers demand",
			Fix: "set SENDGATE_PUBLIC_URL to the https URL at which recipients reach this service",
		})
	}
	if cfg.BehindProxy && len(cfg.TrustedProxies) == 0 {
		checks = append(checks, Check{
			Name: "SENDGATE_TRUSTED_PROXIES", Level: "warn", Detail: "the proxy in front is not named: all of its clients share the limits of one address",
			Fix: "set it to the networks that the proxy's connections come from",
		})
	}
	if len(cfg.ForwardAllow) > 0 {
		checks = append(checks, Check{
			Name: "SENDGATE_FORWARD_ALLOW", Level: "warn", Detail: "webhook endpoints may be at " + targets(cfg.ForwardAllow),
			Fix: "unset it unless everybody with a key may reach those addresses",
		})
	}
	return checks
}

func targets(list config.Targets) string {
	words := make([]string, 0, len(list))
	for _, t := range list {
		words = append(words, fmt.Sprintf("%s port %d", t.Prefix, t.Port))
	}
	return strings.Join(words, ", ")
}

// sendsBulk looks for bulk mail of the last day, in the stream bulk and in streams bulk-* that a rule names. A query that fails
// counts as no bulk mail, since this is only for a warning.
func sendsBulk(ctx context.Context, db *postgres.DB, now time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	tenants, err := db.Tenants(ctx)
	if err != nil {
		return false
	}
	streams := []string{bulkStream}
	if c, err := db.Config(ctx); err == nil {
		for _, r := range c.Rules {
			if strings.HasPrefix(r.Stream, bulkStream+"-") {
				streams = append(streams, r.Stream)
			}
		}
	}
	for _, t := range tenants {
		for _, stream := range streams {
			found, err := db.Messages(ctx, record.Filter{Tenant: t.ID, Stream: stream, Since: now.Add(-24 * time.Hour), Limit: 1})
			if err == nil && len(found) > 0 {
				return true
			}
		}
	}
	return false
}
