package app

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/postgres"
)

// adminChecks checks who can reach the admin API, and whether the networks of keys can be enforced.
func adminChecks(ctx context.Context, db *postgres.DB, cfg *config.Config) []Check {
	checks := []Check{adminCheck(cfg), auditCheck(ctx, db)}
	if !cfg.BehindProxy || len(cfg.TrustedProxies) > 0 {
		return checks
	}
	keys, err := db.Keys(ctx)
	if err != nil {
		return append(checks, Check{Name: "networks of keys", Level: "error", Detail: err.Error()})
	}
	for i := range keys {
		if k := &keys[i]; len(k.Networks) > 0 && k.RevokedAt.IsZero() {
			return append(checks, Check{
				Name: "networks of keys", Level: "error", Detail: fmt.Sprintf("key %s is limited to networks, but the proxy hides the addresses of its clients", k.ID),
				Fix: "name the proxy in SENDGATE_TRUSTED_PROXIES",
			})
		}
	}
	return checks
}

// auditCheck warns of a role that may do more to the audit than add entries.
func auditCheck(ctx context.Context, db *postgres.DB) Check {
	c := Check{Name: "audit", Level: "warn", Fix: "run docker/roles.sql again, and serve as the role sendgate_serve: docs/operations.md, \"Roles\""}
	rights, err := db.AuditRights(ctx)
	if err != nil {
		c.Level, c.Detail = "error", err.Error()
		return c
	}
	c.OK, c.Detail = len(rights) == 0, "this role may only add entries"
	if !c.OK {
		c.Detail = "this role may also " + strings.Join(rights, ", ") + ": who takes over the process can rewrite the audit"
	}
	return c
}

// adminCheck warns of an admin API that only its keys protect.
func adminCheck(cfg *config.Config) Check {
	c := Check{Name: "admin API", OK: true, Level: "warn", Detail: "at SENDGATE_LISTEN, " + cfg.Listen}
	if cfg.AdminListen != "" {
		c.Detail = "at SENDGATE_ADMIN_LISTEN, " + cfg.AdminListen
	}
	if len(cfg.AdminNetworks) > 0 {
		c.Detail += fmt.Sprintf(", for %s", cfg.AdminNetworks)
		return c
	}
	host, _, _ := net.SplitHostPort(cfg.Listen) // Load has checked it
	if ip, err := netip.ParseAddr(host); cfg.AdminListen == "" && host != "localhost" && (err != nil || !ip.IsLoopback()) {
		c.OK, c.Detail = false, c.Detail+": anybody who reaches the API and has an admin key can read and change everything"
		c.Fix = "set SENDGATE_ADMIN_LISTEN to an address that only operators can reach, or SENDGATE_ADMIN_NETWORKS to their networks"
	}
	return c
}
