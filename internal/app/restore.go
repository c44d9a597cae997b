package app

import (
	"context"
	"time"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/deliver"
	"github.com/sendgate/sendgate/internal/postgres"
)

// Restoration is one "sendgate restore": the work that is due after a database was restored from a backup.
type Restoration struct {
	db   *postgres.DB
	what postgres.Restoration
}

// NewRestoration opens the database of dsn, which must have the schema of this binary. since is the point in time up to which
// the data were restored. lostAt is when the lost processes had stopped, or the zero time. How long messages that become
// unknown wait is read from the environment.
func NewRestoration(ctx context.Context, dsn string, environ []string, since, lostAt time.Time, actor string) (*Restoration, error) {
	unknown, reconcile, err := config.Waits(environ)
	if err != nil {
		return nil, err
	}
	if _, err := postgres.CheckSessions(ctx, dsn); err != nil {
		return nil, err
	}
	db, err := postgres.Open(ctx, postgres.Options{URL: dsn})
	if err != nil {
		return nil, err
	}
	if err := db.Ping(ctx); err != nil {
		db.Close()
		return nil, err
	}
	return &Restoration{db: db, what: postgres.Restoration{
		Since: since, LostAt: lostAt, Actor: actor,
		Wait: deliver.Policy{UnknownWait: unknown, ReconcileDeadline: reconcile}.Waits(),
	}}, nil
}

// Close closes the database.
func (r *Restoration) Close() { r.db.Close() }

// Count returns what Run would do, and the replicas that use the database. If there are any, Run refuses.
func (r *Restoration) Count(ctx context.Context) (counts postgres.RestoreCounts, replicas []string, err error) {
	if replicas, err = r.db.Replicas(ctx); err != nil {
		return counts, nil, err
	}
	counts, err = r.db.CountRestore(ctx, r.what)
	return counts, replicas, err
}

// Run does the work, and calls progress with how many messages were moved so far.
func (r *Restoration) Run(ctx context.Context, progress func(moved int)) (postgres.RestoreCounts, error) {
	return r.db.Restore(ctx, r.what, progress)
}
