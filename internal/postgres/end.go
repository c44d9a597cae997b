package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// endSQL gives recipients that will not be mailed their final status.
const endSQL = `
UPDATE recipient r SET status = e.status, detail = e.detail, updated_at = now()
FROM @e
WHERE r.message_id = ANY (@e.id) AND r.message_id = e.id AND r.status = 'queued'`

// End takes messages that will not be sent out of the queue, and settles them. One that is not waiting any more, because
// another replica claimed it or it was cancelled, is left alone.
func (db *DB) End(ctx context.Context, endings []queue.Ending) error {
	err := again(func() error {
		return pgx.BeginFunc(ctx, db.engine, func(tx pgx.Tx) error {
			_, err := endAll(ctx, tx, endings)
			return err
		})
	})
	return failed("end", err)
}

// endAll does the work of End in a transaction, and returns how many messages were still waiting.
func endAll(ctx context.Context, tx pgx.Tx, endings []queue.Ending) (int, error) {
	ids := make([]mail.ID, len(endings))
	for i, e := range endings {
		ids[i] = e.ID
	}
	waited, err := pgx.CollectRows(query(ctx, tx, `DELETE FROM ready WHERE id = ANY ($1) RETURNING id`, rawIDs(ids)), pgx.RowTo[[16]byte])
	if err != nil || len(waited) == 0 {
		return 0, err
	}
	why := make(map[[16]byte]queue.Ending, len(endings))
	for _, e := range endings {
		why[e.ID] = e
	}
	e := rowsAs("e", len(waited))
	for _, id := range waited {
		e.row().id("id", id).text("status", string(why[id].Status)).text("detail", why[id].Detail)
	}
	b := &pgx.Batch{}
	idRows(waited).queue(b, lockDoubtSQL)
	b.Queue(endSQL, e)
	queueEnds(b, waited)
	return len(waited), tx.SendBatch(ctx, b).Close()
}

// statusOrder is the order of mail.Fold, the worst last; a test keeps the two equal.
const statusOrder = `ARRAY['delivered', 'sent', 'cancelled', 'suppressed', 'expired', 'failed', 'failed_unknown',
        'bounced', 'complained', 'deferred', 'scheduled', 'queued', 'sending', 'unknown']`

// foldSQL computes the status of messages from their recipients: the worst open one, else the worst final one.
const foldSQL = `
UPDATE @message m SET updated_at = now(), status = coalesce((
    SELECT r.status FROM @recipient r WHERE r.message_id = m.id AND r.message_id BETWEEN @i.id.first AND @i.id.last
    ORDER BY array_position(` + statusOrder + `, r.status) DESC
    LIMIT 1), 'failed')
WHERE m.id = ANY (@i.id)`

func queueFold(b *pgx.Batch, ids [][16]byte) {
	i := idRows(ids)
	i.queue(b, lockSQL)
	i.queue(b, foldSQL)
}

// lockSQL makes transactions that change recipients of one message fold it one after the other. The statement that folds must
// begin with the lock held: otherwise it could wait for another commit, and then write what it read before that commit.
const lockSQL = `SELECT FROM @message m WHERE m.id = ANY (@i.id) ORDER BY m.id FOR NO KEY UPDATE`
