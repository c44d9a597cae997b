package postgres

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// statement is one statement as the engine's pool ran it.
type statement struct {
	sql  string
	args []any
}

// recorder notes every statement of a pool.
type recorder struct {
	mu   sync.Mutex
	seen []statement
}

func (r *recorder) note(sql string, args []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, statement{sql, slices.Clone(args)})
}

func (r *recorder) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	r.note(d.SQL, d.Args)
	return ctx
}

func (r *recorder) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (r *recorder) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (r *recorder) TraceBatchQuery(_ context.Context, _ *pgx.Conn, d pgx.TraceBatchQueryData) {
	r.note(d.SQL, d.Args)
}

func (r *recorder) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// watch replaces a pool of the store by one of the same settings whose statements are noted.
func (b *bed) watch(t *testing.T, of **pgxpool.Pool) *recorder {
	t.Helper()
	cfg := (*of).Config()
	r := &recorder{}
	cfg.ConnConfig.Tracer = r
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	must(t, err)
	(*of).Close()
	*of = pool
	return r
}

const keptTable = `(?:ready|inflight|message|body|recipient|attempt|unknown|event|event_key|hook_token|orphan|outbox|suppression|soft_bounce)(?:_\d{8})?\b`

var (
	// whole is a table of messages that is read as a whole.
	whole = regexp.MustCompile(`Seq Scan on ` + keptTable)
	// byIndex is one that is read by an index; without a condition, that is as a whole too. ready_held holds only what is
	// looked for.
	byIndex = regexp.MustCompile(`Index (?:Only )?Scan .*using (\S+) on ` + keptTable)
	// exempt statements read inflight by design: all owners are looked at. It has as many rows as there are calls. The first
	// lane is the first row of an index, and whether any message is unknown is seen at the first.
	exempt = regexp.MustCompile(`FROM inflight f WHERE f.owner|WITH RECURSIVE l |^SELECT EXISTS \(SELECT FROM unknown\)$`)
)

// readsAll returns the first line of a plan that reads a table as a whole, or "".
func readsAll(plan []string) string {
	for i, line := range plan {
		if whole.MatchString(line) {
			return line
		}
		m := byIndex.FindStringSubmatch(line)
		if m == nil || m[1] == "ready_held" {
			continue
		}
		if i+1 == len(plan) || !strings.Contains(plan[i+1], "Index Cond:") {
			return line
		}
	}
	return ""
}

// checkPlans asks the planner of a pool how it would run each statement again. There have to be so many of them.
func (b *bed) checkPlans(t *testing.T, pool *pgxpool.Pool, state string, seen []statement, least int) {
	t.Helper()
	done := map[string]bool{}
	for _, s := range seen {
		if verb := strings.Fields(s.sql)[0]; done[s.sql] || !slices.Contains([]string{"SELECT", "WITH", "INSERT", "UPDATE", "DELETE"}, verb) {
			continue
		}
		done[s.sql] = true
		rows, err := pool.Query(t.Context(), "EXPLAIN (COSTS OFF) "+s.sql, s.args...)
		must(t, err)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("explain %s: %v", s.sql, err)
		}
		if bad := readsAll(lines); bad != "" && !exempt.MatchString(s.sql) {
			t.Errorf("%s: %s\nin the plan of\n%s\n%s", state, strings.TrimSpace(bad), s.sql, strings.Join(lines, "\n"))
		}
	}
	if len(done) < least {
		t.Errorf("%s: only %d statements were looked at", state, len(done))
	}
}

// work takes messages through everything that the engine does with them.
func (b *bed) work(t *testing.T, account int32) {
	t.Helper()
	ctx := t.Context()
	owner := b.replica(t)
	b.acceptN(t, 12)
	_, err := b.db.Lanes(ctx)
	must(t, err)
	var due []queue.Due
	var rest mail.ID
	must(t, b.db.Claim(ctx, owner, quota(10), func(now time.Time, all []queue.Due, limits map[int32]*limit.Account) queue.Claim {
		due = all[:7]
		var c queue.Claim
		for _, d := range due {
			limits[account].Take(now, 1, time.Minute)
			c.Take = append(c.Take, queue.Assignment{Due: d, Account: account})
		}
		c.Hold = []queue.Hold{{ID: all[7].ID, Until: now.Add(time.Hour)}}
		c.Relane = []queue.Relane{{ID: all[8].ID, Lane: 9}}
		rest = all[9].ID
		return c
	}))
	must(t, b.db.End(ctx, []queue.Ending{{ID: rest, Status: mail.Expired, Detail: "late"}}))
	ids := make([]mail.ID, len(due))
	for i, d := range due {
		ids[i] = d.ID
	}
	_, err = b.db.Load(ctx, ids)
	must(t, err)
	for _, d := range due {
		if !b.intend(t, owner, intent(d, account)) {
			t.Fatal("intent refused")
		}
	}
	b.record(t, owner, sent(due[0]))
	b.record(t, owner, queue.Result{ID: ids[1], N: due[1].Attempts + 1, Class: "transient", Requeue: &queue.Requeue{Tries: 1}, Block: &queue.Block{Account: account, For: time.Millisecond}})
	b.record(t, owner, queue.Result{ID: ids[2], N: due[2].Attempts + 1, Class: "uncertain", Recipients: changes("unknown"), Unknown: &queue.Hanging{Policy: mail.Resend}})
	_, _, err = b.db.DecideUnknown(ctx, true, 2)
	must(t, err)
	b.exec(t, `UPDATE inflight SET claimed_at = now() - interval '1 min' WHERE id = $1`, [16]byte(ids[3]))
	_, err = b.db.Orphans(ctx, owner, ids[4:], waits)
	must(t, err)
	b.expire(t, owner)
	_, _, err = b.db.Rescue(ctx, waits)
	must(t, err)
	late := sent(due[4])
	b.record(t, owner, late)
	b.record(t, owner, queue.Result{ID: ids[5], N: due[5].Attempts + 1, Class: "transient", Requeue: &queue.Requeue{Tries: 1}})
	_, err = b.db.FreeHeld(ctx, 5)
	must(t, err)
	_, err = b.db.Relane(ctx, mail.ID{}, 100, func(f *mail.Facts) int32 { return lane })
	must(t, err)
}

// A plan that reads a whole table costs a factor of ten (and did so on young statistics), so every statement that the
// engine runs is planned anew on tables that are empty, and on tables that were filled and never analyzed.
func TestEngineReadsByIndexWhateverTheStatisticsSay(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	must(t, dropDays(t.Context(), b.sql))
	for _, table := range append([]string{"ready", "inflight", "unknown"}, b.days(t)...) {
		b.exec(t, `ALTER TABLE `+table+` SET (autovacuum_enabled = off)`)
	}
	account := b.account(t, "relay", limit.Window{N: 1000000, Per: time.Hour, Unit: limit.Requests})
	r := b.watch(t, &b.db.engine)
	b.work(t, account)
	b.checkPlans(t, b.db.engine, "statistics of empty tables", r.seen, 25)

	b.exec(t, `TRUNCATE ready, inflight, unknown, unknown_call, message, body, recipient, attempt`)
	b.exec(t, `VACUUM ANALYZE`) // the statistics now say: empty
	b.checkPlans(t, b.db.engine, "empty tables", r.seen, 25)

	b.fill(t, 10_000)
	r.seen = nil
	b.work(t, account)
	b.checkPlans(t, b.db.engine, "10,000 messages since the last analyze", r.seen, 25)
	if n := get[int](t, b, `SELECT count(*) FROM ready`); n < 10_000 {
		t.Errorf("%d rows are ready, want the tables filled", n)
	}
}

// hear takes events in, of all that happens to a message and of what is not known yet.
func (b *bed) hear(t *testing.T) {
	t.Helper()
	f := b.fly(t, submission("ann@example.org", "bob@example.org", "cy@example.org"))
	res := sent(f.due)
	res.Settle, res.Class, res.Recipients = nil, "uncertain", changes("unknown", "unknown", "unknown")
	res.Unknown = &queue.Hanging{DecideIn: time.Hour, Policy: mail.Reconcile}
	b.record(t, f.owner, res)
	early := told(mail.NewID(), mail.EventDelivered, "eve@example.org", 1)
	byTheirs := told(mail.ID{}, mail.EventDelivered, "eve@example.org", 2) // the message is the first, which has the provider's id from now on
	in := hook(
		f.account, told(f.id, mail.EventDelivered, "ann@example.org", 1), told(f.id, mail.EventBounced, "bob@example.org", 2, mail.MailboxFull),
		told(f.id, mail.EventComplained, "cy@example.org", 3), told(f.id, mail.EventUnsubscribed, "cy@example.org", 4), early, byTheirs,
	)
	in.Once = &mail.Once{Token: mail.NewID()}
	if taken := b.receive(t, in); taken.Settled != 1 || taken.Orphans != 2 {
		t.Errorf("taken = %+v, want one message settled and two orphans", taken)
	}
	late := submission()
	late.Message.ID = early.MessageID
	b.accept(t, late)
	b.exec(t, `INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at) VALUES ($1, 1, $1, $2, '{}', now())`, [16]byte(late.Message.ID), f.account)
	b.exec(t, `UPDATE orphan SET retry_at = now()`)
	if n, err := b.db.MatchOrphans(t.Context(), 10); n != 2 || err != nil {
		t.Errorf("orphans matched = %d, %v, want both", n, err)
	}
}

// What holds for the engine holds for events that come in: their tables grow as well, and the first events of a day meet
// statistics that say nothing.
func TestEventsAreTakenByIndexWhateverTheStatisticsSay(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	must(t, dropDays(t.Context(), b.sql))
	b.db = b.open(t, Options{SoftLimit: 3})
	b.endpoint(t)
	for _, table := range append([]string{"ready", "unknown", "event_key", "hook_token", "orphan", "outbox", "suppression", "soft_bounce"}, b.days(t)...) {
		b.exec(t, `ALTER TABLE `+table+` SET (autovacuum_enabled = off)`)
	}
	r := b.watch(t, &b.db.hooks)
	b.hear(t)
	b.checkPlans(t, b.db.hooks, "statistics of empty tables", r.seen, 20)

	b.exec(t, `TRUNCATE ready, inflight, unknown, unknown_call, message, body, recipient, attempt, event, event_key, hook_token, orphan, outbox, suppression, soft_bounce`)
	b.exec(t, `VACUUM ANALYZE`) // the statistics now say: empty
	b.checkPlans(t, b.db.hooks, "empty tables", r.seen, 20)

	b.fill(t, 5_000)
	b.exec(t, `INSERT INTO event_key (key) SELECT gen_random_uuid() FROM generate_series(1, 5000);
INSERT INTO hook_token (token, body) SELECT gen_random_uuid(), '' FROM generate_series(1, 5000);
INSERT INTO orphan (event_id, retry_at, expires_at) SELECT gen_random_uuid(), now() + interval '1 minute', now() + interval '1 day' FROM generate_series(1, 5000);
INSERT INTO suppression (tenant_id, email, reason, origin) SELECT 1, 'a' || g || '@example.org', 'manual', 'api' FROM generate_series(1, 5000) g;
INSERT INTO soft_bounce (tenant_id, email, n) SELECT 1, 'a' || g || '@example.org', 1 FROM generate_series(1, 5000) g`)
	b.checkPlans(t, b.db.hooks, "5,000 of everything since the last analyze", r.seen, 20)
	for _, s := range r.seen {
		if s.sql != theirsSQL {
			continue
		}
		rows, err := b.db.hooks.Query(t.Context(), "EXPLAIN (COSTS OFF) "+s.sql, s.args...)
		must(t, err)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		must(t, err)
		if plan := strings.Join(lines, "\n"); regexp.MustCompile(`attempt_\d+_pkey`).MatchString(plan) || !strings.Contains(plan, "_provider_message_id_idx") {
			t.Errorf("messages are not looked for by the provider's id:\n%s", plan)
		}
	}
}

// days lists all partitions.
func (b *bed) days(t *testing.T) []string {
	t.Helper()
	return list[string](t, b, `SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE relkind = 'r' AND relispartition`)
}

// fill puts n messages of now into every table.
func (b *bed) fill(t *testing.T, n int) {
	t.Helper()
	floor := mail.IDAt(time.Now().Add(-time.Minute)).String()[:13]
	b.exec(t, `CREATE TEMP TABLE x AS SELECT (`+fmt.Sprintf("'%s'", floor)+` || '-7000-8000-' || lpad(to_hex(g), 12, '0'))::uuid AS id FROM generate_series(1, `+fmt.Sprint(n)+`) g;
INSERT INTO message (id, tenant_id, status, stream, sender, subject, facts, on_ambiguous, created_at, expires_at, updated_at)
	SELECT id, 1, 'queued', 'transactional', 'shop@example.com', '', '{"rcp": 1}', 'reconcile', now(), now() + interval '1 day', now() FROM x;
INSERT INTO body (id, payload) SELECT id, '{}' FROM x;
INSERT INTO recipient (message_id, n, tenant_id, kind, email, status, updated_at) SELECT id, 0, 1, 'to', 'ann@example.org', 'queued', now() FROM x;
INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at) SELECT id, 1, id, 1, '{}', now() FROM x;
INSERT INTO ready (id, lane, tenant_id, due, attempts) SELECT id, 1, 1, now(), 1 FROM x;
DROP TABLE x`)
}
