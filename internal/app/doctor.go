package app

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/provider/catalog"
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

// Doctor looks at everything that can be wrong before mail is: database, its settings, clock, schema, secret key,
// accounts. It changes nothing and sends nothing.
func Doctor(ctx context.Context, cfg config.Config) []Check {
	a, err := New(cfg, nil)
	if err != nil {
		return []Check{{Name: "settings", Level: "error", Detail: err.Error(), Fix: "set SENDGATE_SECRET_KEY"}}
	}
	db, err := postgres.Open(ctx, postgres.Options{URL: cfg.DatabaseURL.Reveal(), Box: a.box})
	if err != nil {
		return []Check{{Name: "database", Level: "error", Detail: err.Error(), Fix: "mend SENDGATE_DATABASE_URL"}}
	}
	defer db.Close()
	vitals, err := db.Vitals(ctx)
	if err != nil {
		return []Check{{
			Name: "database", Level: "error", Detail: err.Error(),
			Fix: "start it, or mend SENDGATE_DATABASE_URL (" + postgres.SafeURL(cfg.DatabaseURL.Reveal()) + ")",
		}}
	}
	checks := databaseChecks(vitals)
	if err := db.Ping(ctx); err != nil {
		return append(checks, Check{Name: "schema", Level: "error", Detail: err.Error(), Fix: "sendgate migrate up"})
	}
	checks = append(checks, Check{Name: "schema", OK: true, Level: "error", Detail: fmt.Sprintf("version %d", postgres.SchemaVersion)})
	checks = append(checks, partitionCheck(ctx, db))
	made, _, err := catalog.Accounts(os.Environ())
	if err != nil {
		checks = append(checks, Check{Name: "providers", Level: "error", Detail: err.Error(), Fix: "correct it: serve does not start with it"})
	}
	return append(checks, accountChecks(ctx, db, made)...)
}

func databaseChecks(v postgres.Vitals) []Check {
	skew := v.ClockSkew.Abs()
	return []Check{
		{Name: "database", OK: v.VersionNum >= 150000, Level: "error", Detail: "PostgreSQL " + v.Version, Fix: "use PostgreSQL 15 or newer"},
		{Name: "primary", OK: !v.InRecovery, Level: "error", Detail: onOff(!v.InRecovery, "accepts writes", "is a standby"), Fix: "point SENDGATE_DATABASE_URL at the primary"},
		{Name: "fsync", OK: v.Fsync == "on", Level: "error", Detail: v.Fsync, Fix: "set fsync = on: without it a 202 does not survive a crash"},
		{Name: "full_page_writes", OK: v.FullPageWrites == "on", Level: "error", Detail: v.FullPageWrites, Fix: "set full_page_writes = on"},
		{Name: "synchronous_commit", OK: v.SynchronousCommit != "off", Level: "error", Detail: v.SynchronousCommit, Fix: "set synchronous_commit = on for this role"},
		{Name: "max_connections", OK: v.MaxConnections >= 26, Level: "warn", Detail: fmt.Sprint(v.MaxConnections), Fix: "a replica uses 16; allow 16 for each and 10 for people"},
		{Name: "clock", OK: skew < 2*time.Second, Level: "warn", Detail: fmt.Sprintf("this host is %s off the database", v.ClockSkew.Round(time.Millisecond)), Fix: "run NTP on both hosts"},
	}
}

func onOff(ok bool, yes, no string) string {
	if ok {
		return yes
	}
	return no
}

func partitionCheck(ctx context.Context, db *postgres.DB) Check {
	c := Check{Name: "partitions", Level: "error", Fix: "start a replica: it makes them, or run SELECT ensure_partitions(current_date, current_date + 7)"}
	days, err := db.PartitionsAhead(ctx)
	if err != nil {
		c.Detail = err.Error()
		return c
	}
	c.OK, c.Detail = days >= 3, fmt.Sprintf("made %d days ahead", days)
	return c
}

// accountChecks looks at each account. An installation without one is new, and the first start makes those of its
// environment.
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

func accountCheck(ctx context.Context, db *postgres.DB, a *route.Account) Check {
	check := Check{Name: "account " + a.Name, Level: "error"}
	secrets, err := db.Secrets(ctx, a.ID)
	if err != nil {
		check.Detail, check.Fix = err.Error(), "use the SENDGATE_SECRET_KEY that the secrets were stored with, or store them again"
		return check
	}
	if err := (catalog.Catalog{}).Validate(a.Kind, a.Settings, secrets); err != nil {
		check.Detail, check.Fix = err.Error(), "sendgate providers change "+a.Name
		return check
	}
	if len(a.Parked) > 0 {
		check.Detail = "parked: " + a.Parked[0].Reason
		check.Fix = "mend it at the provider, then: sendgate providers resume " + a.Name
		return check
	}
	check.OK, check.Detail = true, string(a.Kind)
	if a.Paused {
		check.Detail += ", paused"
	}
	return check
}
