package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/route"
)

// Restoration says what a restored database may have missed.
type Restoration struct {
	Since  time.Time // the point in time up to which the restored data go
	LostAt time.Time // nothing was sent after it; zero: when the first run began
	Actor  string    // for the audit
	Wait   map[mail.Policy]time.Duration
}

// RestoreCounts counts the open messages. Those that were accepted before Restoration.Since are moved and are counted by where
// they are; the others stay as they are.
type RestoreCounts struct {
	Ready    int // may have been sent since
	Inflight int // in a call, or about to be
	Unknown  int // their call may have been decided since, and another one made

	Later   int // due only after the loss: nobody has sent them
	Done    int // moved by an earlier run for the same loss
	Younger int // accepted at Since or later; 0, unless Since is too early or the service has run again
}

// Open is how many messages Restore moves.
func (c RestoreCounts) Open() int { return c.Ready + c.Inflight + c.Unknown }

// ErrReplicas says that sendgate processes use the database; the text of the error names them.
var ErrReplicas = errors.New("replicas hold leases")

// restoreChunk is how many messages one transaction moves.
const restoreChunk = 500

// maxRestoreWait caps the deadline of messages that are reconciled, however many there are to look up.
const maxRestoreWait = 7 * 24 * time.Hour

// openQueues lists the tables of open messages.
func openQueues() []string { return []string{"inflight", "unknown", "ready"} }

const countRestoreSQL = `
SELECT q.place, count(*) FILTER (WHERE m.created_at >= $1), count(*) FILTER (WHERE m.created_at < $1 AND m.restored_at >= $1),
       count(*) FILTER (WHERE m.created_at < $1 AND m.restored_at >= $1 IS NOT TRUE AND NOT q.moves),
       count(*) FILTER (WHERE m.created_at < $1 AND m.restored_at >= $1 IS NOT TRUE AND q.moves)
FROM (SELECT 'ready' AS place, id, due <= $2 OR held AS moves FROM ready
      UNION ALL SELECT 'inflight', id, true FROM inflight UNION ALL SELECT 'unknown', id, true FROM unknown) q
CROSS JOIN LATERAL (SELECT created_at, restored_at FROM message WHERE id = q.id OFFSET 0) m
GROUP BY q.place`

// CountRestore counts what Restore would do now, and changes nothing.
func (db *DB) CountRestore(ctx context.Context, r Restoration) (RestoreCounts, error) {
	var c RestoreCounts
	err := db.longTx(ctx, func(tx pgx.Tx) error {
		began, _, err := restoreBegan(ctx, tx, r)
		if err != nil {
			return err
		}
		rows := query(ctx, tx, countRestoreSQL, r.Since, r.lostAt(began))
		var place string
		var younger, done, later, open int
		_, err = pgx.ForEachRow(rows, []any{&place, &younger, &done, &later, &open}, func() error {
			c.Younger, c.Done, c.Later = c.Younger+younger, c.Done+done, c.Later+later
			*c.at(place) = open
			return nil
		})
		return err
	})
	if err != nil {
		return c, fmt.Errorf("count open messages: %w", unavailable(err))
	}
	return c, nil
}

// at is the counter of one queue.
func (c *RestoreCounts) at(place string) *int {
	return map[string]*int{"ready": &c.Ready, "inflight": &c.Inflight, "unknown": &c.Unknown}[place]
}

// lostAt is LostAt, or when the first run began.
func (r Restoration) lostAt(began time.Time) time.Time {
	if r.LostAt.IsZero() {
		return began
	}
	return r.LostAt
}

// longTx runs f in a transaction without a limit on its time.
func (db *DB) longTx(ctx context.Context, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, db.api, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0`)
		if err != nil {
			return err
		}
		return f(tx)
	})
}

// Replicas names the processes whose leases have not run out.
func (db *DB) Replicas(ctx context.Context) ([]string, error) {
	var names []string
	err := db.inTx(ctx, func(tx pgx.Tx) (err error) {
		names, err = liveReplicas(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list replicas: %w", err)
	}
	return names, nil
}

func liveReplicas(ctx context.Context, tx pgx.Tx) ([]string, error) {
	rows := query(ctx, tx, `SELECT host || ' (' || id || ', lease until ' || to_char(lease_until AT TIME ZONE 'UTC', 'HH24:MI:SS') || 'Z)'
		FROM replica WHERE lease_until > clock_timestamp() ORDER BY started_at, id`)
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Restore moves to unknown every open message that was accepted before r.Since and may have been sent after it. Each gets an
// attempt at every account that may have been given it. The limits of all accounts are set as spent. Restore works in batches
// and calls progress with how many messages were moved so far. If it is interrupted, the next run finishes the work; a run for
// a loss that was dealt with already changes nothing.
//
// No process can register meanwhile, so none sends a message that is not moved yet. If processes are alive, it returns
// ErrReplicas.
func (db *DB) Restore(ctx context.Context, r Restoration, progress func(moved int)) (RestoreCounts, error) {
	counts, err := db.CountRestore(ctx, r)
	if err != nil {
		return counts, err
	}
	c, err := db.Config(ctx)
	if err != nil {
		return counts, err
	}
	run := &restoreRun{
		db: db, Restoration: r, config: c, owner: mail.NewID(), progress: progress, wait: maps.Clone(r.Wait), moved: map[string]int{},
	}
	// Each message takes two look-ups at each account, at two a second.
	more := time.Duration(counts.Open()) * time.Second
	run.wait[mail.Reconcile] = max(min(run.wait[mail.Reconcile]+more, maxRestoreWait), run.wait[mail.Reconcile])
	err = db.longTx(ctx, func(guard pgx.Tx) error {
		if err := holdOff(ctx, guard); err != nil {
			return err
		}
		run.guard = guard
		return run.all(ctx)
	})
	if err != nil {
		return counts, fmt.Errorf("restore: %w", unavailable(err))
	}
	counts.Ready, counts.Inflight, counts.Unknown = run.moved["ready"], run.moved["inflight"], run.moved["unknown"]
	return counts, nil
}

// holdOff keeps processes from registering until the transaction ends. It returns ErrReplicas if some are alive. A vacuum of
// the table gives way to its lock within a second.
func holdOff(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '10s'; LOCK TABLE replica IN SHARE ROW EXCLUSIVE MODE`); err != nil {
		return err
	}
	live, err := liveReplicas(ctx, tx)
	if err != nil {
		return err
	}
	if len(live) > 0 {
		return fmt.Errorf("%w: %s", ErrReplicas, strings.Join(live, ", "))
	}
	return nil
}

// restoreRun is one run of Restore.
type restoreRun struct {
	Restoration
	db       *DB
	config   *route.Config
	guard    pgx.Tx // its lock keeps processes that would send from registering
	owner    mail.ID
	began    time.Time // of the first run for this loss, on the database's clock
	wait     map[mail.Policy]time.Duration
	moved    map[string]int
	after    [16]byte // the last id of the queue that was moved so far
	progress func(int)
}

// all does the whole work. At its end it deletes the rows of the lost replicas, and people's sessions and links: what ended after
// the backup must not live again.
func (r *restoreRun) all(ctx context.Context) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	if err := r.moveAll(ctx); err != nil {
		return err
	}
	if _, err := r.guard.Exec(ctx, `DELETE FROM replica; DELETE FROM person_session; DELETE FROM person_link`); err != nil {
		return err
	}
	return r.note(ctx, r.guard, "restore.end", r.moved)
}

// restoreBegan gives the time at which the first run for a loss began, and whether there was one: the first that began at
// r.Since or later, else now. The lost database does nothing any more at that time.
func restoreBegan(ctx context.Context, tx pgx.Tx, r Restoration) (began time.Time, again bool, err error) {
	err = tx.QueryRow(ctx, `SELECT coalesce(min(at), clock_timestamp()), count(*) > 0 FROM audit WHERE action = 'restore.begin' AND at >= $1`,
		r.Since).Scan(&began, &again)
	return began, again, err
}

// begin writes an audit entry for the run and, if it is the first for this loss, sets the limits as spent.
func (r *restoreRun) begin(ctx context.Context) error {
	return pgx.BeginFunc(ctx, r.db.engine, func(tx pgx.Tx) error {
		var again bool
		var err error
		if r.began, again, err = restoreBegan(ctx, tx, r.Restoration); err != nil {
			return err
		}
		if err := r.note(ctx, tx, "restore.begin", nil); err != nil || again {
			return err
		}
		limits, _, err := r.db.lockLimits(ctx, tx, nil)
		if err != nil {
			return err
		}
		for _, acc := range limits {
			acc.Spend(r.lostAt(r.began))
		}
		b := &pgx.Batch{}
		queueLimits(b, limits)
		if b.Len() == 0 {
			return nil
		}
		return tx.SendBatch(ctx, b).Close()
	})
}

// note writes an audit entry.
func (r *restoreRun) note(ctx context.Context, tx pgx.Tx, action string, moved map[string]int) error {
	detail := map[string]any{"since": r.Since.UTC(), "lost_at": r.lostAt(r.began).UTC()}
	if moved != nil {
		detail["moved"] = moved
	}
	return audit(ctx, tx, r.Actor, action, "database", detail)
}

// moveAll moves the messages of each queue, batch by batch.
func (r *restoreRun) moveAll(ctx context.Context) error {
	for _, place := range openQueues() {
		for r.after = [16]byte{}; ; {
			if _, err := r.guard.Exec(ctx, `SELECT`); err != nil { // the lock that keeps other processes off is gone
				return fmt.Errorf("guard: %w", err)
			}
			var ids [][16]byte
			err := again(func() error {
				return pgx.BeginFunc(ctx, r.db.engine, func(tx pgx.Tx) (err error) {
					ids, err = r.moveSome(ctx, tx, place)
					return err
				})
			})
			if err != nil {
				return fmt.Errorf("move what is %s: %w", place, err)
			}
			r.moved[place] += len(ids)
			r.progress(r.moved["ready"] + r.moved["inflight"] + r.moved["unknown"])
			if len(ids) < restoreChunk {
				break
			}
			r.after = ids[len(ids)-1]
		}
	}
	return nil
}
