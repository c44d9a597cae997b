package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// partitionsAhead is how many days of partitions exist before they are needed.
const partitionsAhead = 7

// EnsurePartitions makes the day partitions from yesterday to a week ahead and returns how many it made. The day is the
// database's. Replicas make ids by their last reading of its clock, so yesterday is included.
func (db *DB) EnsurePartitions(ctx context.Context) (int, error) {
	const q = `SELECT ensure_partitions(today - 1, today + $1::int) FROM (SELECT (now() AT TIME ZONE 'UTC')::date AS today) d`
	var made int
	if err := db.engine.QueryRow(ctx, q, partitionsAhead).Scan(&made); err != nil {
		return 0, failed("make partitions", err)
	}
	var open bool
	err := db.engine.QueryRow(ctx, daysOpenSQL, dayTables).Scan(&open)
	db.days.Store(open && err == nil)
	return made, failed("look at partitions", err)
}

// daysOpenSQL says whether our role may use the tables of today and yesterday. With its own rights on the tables of all days,
// and not on new ones, it may not.
const daysOpenSQL = `
SELECT bool_and(coalesce(has_table_privilege(c, 'SELECT') AND has_table_privilege(c, 'UPDATE'), false))
FROM (SELECT to_regclass(t || to_char((now() AT TIME ZONE 'UTC')::date - d, '_YYYYMMDD'))::oid AS c FROM unnest($1::text[]) t, generate_series(0, 1) d) x`

// RetentionNow is the time that retention uses: the earliest of the database's clock, this host's clock, and the first reading
// of the database's clock plus the time since. A clock that jumps ahead must not delete data, which could not be restored.
func (db *DB) RetentionNow(ctx context.Context) (time.Time, error) {
	if err := db.ReadClock(ctx); err != nil {
		return time.Time{}, err
	}
	return db.clock.Earliest(), nil
}

// oldSQL lists the day tables of a parent that lie wholly before a time and hold no open message. It says whether each is
// attached to its parent, half detached (pending: a DETACH CONCURRENTLY gave up) or detached, and whether our role owns it. A
// half detached table comes first, for there can be only one.
const oldSQL = `
WITH t AS MATERIALIZED (
    SELECT c.relname, to_date(right(c.relname, 8), 'YYYYMMDD') AS day, i.inhparent IS NOT NULL AS attached,
           coalesce(i.inhdetachpending, false) AS pending, pg_has_role(c.relowner, 'USAGE') AS owned
    FROM pg_class p
    JOIN pg_class c ON c.relnamespace = p.relnamespace AND c.relkind = 'r'
    LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
    WHERE p.oid = $1::text::regclass AND c.relname ~ ('^' || $1 || '_[0-9]{8}$')
)
SELECT relname, day, attached, pending, owned
FROM t
WHERE day + 1 <= $2::timestamptz::date
  AND NOT EXISTS (SELECT 1 FROM ready WHERE id >= uuid_floor(day) AND id < uuid_floor(day + 1))
  AND NOT EXISTS (SELECT 1 FROM inflight WHERE id >= uuid_floor(day) AND id < uuid_floor(day + 1))
  AND NOT EXISTS (SELECT 1 FROM unknown WHERE id >= uuid_floor(day) AND id < uuid_floor(day + 1))
ORDER BY pending DESC, day
LIMIT 10`

// DropPartitions drops the day partitions of a table that lie wholly before the given time, at most ten. A day on which
// a message is still queued, in flight or unknown is kept. Detaching does not block the parent's readers and writers; if a
// long reader held it up, the next run finishes it.
func (db *DB) DropPartitions(ctx context.Context, table string, before time.Time) (int, error) {
	old, err := pgx.CollectRows(query(ctx, db.engine, oldSQL, table, before), pgx.RowToStructByPos[oldPartition])
	if err != nil {
		return 0, fmt.Errorf("list old partitions: %w", unavailable(err))
	}
	for i, p := range old {
		if err := db.dropPartition(ctx, table, p); err != nil {
			return i, fmt.Errorf("drop %s: %w", p.Name, unavailable(err))
		}
	}
	return len(old), nil
}

type oldPartition struct {
	Name                     string
	Day                      time.Time
	Attached, Pending, Owned bool
}

// dropPatience is how long to wait for a lock on an old day: longer than deadlock_timeout (1 s by default), after which a
// vacuum or analyze that works on it gives way. Nobody else needs that day.
const dropPatience = "5s"

// dropPartition detaches a day if it is attached, and drops it.
func (db *DB) dropPartition(ctx context.Context, table string, p oldPartition) error {
	if !p.Owned {
		return db.askToDrop(ctx, table, p.Day)
	}
	conn, err := db.engine.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	child := pgx.Identifier{p.Name}.Sanitize()
	detach := `ALTER TABLE ` + pgx.Identifier{table}.Sanitize() + ` DETACH PARTITION ` + child
	todo := []string{`SET lock_timeout = '` + dropPatience + `'`}
	switch {
	case p.Pending:
		todo = append(todo, detach+` FINALIZE`)
	case p.Attached:
		todo = append(todo, detach+` CONCURRENTLY`)
	}
	for _, q := range append(todo, `DROP TABLE `+child) {
		if _, err := conn.Exec(ctx, q); err != nil {
			_ = conn.Conn().Close(context.WithoutCancel(ctx)) // because its lock_timeout is changed
			return err
		}
	}
	_, err = conn.Exec(ctx, `SET lock_timeout = '`+lockTimeout+`'`)
	return err
}

// If our role does not own the tables, a function of their owner drops them. A function can't detach a day without a lock on
// the parent, and all others wait behind that lock request: so each try waits only briefly, and there are several.
const (
	dropTries  = 10
	dropMoment = 200 * time.Millisecond
)

// askToDrop drops a day by the function of its owner.
func (db *DB) askToDrop(ctx context.Context, table string, day time.Time) (err error) {
	for range dropTries {
		err = pgx.BeginFunc(ctx, db.engine, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, fmt.Sprintf(`SET LOCAL lock_timeout = %d`, dropMoment.Milliseconds())); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `SELECT drop_day($1, $2)`, table, day)
			return err
		})
		if !isCode(err, "55P03") || !sleep(ctx, 5*dropMoment) { // lock_not_available
			break
		}
	}
	return err
}

// DropKeys deletes up to 5,000 idempotency keys older than the given age and reports how many.
func (db *DB) DropKeys(ctx context.Context, age time.Duration) (int, error) {
	const q = `
DELETE FROM idempotency WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency WHERE created_at < now() - $1::interval ORDER BY created_at LIMIT 5000))`
	tag, err := db.engine.Exec(ctx, q, age)
	return int(tag.RowsAffected()), failed("drop idempotency keys", err)
}

// How long the keys that make events unique are kept: longer than any provider repeats an event.
const (
	eventKeyAge  = "7 days"
	hookTokenAge = "2 days"
)

// Sweep deletes old rows of tables that are too small for partitions, up to 5,000 of each: keys of events, tokens,
// suppressions that have expired, failed logins beyond the newest 20,000, counts of soft bounces, people's links and sessions that
// have ended. It reports how many.
func (db *DB) Sweep(ctx context.Context) (int, error) {
	var all int
	for _, q := range []string{
		`DELETE FROM event_key WHERE ctid = ANY (ARRAY(SELECT ctid FROM event_key WHERE at < now() - interval '` + eventKeyAge + `' LIMIT 5000))`,
		`DELETE FROM hook_token WHERE ctid = ANY (ARRAY(SELECT ctid FROM hook_token WHERE at < now() - interval '` + hookTokenAge + `' LIMIT 5000))`,
		`DELETE FROM suppression WHERE ctid = ANY (ARRAY(SELECT ctid FROM suppression WHERE expires_at <= now() LIMIT 5000))`,
		`DELETE FROM audit WHERE id = ANY (ARRAY(SELECT id FROM audit WHERE action = 'login.failed' ORDER BY id DESC OFFSET 20000 LIMIT 5000))`,
		`DELETE FROM soft_bounce WHERE ctid = ANY (ARRAY(SELECT ctid FROM soft_bounce WHERE last_at < now() - interval '30 days' LIMIT 5000))`,
		`DELETE FROM person_link WHERE expires_at <= now()`,
		`DELETE FROM person_session WHERE expires_at <= now()`,
	} {
		tag, err := db.engine.Exec(ctx, q)
		if err != nil {
			return all, fmt.Errorf("sweep: %w", unavailable(err))
		}
		all += int(tag.RowsAffected())
	}
	return all, nil
}
