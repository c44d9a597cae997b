package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Vitals are facts about the server that durability and time depend on.
type Vitals struct {
	Version                                  string
	VersionNum                               int
	InRecovery                               bool
	Fsync, FullPageWrites, SynchronousCommit string
	MaxConnections                           int
	Now                                      time.Time     // by the database's clock
	ClockSkew                                time.Duration // this host's clock minus the database's
	IdleInTransaction                        string        // how long other sessions may leave a transaction open; "0": for ever
	Standbys                                 int           // standbys that are connected
	SynchronousStandbys                      string        // the standbys that a commit waits for
	Superuser                                bool          // whether our role is a superuser
}

// Hosts lists the servers that a URL or DSN names, as host:port or the path of a socket. It reports whether the URL chooses
// among them by target_session_attrs.
func Hosts(dsn string) (hosts []string, chosen bool, err error) {
	pool, err := parseURL(dsn)
	if err != nil {
		return nil, false, err
	}
	return hostsOf(&pool.ConnConfig.Config), pool.ConnConfig.ValidateConnect != nil, nil
}

// Vitals asks the server. The skew is accurate to about half the round trip.
func (db *DB) Vitals(ctx context.Context) (Vitals, error) {
	const q = `
SELECT current_setting('server_version'), current_setting('server_version_num')::int, pg_is_in_recovery(),
       current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
       current_setting('max_connections')::int, (SELECT count(*) FROM pg_stat_replication),
       current_setting('synchronous_standby_names'), (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), clock_timestamp()`
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := db.api.Ping(ctx); err != nil { // the connection's own time must not count as skew
		return Vitals{}, fmt.Errorf("connect: %w", unavailable(err))
	}
	var v Vitals
	before := time.Now()
	err := db.api.QueryRow(ctx, q).Scan(&v.Version, &v.VersionNum, &v.InRecovery, &v.Fsync, &v.FullPageWrites,
		&v.SynchronousCommit, &v.MaxConnections, &v.Standbys, &v.SynchronousStandbys, &v.Superuser, &v.Now)
	if err != nil {
		return Vitals{}, fmt.Errorf("read vitals: %w", unavailable(err))
	}
	v.ClockSkew = before.Add(time.Since(before) / 2).Sub(v.Now)
	v.IdleInTransaction, err = db.othersIdle(ctx)
	return v, err
}

// othersIdle reads a timeout that our own connections override, on a connection that does not override it.
func (db *DB) othersIdle(ctx context.Context) (string, error) {
	const name = "idle_in_transaction_session_timeout"
	cfg := db.api.Config().ConnConfig
	cfg.AfterConnect = nil
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return "", fmt.Errorf("connect: %w", unavailable(err))
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var timeout string
	err = conn.QueryRow(ctx, `SELECT current_setting($1)`, name).Scan(&timeout)
	return timeout, failed("read vitals", err)
}

// MissingPrivileges names the tables, sequences and functions of the schema that our role may not use in the way serve needs.
func (db *DB) MissingPrivileges(ctx context.Context) ([]string, error) {
	const q = `
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'message'::regclass) AND NOT c.relispartition AND (
    c.relkind IN ('r', 'p') AND c.relname NOT IN ('goose_db_version', 'audit', 'audit_link') AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
        AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
    OR c.relname IN ('goose_db_version', 'audit', 'audit_link') AND NOT has_table_privilege(c.oid, 'SELECT')
    OR c.relname = 'audit' AND NOT has_table_privilege(c.oid, 'INSERT')
    OR c.relkind = 'S' AND NOT (has_sequence_privilege(c.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT')))
UNION ALL
SELECT p.proname || '()' FROM pg_proc p
WHERE p.pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'message'::regclass) AND NOT has_function_privilege(p.oid, 'EXECUTE')
  AND p.prorettype <> 'trigger'::regtype
ORDER BY 1`
	return collect("read privileges", query(ctx, db.api, q), pgx.RowTo[string])
}

// PartitionsAhead counts the days after today for which all partitions exist.
func (db *DB) PartitionsAhead(ctx context.Context) (int, error) {
	const q = `
SELECT count(*) FROM generate_series(1, 30) AS d(n)
WHERE (SELECT count(*) FROM unnest(ARRAY['message', 'body', 'recipient', 'attempt', 'event', 'delivery']) AS t(name)
       WHERE to_regclass(t.name || '_' || to_char((now() AT TIME ZONE 'UTC')::date + d.n, 'YYYYMMDD')) IS NOT NULL) = 6`
	var n int
	err := db.api.QueryRow(ctx, q).Scan(&n)
	return n, failed("count partitions", err)
}
