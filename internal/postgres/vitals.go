package postgres

import (
	"context"
	"fmt"
	"time"
)

// Vitals is what the server says about itself that durability and time depend on.
type Vitals struct {
	Version                                  string
	VersionNum                               int
	InRecovery                               bool
	Fsync, FullPageWrites, SynchronousCommit string
	MaxConnections                           int
	ClockSkew                                time.Duration // this host's clock less the database's
}

// Vitals asks the server. The skew is right to about half the round trip.
func (db *DB) Vitals(ctx context.Context) (Vitals, error) {
	const q = `
SELECT current_setting('server_version'), current_setting('server_version_num')::int, pg_is_in_recovery(),
       current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
       current_setting('max_connections')::int, clock_timestamp()`
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := db.api.Ping(ctx); err != nil { // the connection's own time must not count as skew
		return Vitals{}, fmt.Errorf("connect: %w", unavailable(err))
	}
	var v Vitals
	var at time.Time
	before := time.Now()
	err := db.api.QueryRow(ctx, q).Scan(&v.Version, &v.VersionNum, &v.InRecovery, &v.Fsync, &v.FullPageWrites,
		&v.SynchronousCommit, &v.MaxConnections, &at)
	if err != nil {
		return Vitals{}, fmt.Errorf("read vitals: %w", unavailable(err))
	}
	v.ClockSkew = before.Add(time.Since(before) / 2).Sub(at)
	return v, nil
}

// PartitionsAhead counts the days after today for which all partitions exist.
func (db *DB) PartitionsAhead(ctx context.Context) (int, error) {
	const q = `
SELECT count(*) FROM generate_series(1, 30) AS d(n)
WHERE (SELECT count(*) FROM unnest(ARRAY['message', 'body', 'recipient', 'attempt', 'event', 'delivery']) AS t(name)
       WHERE to_regclass(t.name || '_' || to_char((now() AT TIME ZONE 'UTC')::date + d.n, 'YYYYMMDD')) IS NOT NULL) = 6`
	var n int
	if err := db.api.QueryRow(ctx, q).Scan(&n); err != nil {
		return 0, fmt.Errorf("count partitions: %w", unavailable(err))
	}
	return n, nil
}
