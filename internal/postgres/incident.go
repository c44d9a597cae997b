package postgres

import (
	"cmp"
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

// callsSQL counts the calls of each account lately. The spans are ten seconds long, so a minute may have some more.
const callsSQL = `
SELECT a.name,
    coalesce(sum(s.accepted) FILTER (WHERE s.at > now() - interval '1 minute'), 0)::bigint,
    coalesce(sum(s.failed) FILTER (WHERE s.at > now() - interval '1 minute'), 0)::bigint,
    coalesce(sum(s.made) FILTER (WHERE s.at > now() - interval '1 minute'), 0)::bigint,
    sum(s.accepted)::bigint, sum(s.failed)::bigint, sum(s.made)::bigint,
    coalesce((array_agg(s.failure ORDER BY s.at DESC) FILTER (WHERE s.failure <> ''))[1], '')
FROM call_span s JOIN account a ON a.id = s.account_id AND a.deleted_at IS NULL
WHERE s.at > now() - $1::interval
GROUP BY a.name`

// TallyCalls adds what a replica counted, to the spans and to what was sent.
func (db *DB) TallyCalls(ctx context.Context, tallies []record.CallTally) error {
	if len(tallies) == 0 {
		return nil
	}
	slices.SortFunc(tallies, func(a, b record.CallTally) int { return cmp.Compare(a.Account, b.Account) }) // all replicas lock in one order
	b := &pgx.Batch{}
	for _, t := range tallies {
		b.Queue(`INSERT INTO call_span AS s (account_id, at, accepted, failed, made, failure)
			VALUES ($1, date_bin('10 seconds', now(), 'epoch'), $2, $3, $4, $5)
			ON CONFLICT (account_id, at) DO UPDATE SET accepted = s.accepted + EXCLUDED.accepted, failed = s.failed + EXCLUDED.failed,
				made = s.made + EXCLUDED.made, failure = coalesce(nullif(EXCLUDED.failure, ''), s.failure)`,
			t.Account, t.Accepted, t.Failed, t.Made, t.Failure)
	}
	for _, t := range tallies {
		if t.Accepted > 0 {
			b.Queue(addOutcomeSQL, db.clock.Now(), t.Account, "sent", t.Accepted)
		}
	}
	return failed("note calls", db.api.SendBatch(ctx, b).Close())
}

const addOutcomeSQL = `INSERT INTO outcome_hour AS o (hour, account_id, outcome, n, last_at) VALUES (date_trunc('hour', $1::timestamptz), $2, $3, $4, $1)
	ON CONFLICT (account_id, hour, outcome) DO UPDATE SET n = o.n + EXCLUDED.n, last_at = greatest(o.last_at, EXCLUDED.last_at)`

// waitedSQL says how long the oldest message waits that is due, was put off, or failed. The others wait for their send_at.
const waitedSQL = `
SELECT coalesce(max(now() - greatest(m.created_at, m.send_at)), '0')
FROM (SELECT id FROM ready WHERE due <= now() OR held OR attempts > 0 ORDER BY id LIMIT 200) r
CROSS JOIN LATERAL (SELECT created_at, send_at FROM message WHERE id = r.id OFFSET 0) m`

// IncidentFacts gathers what incident.Judge needs. Account.Reports is left to the caller, who knows the kinds.
func (db *DB) IncidentFacts(ctx context.Context, c *route.Config) (*incident.Facts, error) {
	f := &incident.Facts{Violations: map[string]int{}}
	err := pgx.BeginTxFunc(ctx, db.api, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var books []byte
		err := tx.QueryRow(ctx, `SELECT now(), books, (SELECT count(*) FROM unknown WHERE since > now() - $1::interval),
			(SELECT count(*) FROM (SELECT FROM outbox LIMIT $2) o) FROM notify_state`, incident.CallSpan, record.MaxCounted).
			Scan(&f.Now, &books, &f.NewUnknown, &f.Pending)
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

// CountOutcomes counts the events that came since it was last called, adds them up by the hour, and returns them. TallyCalls counts
// what was sent.
func (db *DB) CountOutcomes(ctx context.Context) (c record.Counted, err error) {
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
		if c.Outcomes, err = readNewOutcomes(ctx, tx, from, to); err != nil {
			return err
		}
		if c.Delivered, err = readDelays(ctx, tx, from, to); err != nil {
			return err
		}
		return addOutcomes(ctx, tx, c.Outcomes, to)
	})
	if err != nil {
		return record.Counted{}, failed("count outcomes", err)
	}
	return c, nil
}

// readDelays samples how long the deliveries of a span took. Each costs a look-up, so there is a most.
func readDelays(ctx context.Context, tx pgx.Tx, from, to time.Time) ([]record.Delay, error) {
	rows := query(ctx, tx, `
SELECT a.name, greatest(e.at - t.finished_at, '0')
FROM (SELECT account_id, message_id, at FROM event WHERE id >= $1 AND id < $2 AND type = 'delivered' AND message_id IS NOT NULL LIMIT 1000) e
JOIN account a ON a.id = e.account_id
CROSS JOIN LATERAL (SELECT finished_at FROM attempt WHERE message_id = e.message_id AND account_id = e.account_id AND class = 'accepted' ORDER BY n DESC LIMIT 1) t`,
		[16]byte(mail.IDAt(from)), [16]byte(mail.IDAt(to)))
	return pgx.CollectRows(rows, pgx.RowToStructByPos[record.Delay])
}

func readNewOutcomes(ctx context.Context, tx pgx.Tx, from, to time.Time) ([]record.Outcome, error) {
	rows := query(ctx, tx, `
SELECT e.account_id, coalesce(a.name, ''), e.stream, e.type, coalesce(e.bounce->>'class', ''), count(*)::bigint
FROM event e LEFT JOIN account a ON a.id = e.account_id
WHERE e.id >= $1 AND e.id < $2 AND e.type IN ('delivered', 'bounced', 'complained', 'unsubscribed') AND e.account_id <> 0
GROUP BY 1, 2, 3, 4, 5`, [16]byte(mail.IDAt(from)), [16]byte(mail.IDAt(to)))
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
		b.Queue(addOutcomeSQL, to, k.account, k.outcome, n)
	}
	b.Queue(`DELETE FROM call_span WHERE at < now() - interval '10 minutes'`)
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
