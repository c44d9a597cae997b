//go:build drill

package drill

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/app"
	"github.com/sendgate/sendgate/internal/emulator"
	emulated "github.com/sendgate/sendgate/internal/emulator/catalog"
	"github.com/sendgate/sendgate/internal/httpapi"
	"github.com/sendgate/sendgate/internal/limit"
)

// plan is the setup of a drill. The zero value has two replicas, no limits and a lease of 5 s.
type plan struct {
	replicas int
	settings []string                  // of every replica, beyond the usual; later ones win
	limits   map[string][]limit.Window // of the accounts, and of the emulators
	postgres map[string]string         // settings of the server
	dsn      func(t *testing.T, i int, dsn string) string
	load     load
	wrap     []string // a command that runs the first replica
	release  string   // path of the program that all begin with

	postgresDir string // where the server's data is; "" is a folder of the drill's own
	standby     following
	byItself    bool // no other drill runs meanwhile: it offers more than a small machine can take, or measures what it does
}

// rig is everything that one drill runs.
type rig struct {
	id       string
	plan     plan
	dir      string
	pg       *server
	standby  *standby // nil without one
	dsn      string   // of the database, wherever it is served
	lapse    lapse
	emu      *emulator.Emulator
	hooks    map[string]emulator.Hook // where it reports to
	web      *front                   // of the replicas' API, for those who report over HTTP
	ledger   string                   // path
	replicas []*replica
	http     *http.Client
	admin    *api.Client
	adminKey string
	keys     map[string]string // tenant -> key
	rows     *pgxpool.Pool     // the auditor's
	clients  *clients
	turn     atomic.Int64 // of the clients' choice
	report   report
}

// drillTest sets a drill up, starts its clients, hands over to the fault, and audits.
func drillTest(t *testing.T, id string, p plan, fault func(t *testing.T, r *rig)) {
	t.Helper()
	if number, _ := strconv.Atoi(strings.Trim(id, "Dabc")); !chosen(number) {
		t.Skipf("-parts %d -part %d leaves it to another run", *parts, *part)
	}
	if !p.byItself {
		t.Parallel()
	}
	if p.replicas == 0 {
		p.replicas = 2
	}
	r := &rig{id: id, plan: p, dir: openDir(t), report: report{id: id}}
	t.Cleanup(func() { r.conclude(t) })
	r.build(t)
	r.startClients(t)
	pause(t, time.Second)
	fault(t, r)
	r.clients.stop()
	r.heal(t)
	r.audit(t)
}

func (r *rig) build(t *testing.T) {
	t.Helper()
	r.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}, Timeout: 40 * time.Second}
	t.Cleanup(r.http.CloseIdleConnections)
	r.pg = startServer(t, r.plan.postgresDir, r.plan.postgres)
	r.dsn = r.pg.dsn
	r.migrate(t, r.plan.release)
	if r.plan.standby != alone {
		r.standby = follow(t, r.pg, r.plan.standby)
		r.dsn = eitherOf(t, r.pg, r.standby.server)
	}
	var err error
	if r.rows, err = pgxpool.New(t.Context(), r.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.rows.Close)
	r.startEmulator(t)
	_, r.adminKey, _ = httpapi.NewKey()
	for i := range r.plan.replicas {
		r.replicas = append(r.replicas, r.newReplica(t, i))
	}
	r.setHooks(t)
	r.replicas[0].start(t)
	r.admin = api.NewWith("http://"+r.replicas[0].api, r.adminKey, r.http)
	r.configure(t)
	for _, x := range r.replicas[1:] {
		x.start(t)
	}
}

func (r *rig) startEmulator(t *testing.T) {
	t.Helper()
	r.ledger = filepath.Join(r.dir, "ledger.jsonl")
	emu, err := emulated.New(emulator.Options{
		LedgerPath: r.ledger, Limits: r.plan.limits, EventPace: 50 * time.Millisecond, DeferFor: 300 * time.Millisecond,
		RetryPace: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := emu.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = emu.Stop(context.Background()) })
	r.emu = emu
}

func (r *rig) newReplica(t *testing.T, i int) *replica {
	t.Helper()
	x := &replica{
		name: fmt.Sprintf("replica-%d", i+1), api: fixedAddr(t), ops: fixedAddr(t), lmtp: fixedAddr(t), dir: r.dir, http: r.http,
		release: r.plan.release,
	}
	dsn := r.dsn
	if r.plan.dsn != nil {
		dsn = r.plan.dsn(t, i, dsn)
	}
	x.env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "SENDGATE_LISTEN=" + x.api, "SENDGATE_OPS_LISTEN=" + x.ops,
		"SENDGATE_LMTP_LISTEN=" + x.lmtp, "SENDGATE_DATABASE_URL=" + dsn, "SENDGATE_SECRET_KEY=" + strings.Repeat("d7", 32),
		"SENDGATE_ADMIN_KEY=" + r.adminKey, "SENDGATE_LEASE=5s", "SENDGATE_UNKNOWN_WAIT=3s", "SENDGATE_LOG_LEVEL=warn",
		"SENDGATE_RECONCILE_DEADLINE=12s", "SENDGATE_LOOKUP_SCHEDULE=1s,3s,6s,9s",
		"SENDGATE_ACCEPT_WAIT=5s", // outages are shorter here than in life, and somebody has to be refused
	}, r.plan.settings...)
	if i == 0 {
		x.wrap = r.plan.wrap
	}
	t.Cleanup(x.kill)
	return x
}

// setHooks has the providers report through balancers.
func (r *rig) setHooks(t *testing.T) {
	t.Helper()
	var apis, lmtps []string
	for _, x := range r.replicas {
		apis, lmtps = append(apis, x.api), append(lmtps, x.lmtp)
	}
	relay := startFront(t, lmtps...)
	r.web = startFront(t, apis...)
	r.hooks = everyKind(emulator.Hook{"url": "lmtp://" + relay.addr})
	for _, kind := range webKinds() {
		r.hooks[kind] = emulator.Hook{"url": "http://" + r.web.addr + "/hooks/" + kind}
	}
	if err := r.emu.SetHooks(r.hooks); err != nil {
		t.Fatal(err)
	}
}

// configure does by the admin API what an operator would: accounts, their weights, tenants and their keys.
func (r *rig) configure(t *testing.T) {
	t.Helper()
	accounts, secrets, err := app.Emulated(r.emu, false)
	if err != nil {
		t.Fatal(err)
	}
	pool := api.Pool{Name: "default", Overflow: "spill"}
	for _, a := range accounts {
		windows, ok := r.plan.limits[a.Name]
		if r.plan.limits != nil && !ok {
			t.Fatalf("the table of this drill's limits has no entry for the kind %s", a.Name)
		}
		limits := wireLimits(windows)
		revealed := map[string]string{}
		for field, s := range secrets[a.Name] {
			revealed[field] = s.Reveal()
		}
		settings := a.Settings
		if r.plan.release != newRelease { // an older one does not know all of them
			settings = []byte(strings.Replace(string(settings), `"lookups_per_minute":6000,`, "", 1))
		}
		request := api.AccountRequest{Name: a.Name, Kind: string(a.Kind), Settings: settings, Secrets: revealed, Limits: &limits}
		if _, err := r.admin.CreateAccount(t.Context(), request); err != nil {
			t.Fatal(err)
		}
		pool.Accounts = append(pool.Accounts, api.PoolMember{Account: a.Name, Weight: 1})
	}
	if _, err := r.admin.PutPool(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	r.makeTenants(t)
}

func wireLimits(windows []limit.Window) []api.Limit {
	limits := []api.Limit{}
	for _, w := range windows {
		limits = append(limits, api.Limit{N: w.N, Per: w.Per.String(), Unit: string(w.Unit)})
	}
	return limits
}

func (r *rig) makeTenants(t *testing.T) {
	t.Helper()
	r.keys = map[string]string{}
	for _, tenant := range tenants() {
		if tenant != "default" {
			if _, err := r.admin.CreateTenant(t.Context(), api.TenantRequest{Name: tenant}); err != nil {
				t.Fatal(err)
			}
		}
		key, err := r.admin.CreateKey(t.Context(), api.KeyRequest{Tenant: tenant, Name: "drill", Scopes: []string{"send", "read", "webhooks:write"}})
		if err != nil {
			t.Fatal(err)
		}
		r.keys[tenant] = key.Secret
	}
}

// faults replaces the script of the providers.
func (r *rig) faults(t *testing.T, script map[string][]emulator.Fault) {
	t.Helper()
	if err := r.emu.SetFaults(script); err != nil {
		t.Fatal(err)
	}
}

// number runs a statement of the auditor for one number, for a minute. The database has to be up.
func (r *rig) number(t *testing.T, query string, args ...any) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var n int
	if err := r.rows.QueryRow(ctx, query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// count is number for a condition that is waited for: it takes 5 s at most, and returns -1 while the database is down.
func (r *rig) count(ctx context.Context, query string, args ...any) int {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	n := -1
	if err := r.rows.QueryRow(ctx, query, args...).Scan(&n); err != nil {
		return -1
	}
	return n
}

// show logs the rows of a statement, to help to find the cause of a failure.
func (r *rig) show(t *testing.T, query string, args ...any) {
	t.Helper()
	rows, err := r.rows.Query(t.Context(), query, args...)
	if err != nil {
		t.Log(err)
		return
	}
	defer rows.Close()
	for rows.Next() {
		values, err := rows.Values()
		t.Log(values, err)
	}
}
