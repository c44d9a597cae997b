package postgres

import (
	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// twinsSQL lists those of the given messages that this transaction has shown to be accepted twice: a call that was closed
// without a verdict turned out to be accepted, and so was a later one, which was made because the outcome was unknown. A later
// call for recipients that an earlier one put off does not count: the outcome of the earlier one was known before it began. Nor
// does a call that the same account answered with the same id: it repeated the earlier one.
const twinsSQL = `
SELECT DISTINCT t.message_id
FROM attempt t
WHERE t.message_id = ANY (@i.id) AND (t.class = 'accepted' AND t.finished_at = now() OR t.seen_at = now())
  AND EXISTS (
    SELECT FROM attempt a JOIN attempt b ON b.message_id = a.message_id AND b.n > a.n
    WHERE a.message_id = t.message_id AND b.message_id = t.message_id AND a.message_id BETWEEN @i.id.first AND @i.id.last AND b.message_id BETWEEN @i.id.first AND @i.id.last
      AND t.n IN (a.n, b.n)
      AND (a.seen_at > a.finished_at OR a.class = 'accepted' AND a.finished_at > b.started_at)
      AND (b.class = 'accepted' OR b.seen_at IS NOT NULL)
      AND NOT (a.account_id = b.account_id AND a.provider_message_id <> '' AND a.provider_message_id = b.provider_message_id)
    OFFSET 0)`

// queueTwins looks for such messages when the batch runs, and then stores them in twins. They count only after the transaction
// is committed: see reportTwins.
func queueTwins(b *pgx.Batch, ids [][16]byte, twins *[][16]byte) {
	*twins = nil
	if len(ids) == 0 {
		return
	}
	b.Queue(twinsSQL, idRows(ids)).Query(func(rows pgx.Rows) error {
		var err error
		*twins, err = pgx.CollectRows(rows, pgx.RowTo[[16]byte])
		return err
	})
}

// reportTwins calls Options.AcceptedTwice for each message.
func (db *DB) reportTwins(twins [][16]byte) {
	for _, id := range twins {
		db.twice(mail.ID(id))
	}
}

// mayBeTwins lists the messages of results that may show a second acceptance: those of a later call, or of one that was taken
// for lost. The first call of a message, whose claim is closed by its own result, is neither.
func mayBeTwins(batch []ownedResult, owned []*freed) [][16]byte {
	var ids [][16]byte
	for i, r := range batch {
		if r.Class == "accepted" && (r.N > 1 || owned[i] == nil || owned[i].wasUnknown) {
			ids = append(ids, r.ID)
		}
	}
	return ids
}
