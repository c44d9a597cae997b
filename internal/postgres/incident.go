package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/incident"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// incidentAge is how long incidents are kept after their end.
const incidentAge = 90 * 24 * time.Hour

// LeaseWatch makes owner the one replica that judges and tells, for the lease, unless another one is. It reports whether it is.
func (db *DB) LeaseWatch(ctx context.Context, owner mail.ID, lease time.Duration) (bool, error) {
	tag, err := db.api.Exec(ctx, `UPDATE notify_state SET owner = $1, lease_until = now() + $2::interval WHERE owner = $1 OR lease_until <= now()`,
		[16]byte(owner), lease)
	return tag.RowsAffected() > 0, failed("take the lease of the watch", err)
}

// EndWatch gives the lease up, so that another replica need not wait for its end.
func (db *DB) EndWatch(ctx context.Context, owner mail.ID) error {
	_, err := db.api.Exec(ctx, `UPDATE notify_state SET lease_until = '-infinity' WHERE owner = $1`, [16]byte(owner))
	return failed("give up the lease of the watch", err)
}

// NoteBooks keeps what the check of the books found, for the replica that judges.
func (db *DB) NoteBooks(ctx context.Context, a *queue.Accounting) error {
	found := map[string]int{}
	for _, v := range a.Violations {
		found[string(v.Kind)] += v.Count
	}
	raw, err := json.Marshal(found)
	if err != nil {
		return fmt.Errorf("encode the books: %w", err)
	}
	_, err = db.api.Exec(ctx, `UPDATE notify_state SET books_at = now(), books = $1`, raw)
	return failed("note the books", err)
}

// Messages that were accepted longer ago than callsSince are left out of the calls: each day that is looked into costs, and a
// message expires after 72 hours unless its sender says otherwise.
const callsSince = "4 days"

// callsSQL counts the calls of each account lately. The index on started_at names the pages that have some.
const callsSQL = `
SELECT a.name,
    count(*) FILTER (WHERE t.started_at > now() - interval '1 minute' AND t.class = 'accepted'),
    count(*) FILTER (WHERE t.started_at > now() - interval '1 minute' AND t.class IN ('transient', 'uncertain')),
    count(*) FILTER (WHERE t.started_at > now() - interval '1 minute' AND t.class IS NOT NULL),
    count(*) FILTER (WHERE t.class = 'accepted'), count(*) FILTER (WHERE t.class IN ('transient', 'uncertain')), count(t.class),
    coalesce((array_agg(t.error ORDER BY t.started_at DESC) FILTER (WHERE t.class IN ('transient', 'uncertain')))[1], '')
FROM attempt t JOIN account a ON a.id = t.account_id AND a.deleted_at IS NULL
WHERE t.started_at > now() - $1::interval AND t.message_id >= uuid_floor(now() - interval '` + callsSince + `')
GROUP BY a.name`

// waitedSQL says how long the oldest message waits that is due, was put off, or failed. The others wait for their send_at.
const waitedSQL = `
SELECT coalesce(max(now() - greatest(m.created_at, m.send_at)), '0')
FROM (SELECT id FROM ready WHERE due <= now() OR held OR attempts > 0 ORDER BY id LIMIT 1000) r
JOIN message m ON m.id = r.id`

// IncidentFacts gathers what incident.Judge needs. Account.Reports is left to the caller, who knows the kinds.
func (db *DB) IncidentFacts(ctx context.Context, c *route.Config) (*incident.Facts, error) {
	f := &incident.Facts{Violations: map[string]int{}}
	err := pgx.BeginTxFunc(ctx, db.api, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var books []byte
		err := tx.QueryRow(ctx, `SELECT now(), books, (SELECT count(*) FROM unknown WHERE since > now() - $1::interval) FROM notify_state`, incident.CallSpan).
			Scan(&f.Now, &books, &f.NewUnknown)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(books, &f.Violations); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, waitedSQL).Scan(&f.QueueAge); err != nil {
			return err
		}
		for i := range c.Accounts {
			if a := &c.Accounts[i]; !a.Draining {
				f.Accounts = append(f.Accounts, accountFacts(a))
			}
		}
		if err := readCalls(ctx, tx, f); err != nil {
			return err
		}
		return readOutcomes(ctx, tx, f)
	})
	if err != nil {
		return nil, fmt.Errorf("read facts: %w", unavailable(err))
	}
	limits, err := db.LimitStates(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range limits {
		if a := factsOf(f, s.Account); a != nil {
			a.Limits = append(a.Limits, s)
		}
	}
	return f, nil
}

func accountFacts(a *route.Account) incident.Account {
	out := incident.Account{Name: a.Name, CreatedAt: a.CreatedAt}
	for _, p := range a.Parked {
		out.Parks = append(out.Parks, incident.Park{Sender: p.Key(), Reason: p.Reason})
	}
	return out
}

func factsOf(f *incident.Facts, account string) *incident.Account {
	if i := slices.IndexFunc(f.Accounts, func(a incident.Account) bool { return a.Name == account }); i >= 0 {
		return &f.Accounts[i]
	}
	return nil
}

func readCalls(ctx context.Context, tx pgx.Tx, f *incident.Facts) error {
	var name, failure string
	var minute, span incident.Calls
	_, err := pgx.ForEachRow(query(ctx, tx, callsSQL, incident.CallSpan),
		[]any{&name, &minute.Accepted, &minute.Failed, &minute.All, &span.Accepted, &span.Failed, &span.All, &failure}, func() error {
			if a := factsOf(f, name); a != nil {
				a.Minute, a.Span, a.LastFailure = minute, span, failure
			}
			return nil
		})
	return err
}

// readOutcomes reads what CountOutcomes counted in the last day, and when each account sent and was heard of last.
func readOutcomes(ctx context.Context, tx pgx.Tx, f *incident.Facts) error {
	var name string
	var d incident.Outcomes
	var sent, event time.Time
	_, err := pgx.ForEachRow(query(ctx, tx, `
SELECT a.name, coalesce(sum(o.n) FILTER (WHERE o.outcome = 'sent'), 0)::bigint, coalesce(sum(o.n) FILTER (WHERE o.outcome = 'delivered'), 0)::bigint,
    coalesce(sum(o.n) FILTER (WHERE o.outcome = 'bounced'), 0)::bigint, coalesce(sum(o.n) FILTER (WHERE o.outcome = 'complained'), 0)::bigint,
    max(o.last_at) FILTER (WHERE o.outcome = 'sent'), max(h.last_event_at)
FROM account a LEFT JOIN hook_health h ON h.account_id = a.id
LEFT JOIN outcome_hour o ON o.account_id = a.id AND o.hour > now() - interval '1 day'
WHERE a.deleted_at IS NULL GROUP BY a.name`),
		[]any{&name, &d.Sent, &d.Delivered, &d.Bounced, &d.Complained, orNoTime(&sent), orNoTime(&event)}, func() error {
			if a := factsOf(f, name); a != nil {
				a.Day, a.LastSent, a.LastEvent = d, sent, event
			}
			return nil
		})
	return err
}

const (
	// countLag is how long after an event its count waits for transactions that are about to commit. What takes longer is missed.
	countLag = 10 * time.Second
	// countStep bounds one count. After a pause of countMost the rest is not counted.
	countStep = 10 * time.Minute
	countMost = time.Hour
)

// CountOutcomes counts what was sent, and what events came, since it was last called, adds it up by the hour, and returns it.
func (db *DB) CountOutcomes(ctx context.Context) (counts []record.Outcome, err error) {
	err = db.inTx(ctx, func(tx pgx.Tx) error {
		var from, to, now time.Time
		if err := tx.QueryRow(ctx, `SELECT counted_to, now() FROM notify_state FOR UPDATE`).Scan(&from, &now); err != nil {
			return err
		}
		if now.Sub(from) > countMost {
			from = now.Add(-countStep)
		}
		if to = now.Add(-countLag); to.Sub(from) > countStep {
			to = from.Add(countStep)
		}
		if !to.After(from) {
			return nil
		}
		if counts, err = readNewOutcomes(ctx, tx, from, to); err != nil {
			return err
		}
		return addOutcomes(ctx, tx, counts, to)
	})
	return counts, failed("count outcomes", err)
}

func readNewOutcomes(ctx context.Context, tx pgx.Tx, from, to time.Time) ([]record.Outcome, error) {
	rows := query(ctx, tx, `
SELECT e.account_id, coalesce(a.name, ''), e.stream, e.type, coalesce(e.bounce->>'class', ''), count(*)::bigint
FROM event e LEFT JOIN account a ON a.id = e.account_id
WHERE e.id >= $1 AND e.id < $2 AND e.type IN ('delivered', 'bounced', 'complained', 'unsubscribed') AND e.account_id <> 0
GROUP BY 1, 2, 3, 4, 5
UNION ALL
SELECT t.account_id, coalesce(a.name, ''), '', 'sent', '', count(*)::bigint
FROM attempt t LEFT JOIN account a ON a.id = t.account_id
WHERE t.started_at > $3::timestamptz - interval '2 minutes' AND t.finished_at >= $3 AND t.finished_at < $4 AND t.class = 'accepted'
  AND t.message_id >= uuid_floor($3::timestamptz - interval '`+callsSince+`')
GROUP BY 1, 2`, [16]byte(mail.IDAt(from)), [16]byte(mail.IDAt(to)), from, to)
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (o record.Outcome, err error) {
		return o, row.Scan(&o.AccountID, &o.Account, &o.Stream, &o.Type, &o.Bounce, &o.N)
	})
}

func addOutcomes(ctx context.Context, tx pgx.Tx, counts []record.Outcome, to time.Time) error {
	type key struct {
		account int32
		outcome string
	}
	sums := map[key]int64{}
	for i := range counts {
		sums[key{counts[i].AccountID, counts[i].Type}] += counts[i].N
	}
	b := &pgx.Batch{}
	for k, n := range sums {
		b.Queue(`INSERT INTO outcome_hour AS o (hour, account_id, outcome, n, last_at) VALUES (date_trunc('hour', $1::timestamptz), $2, $3, $4, $1)
			ON CONFLICT (account_id, hour, outcome) DO UPDATE SET n = o.n + EXCLUDED.n, last_at = EXCLUDED.last_at`, to, k.account, k.outcome, n)
	}
	b.Queue(`DELETE FROM outcome_hour WHERE hour < now() - interval '2 days'`)
	b.Queue(`UPDATE notify_state SET counted_to = $1`, to)
	return tx.SendBatch(ctx, b).Close()
}

const incidentColumns = `i.id, i.kind, i.account, i.subject, i.detail, i.since, i.began_at, i.gone_at, i.ended_at`

func incidentInto(in *incident.Incident) []any {
	return []any{
		intoID(&in.ID), &in.Kind, &in.Account, &in.Subject, &in.Detail, &in.Since, orNoTime(&in.Began), orNoTime(&in.Gone), orNoTime(&in.Ended),
	}
}

func scanIncident(row pgx.CollectableRow) (in incident.Incident, err error) {
	return in, row.Scan(incidentInto(&in)...)
}

// OpenIncidents lists the incidents that have not ended, those that have not begun included.
func (db *DB) OpenIncidents(ctx context.Context) ([]incident.Incident, error) {
	return collect("list open incidents", query(ctx, db.api, `SELECT `+incidentColumns+` FROM incident i WHERE i.ended_at IS NULL ORDER BY i.id`), scanIncident)
}

// Incidents lists incidents that have begun, those that last first, then the newest.
func (db *DB) Incidents(ctx context.Context, limit int) ([]incident.Incident, error) {
	return collect("list incidents", query(ctx, db.api, `SELECT `+incidentColumns+` FROM incident i WHERE i.began_at IS NOT NULL
		ORDER BY i.ended_at IS NOT NULL, i.id DESC LIMIT $1`, limit), scanIncident)
}

// KeepIncidents stores a step, and makes the notices of what began and of what ended. If owner no longer has the lease of the
// watch, it stores nothing and returns record.ErrStale.
func (db *DB) KeepIncidents(ctx context.Context, owner mail.ID, c incident.Changes) error {
	err := db.inTx(ctx, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `SELECT FROM notify_state WHERE owner = $1 AND lease_until > now() FOR UPDATE`, [16]byte(owner)).Scan()
		if errors.Is(err, pgx.ErrNoRows) {
			return record.ErrStale
		}
		if err != nil {
			return err
		}
		b := &pgx.Batch{}
		for i := range c.Keep {
			in := &c.Keep[i]
			b.Queue(`INSERT INTO incident (id, kind, account, subject, detail, since, began_at, gone_at, ended_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
				ON CONFLICT (id) DO UPDATE SET detail = EXCLUDED.detail, began_at = EXCLUDED.began_at, gone_at = EXCLUDED.gone_at, ended_at = EXCLUDED.ended_at`,
				[16]byte(in.ID), string(in.Kind), in.Account, in.Subject, in.Detail, in.Since, orNull(in.Began), orNull(in.Gone), orNull(in.Ended))
		}
		b.Queue(`DELETE FROM incident WHERE id = ANY ($1)`, rawIDs(c.Drop))
		b.Queue(`DELETE FROM incident WHERE ended_at < now() - $1::interval`, incidentAge)
		for i := range c.Began {
			b.Queue(`INSERT INTO notice (incident_id, rule_id, ended, id) SELECT $1, r.id, false, new_event_id() FROM notify_rule r
				WHERE r.kinds = '{}' OR $2 = ANY (r.kinds) ON CONFLICT DO NOTHING`, [16]byte(c.Began[i].ID), string(c.Began[i].Kind))
		}
		for i := range c.Ended { // to those who were told that it began
			b.Queue(`INSERT INTO notice (incident_id, rule_id, ended, id) SELECT n.incident_id, n.rule_id, true, new_event_id() FROM notice n
				WHERE n.incident_id = $1 AND NOT n.ended ON CONFLICT DO NOTHING`, [16]byte(c.Ended[i].ID))
		}
		return tx.SendBatch(ctx, b).Close()
	})
	return failed("keep incidents", err)
}
