package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// statsTimeout bounds the one statement of Stats.
const statsTimeout = "10s"

// statsKeys are the SQL expressions by which statistics can be grouped.
var statsKeys = map[string]string{
	"account": "coalesce(t.account, '')",
	"stream":  "m.stream",
	"domain":  "substr(r.email, length(r.email) - strpos(reverse(r.email), '@') + 2)",
}

// statsSQL counts recipients by their present status. Their account is that of the message's accepted call, or of the last
// one. A recipient was sent if its status says so, or if an event came for it. A recipient that is bounced without an event was
// refused in the call, which happens only to addresses that can't be mailed.
const statsSQL = `
WITH m AS MATERIALIZED (
    SELECT id, stream, greatest(created_at, send_at) AS due FROM message WHERE tenant_id = $1 AND id >= $2 AND id < $3
), t AS (
    SELECT DISTINCT ON (t.message_id) t.message_id, a.name AS account, CASE WHEN t.class = 'accepted' THEN t.finished_at END AS taken_at
    FROM m JOIN attempt t ON t.message_id = m.id AND t.message_id >= $2 AND t.message_id < $3
    JOIN account a ON a.id = t.account_id
    ORDER BY t.message_id, coalesce(t.class = 'accepted', false) DESC, t.n DESC
), e AS (
    SELECT message_id, n, min(at) FILTER (WHERE type = 'delivered') AS delivered_at,
           bool_or(type = 'opened' AND NOT machine) AS opened, bool_or(type = 'clicked' AND NOT machine) AS clicked,
           bool_or(type = 'unsubscribed') AS unsubscribed
    FROM event
    WHERE tenant_id = $1 AND message_id >= $2 AND message_id < $3 AND id >= $2 AND n IS NOT NULL
      AND type IN ('delivered', 'opened', 'clicked', 'unsubscribed')
    GROUP BY message_id, n
), r AS (
    SELECT %s AS key, r.status, r.event_rank, coalesce(r.bounce->>'class', 'hard') AS class, e.opened, e.clicked, e.unsubscribed,
           extract(epoch FROM t.taken_at - m.due) * 1000 AS sent_ms,
           extract(epoch FROM e.delivered_at - m.due) * 1000 AS delivered_ms
    FROM m JOIN recipient r ON r.message_id = m.id AND r.message_id >= $2 AND r.message_id < $3
    LEFT JOIN t ON t.message_id = m.id
    LEFT JOIN e ON e.message_id = m.id AND e.n = r.n
)
SELECT key, count(*),
    count(*) FILTER (WHERE status IN ('sent', 'delivered', 'deferred', 'complained') OR event_rank > 0),
    count(*) FILTER (WHERE status IN ('delivered', 'complained')),
    count(*) FILTER (WHERE status = 'deferred'),
    count(*) FILTER (WHERE status = 'bounced' AND class = 'hard'),
    count(*) FILTER (WHERE status = 'bounced' AND class = 'soft'),
    count(*) FILTER (WHERE status = 'bounced' AND class = 'policy'),
    count(*) FILTER (WHERE status = 'complained'),
    count(*) FILTER (WHERE status = 'suppressed'),
    count(*) FILTER (WHERE status IN ('failed', 'failed_unknown', 'expired')),
    count(*) FILTER (WHERE status = 'failed_unknown'),
    count(*) FILTER (WHERE status = 'unknown'),
    count(*) FILTER (WHERE opened), count(*) FILTER (WHERE clicked), count(*) FILTER (WHERE unsubscribed),
    coalesce(percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY greatest(sent_ms, 0)::bigint) FILTER (WHERE sent_ms IS NOT NULL), '{0,0}'),
    coalesce(percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY greatest(delivered_ms, 0)::bigint) FILTER (WHERE delivered_ms IS NOT NULL), '{0,0}')
FROM r GROUP BY key ORDER BY count(*) DESC, key LIMIT $4`

// Stats counts the recipients of the messages of a tenant that were accepted in [f.Since, f.Until), by account, stream or
// domain, the largest number first. If that takes longer than statsTimeout, it returns *mail.Invalid.
func (db *DB) Stats(ctx context.Context, f record.StatsFilter) ([]record.Stat, error) {
	key, ok := statsKeys[f.By]
	if !ok {
		return nil, &mail.Invalid{Fields: []mail.Field{{Field: "by", Code: "unknown_key", Message: "must be account, stream or domain"}}}
	}
	var stats []record.Stat
	err := pgx.BeginTxFunc(ctx, db.api, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = '`+statsTimeout+`'`); err != nil {
			return err
		}
		rows := query(ctx, tx, fmt.Sprintf(statsSQL, key), f.Tenant, [16]byte(mail.IDAt(f.Since)), [16]byte(mail.IDAt(f.Until)), f.Limit)
		stats, err = pgx.CollectRows(rows, scanStat)
		return err
	})
	if isCode(err, "57014") { // cancelled by the timeout
		return nil, &mail.Invalid{Fields: []mail.Field{{
			Field: "since", Code: "too_much", Message: "takes longer than " + statsTimeout + " to count: ask for a shorter span",
		}}}
	}
	if err != nil {
		return nil, fmt.Errorf("count statistics: %w", unavailable(err))
	}
	return stats, nil
}

func scanStat(row pgx.CollectableRow) (record.Stat, error) {
	var s record.Stat
	var hard, soft, policy int64
	var sent, delivered []int64
	err := row.Scan(&s.Key, &s.Recipients, &s.Sent, &s.Delivered, &s.Deferred, &hard, &soft, &policy, &s.Complained, &s.Suppressed,
		&s.Failed, &s.FailedUnknown, &s.Unknown, &s.Opened, &s.Clicked, &s.Unsubscribed, &sent, &delivered)
	if err != nil {
		return s, err
	}
	s.Bounced = map[mail.BounceClass]int64{mail.Hard: hard, mail.Soft: soft, mail.PolicyClass: policy}
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	s.SentP50, s.SentP95, s.DeliveredP50, s.DeliveredP95 = ms(sent[0]), ms(sent[1]), ms(delivered[0]), ms(delivered[1])
	return s, nil
}
