package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// briefly runs f in a transaction that holds locks for which all replicas wait. Its last batch commits, see commitWith: every
// exchange while the locks are held makes all replicas wait for this process, which has other work to do.
//
// The commit may skip the wait for the disk (notSyncedSQL), which may take longer than all else. A caller that needs the wait
// does it afterwards, see flush.
func (db *DB) briefly(ctx context.Context, f func(tx pgx.Tx) error) error {
	conn, err := db.engine.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	open := func() bool { return conn.Conn().PgConn().TxStatus() != 'I' }
	defer func() { // after an error, or a panic
		if open() {
			_ = tx.Rollback(ctx) // without an answer the connection is closed
		}
	}()
	if err := f(tx); err != nil {
		return err
	}
	if open() { // there was nothing to write
		return tx.Commit(ctx)
	}
	return nil
}

// notSyncedSQL makes the commit not wait for the disk.
const notSyncedSQL = `SET LOCAL synchronous_commit = off`

// commitWith sends the last batch of a transaction under briefly, with the commit.
func commitWith(ctx context.Context, tx pgx.Tx, b *pgx.Batch) error {
	b.Queue("commit").Exec(func(done pgconn.CommandTag) error {
		if done.String() != "COMMIT" {
			return pgx.ErrTxCommitRollback
		}
		return nil
	})
	return tx.SendBatch(ctx, b).Close()
}

// flush returns when everything that was committed before it is as durable as any commit.
func (db *DB) flush(ctx context.Context) error {
	_, err := db.engine.Exec(ctx, commitSQL)
	return err
}
