// Package postgres holds every SQL statement of sendgate. It decides nothing about routing, retries or
// what a caller may do. It keeps the invariants that only a transaction can keep: a 202 is a commit; a message is settled
// or in exactly one of ready, inflight and unknown; an attempt exists before its call; and a slot is taken in the
// transaction that claims its message.
//
// Every decision reads the primary. Replicas agree on time by the database's clock: clock_timestamp() and now() in SQL, and
// in Go the Clock that reads it, which also makes the ids.
//
// It is one package, in more files than others, because its statements share their conditions and the order of their locks: a
// file is one step of a message's way, or one kind of record.
//
// A newcomer's likeliest mistake is to hold a transaction open while waiting for something outside the database.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// Options shape a DB.
type Options struct {
	URL              string // postgres:// URL or keyword DSN; several hosts are allowed
	Connections      int    // at most, 8 or more, default 18
	Box              *seal.Box
	AcceptQueue      int           // submissions waiting for a commit, default 32,768
	AcceptQueueBytes int64         // their bytes, default 96 MiB
	AcceptWait       time.Duration // for the commit of a message of ordinary size, default 10 s
	SoftLimit        int           // soft bounces in a row before an address is suppressed; 0: never
	Clock            *mail.Clock   // default: this host's clock
	Observe          func(batch string, size int, took time.Duration)
	AcceptedTwice    func(mail.ID) // called for a message that was accepted more than once: once for each further acceptance
}

// DB is the store. It is safe for concurrent use. It keeps four pools, so that no kind of work starves another: accept,
// engine, hooks (events received and webhooks sent) and api. In engine and hooks the planner is pinned to index plans.
type DB struct {
	pools
	softLimit   int
	twice       func(mail.ID)
	box         *seal.Box
	acceptWait  time.Duration
	commitGrace time.Duration // see the constant
	pace        pace          // rows of one accept transaction
	accepts     *committer[offer, record.Accepted]
	intents     *committer[ownedIntent, queue.Announced]
	results     *committer[ownedResult, bool]
	events      *committer[record.Intake, record.Taken]
	watch       watch // of the database's clock
	mark        atomic.Pointer[openMark]
	clock       *mail.Clock
	erasure     atomic.Pointer[seal.Secret] // the key of erasedHash; nil while nobody was erased
}

type pools struct {
	accept, engine, api *pgxpool.Pool
	hooks               *pgxpool.Pool // events received and webhooks sent
	days                *atomic.Bool  // engine and hooks may use the tables of days, see EnsurePartitions
}

// Open connects lazily: it returns an error for a bad URL, not for a database that is down.
func Open(ctx context.Context, o Options) (*DB, error) {
	o.AcceptWait = cmp.Or(o.AcceptWait, acceptWait)
	p, err := openPools(ctx, o.URL, cmp.Or(o.Connections, connections), o.AcceptWait)
	if err != nil {
		return nil, err
	}
	return newDB(p, o), nil
}

// connections is the default total of all pools. Together with the connections of migrate and doctor it fits into PgBouncer's
// default pool of 20.
const connections = 18

// openPools opens the pools, which share the given number of connections. Each gets at least two: with one, a session that
// waits for a lock would hold up all others.
func openPools(ctx context.Context, url string, connections int, acceptWait time.Duration) (p pools, err error) {
	if p.accept, err = acceptPool(ctx, url, connections, acceptWait); err != nil {
		return p, err
	}
	p.days = &atomic.Bool{}
	share := func(of int) int32 { return share(connections, of) }
	// With young statistics the planner may choose other plans, which make these few statements ten times slower: pin their
	// shape. A pinned plan looks expensive to the planner, so it would be JIT-compiled at each run (a third of a second):
	// newPool turns JIT off. A claim locks the limits of all accounts: a replica that is paused or cut off during a claim
	// holds up the others until its session ends, hence the short idle timeout.
	// To plan a statement for each run would cost about as much as to run it: their plans are made once.
	pinned := map[string]string{
		"statement_timeout": "10s", "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
		"plan_cache_mode": "force_generic_plan", "idle_in_transaction_session_timeout": "2s",
	}
	if p.engine, err = newPool(ctx, url, share(6), pinned, p.days); err != nil {
		return p, err
	}
	pinned["statement_timeout"] = "5s"
	if p.hooks, err = newPool(ctx, url, share(4), pinned, p.days); err != nil {
		return p, err
	}
	p.api, err = newPool(ctx, url, share(5), map[string]string{"statement_timeout": "2s"}, nil)
	return p, err
}

// acceptPool opens the pool of accepts. Its statements and lock waits end after the given wait.
func acceptPool(ctx context.Context, url string, connections int, wait time.Duration) (*pgxpool.Pool, error) {
	backstop := strconv.FormatInt(wait.Milliseconds(), 10)
	return newPool(ctx, url, share(connections, 3), map[string]string{"statement_timeout": backstop, "lock_timeout": backstop}, nil)
}

// share gives a pool its part of the connections: so many of 18, but at least 2.
func share(connections, of int) int32 { return int32(max(2, connections*of/18)) } //nolint:gosec // a few hundred

// newDB makes a store on open pools.
func newDB(p pools, o Options) *DB {
	db := &DB{pools: p, box: o.Box, softLimit: o.SoftLimit, acceptWait: o.AcceptWait, commitGrace: commitGrace, clock: o.Clock}
	if db.clock == nil {
		db.clock = mail.NewClock(nil, nil)
	}
	if db.twice = o.AcceptedTwice; db.twice == nil {
		db.twice = func(mail.ID) {}
	}
	observe := o.Observe
	if observe == nil {
		observe = func(string, int, time.Duration) {}
	}
	queue, bytes := o.AcceptQueue, o.AcceptQueueBytes
	if queue <= 0 {
		queue = 32768
	}
	if bytes <= 0 {
		bytes = 96 << 20
	}
	db.accepts = newCommitter(committerOptions{
		name: "accept", workers: 2, batch: mostRows, weight: acceptWeight, queue: queue, bytes: bytes, sure: true, observe: observe,
	}, db.acceptBatch)
	db.intents = newCommitter(committerOptions{
		name: "intent", workers: 2, batch: 400, weight: intentWeight, queue: 8192, bytes: 1 << 40, observe: observe,
	}, db.intentBatch)
	db.results = newCommitter(committerOptions{
		name: "record", workers: 2, batch: 400, queue: 8192, bytes: 1 << 40, observe: observe,
	}, db.recordBatch)
	db.events = newCommitter(committerOptions{
		name: "events", workers: 2, batch: 100, weight: intakeWeight, queue: 2048, bytes: 64 << 20, observe: observe,
	}, db.intakeBatch)
	return db
}

// Close waits for running commits and closes the pools. The caller must submit nothing any more.
func (db *DB) Close() {
	db.stop()
	db.close()
}

// stop waits for running commits.
func (db *DB) stop() {
	db.accepts.close()
	db.intents.close()
	db.results.close()
	db.events.close()
}

func (p pools) close() {
	p.accept.Close()
	p.engine.Close()
	p.hooks.Close()
	p.api.Close()
}

// newPool makes a pool whose sessions have our defaults, overridden by params.
func newPool(ctx context.Context, dsn string, conns int32, params map[string]string, days *atomic.Bool) (*pgxpool.Pool, error) {
	cfg, err := parseURL(dsn)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = conns
	cfg.MaxConnIdleTime = 10 * time.Minute
	cfg.HealthCheckPeriod = 5 * time.Second
	cfg.ConnConfig.ConnectTimeout = 1500 * time.Millisecond
	ours := map[string]string{
		"timezone": "UTC", "jit": "off", // every statement here is short
		"lock_timeout": lockTimeout, "idle_in_transaction_session_timeout": "5s",
	}
	maps.Copy(ours, params)
	inSession(cfg.ConnConfig, ours)
	// A server that refuses writes is not the primary any more: close the connection, so that a new one is dialled.
	fatal := cfg.ConnConfig.OnPgError
	cfg.ConnConfig.OnPgError = func(c *pgconn.PgConn, pe *pgconn.PgError) bool {
		return pe.Code != readOnly && (fatal == nil || fatal(c, pe))
	}
	dated(cfg, days)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("database pool: %w", err)
	}
	return pool, nil
}

// lockTimeout is how long a statement waits for a lock, unless its pool says otherwise.
const lockTimeout = "1s"

// readOnly is the SQLSTATE of a write to a read-only server or in a read-only transaction.
const readOnly = "25006"

// commitSQL gives something to commit to a transaction that found its work already done. The earlier transaction may have been
// interrupted while its commit waited for a synchronous standby: its rows are visible, but the standby may lack them. A
// transaction without a write does not wait for the standby, and would report these rows as durable too early.
const commitSQL = `SELECT pg_logical_emit_message(true, 'sendgate', '')`

// Ping reports whether the database answers and has the schema that this binary needs.
func (db *DB) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return db.checkSchema(ctx)
}

// unavailable turns an error of the database itself (gone, full, overloaded, timed out) into *record.Unavailable and
// leaves every other error as it is.
func unavailable(err error) error {
	if err == nil || errors.Is(err, pgx.ErrNoRows) || ours(err) {
		return err
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok { // no answer of the server: connection refused, reset, timeout
		return &record.Unavailable{RetryAfter: time.Second, Reason: "database", Err: err}
	}
	switch {
	case pg.Code == "53100":
		return &record.Unavailable{RetryAfter: 3 * time.Second, Reason: "storage_full", Err: err}
	case pg.Code[:2] == "53", pg.Code[:2] == "57", pg.Code[:2] == "40", pg.Code[:2] == "08", pg.Code == "55P03",
		pg.Code[:2] == "58", pg.Code == readOnly:
		return &record.Unavailable{RetryAfter: time.Second, Reason: "database", Err: err}
	}
	return err
}

// failed says what failed with an error of the database; nil stays nil.
func failed(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, unavailable(err))
}

// ours reports whether err is an error that our own code returned inside a transaction.
func ours(err error) bool {
	for _, known := range []error{record.ErrNotFound, record.ErrConflict, record.ErrStale, record.ErrMismatch, seal.ErrSealed, ErrSchema, ErrReplicas, ErrPooled} {
		if errors.Is(err, known) {
			return true
		}
	}
	if _, unknown := errors.AsType[*record.OutcomeUnknown](err); unknown {
		return true
	}
	_, is := errors.AsType[*record.Unavailable](err)
	return is
}

// isCode reports whether err is the server's error with one of the SQLSTATE codes.
func isCode(err error, codes ...string) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains(codes, pg.Code)
}

// inTx runs f in one transaction on the api pool and maps its errors.
func (db *DB) inTx(ctx context.Context, f func(pgx.Tx) error) error {
	return unavailable(inTx(ctx, db.api, f))
}

// inTx runs f in one transaction of a pool. An error means that nothing is stored, unless it is *record.OutcomeUnknown: the
// answer to COMMIT was lost.
func inTx(ctx context.Context, pool *pgxpool.Pool, f func(pgx.Tx) error) error {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // after an error, or a panic
	if err := f(tx); err != nil {
		return err
	}
	err = tx.Commit(ctx)
	if err == nil || refused(err) || errors.Is(err, pgx.ErrTxCommitRollback) {
		return err
	}
	return &record.OutcomeUnknown{Err: err}
}

// rawIDs converts ids for a uuid[] parameter.
func rawIDs(ids []mail.ID) [][16]byte {
	raw := make([][16]byte, len(ids))
	for i, id := range ids {
		raw[i] = id
	}
	return raw
}
