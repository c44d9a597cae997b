package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/queue"
)

// account_park.sender_domain names what is parked on an account: an address, a domain, or '' for the whole account.

// addressParks is how many addresses of one domain are parked on an account one by one. The next one parks the domain.
const addressParks = 20

// parkDetailSQL is the detail of the audit entry of a park p.
const parkDetailSQL = `jsonb_strip_nulls(jsonb_build_object('reason', p.reason,
        'sender_domain', regexp_replace(p.sender_domain, '^.*@', ''),
        'sender', CASE WHEN p.sender_domain LIKE '%@%' THEN p.sender_domain END))`

// parkSQL parks an account. Only if it was not parked so already does it raise the configuration version, because many calls
// fail at once. A probe that failed puts off the next probe, twice as long each time, up to a bound.
const parkSQL = `
WITH p AS (
    INSERT INTO account_park AS old (account_id, sender_domain, reason, probe_at)
    SELECT $1, CASE WHEN $2 LIKE '%@%' AND $5 <= (SELECT count(*) FROM account_park o
            WHERE o.account_id = $1 AND o.sender_domain LIKE '%@%' AND split_part(o.sender_domain, '@', 2) = split_part($2, '@', 2))
        THEN split_part($2, '@', 2) ELSE $2 END, $3, now() + $6::interval
    ON CONFLICT (account_id, sender_domain) DO UPDATE SET reason = EXCLUDED.reason, tried_at = now(), probes = old.probes + 1,
        probe_at = now() + least($6::interval * power(2, least(old.probes + 1, 20)), greatest($6::interval, $7::interval))
        WHERE $4
    RETURNING account_id, sender_domain, reason, probes
), a AS (
    INSERT INTO audit (actor, action, target, detail)
    SELECT 'system', 'account.park', a.name, ` + parkDetailSQL + `
    FROM p JOIN account a ON a.id = p.account_id WHERE p.probes = 0
)
UPDATE config_state SET version = version + 1, at = now() WHERE EXISTS (SELECT 1 FROM p WHERE p.probes = 0)`

// endParksSQL ends the parks that meet a condition, raises the configuration version and writes audit entries.
func endParksSQL(which string) string {
	return `
WITH p AS (
    DELETE FROM account_park WHERE ` + which + `
    RETURNING account_id, sender_domain, reason
), a AS (
    INSERT INTO audit (actor, action, target, detail)
    SELECT 'system', 'account.unpark', a.name, ` + parkDetailSQL + `
    FROM p JOIN account a ON a.id = p.account_id
)
UPDATE config_state SET version = version + 1, at = now() WHERE EXISTS (SELECT 1 FROM p)`
}

var (
	// unparkSQL ends the parks whose probe was accepted, if nobody did before.
	unparkSQL = endParksSQL(`account_id = $1 AND sender_domain = ANY ($2::text[])`)
	// unusedSQL ends the parks of senders that had no message for a probe in a day: the next message is the probe.
	unusedSQL = endParksSQL(`sender_domain <> '' AND tried_at < now() - interval '1 day'`)
)

func queuePark(b *pgx.Batch, p *queue.Park) {
	b.Queue(parkSQL, p.Account, p.Key(), p.Reason, p.Probe, addressParks, p.Wait, p.MaxWait)
}

const takeProbesSQL = `
UPDATE account_park p SET probe_at = now() + $1::interval
WHERE (p.account_id, p.sender_domain) IN (
    SELECT d.account_id, d.sender_domain FROM account_park d JOIN account a ON a.id = d.account_id
    WHERE d.probe_at <= now() AND a.deleted_at IS NULL AND NOT a.paused
    ORDER BY 1, 2 FOR UPDATE OF d SKIP LOCKED)
RETURNING p.account_id, p.sender_domain`

// TakeProbes gives this process the right to let one message through each park whose next probe is due, by account. No other
// process gets that right during the lease. A process that finds no message, or dies, loses it when the lease ends.
func (db *DB) TakeProbes(ctx context.Context, lease time.Duration) (map[int32][]string, error) {
	taken := map[int32][]string{}
	b := &pgx.Batch{}
	b.Queue(unusedSQL)
	b.Queue(takeProbesSQL, lease).Query(func(rows pgx.Rows) error {
		var account int32
		var key string
		_, err := pgx.ForEachRow(rows, []any{&account, &key}, func() error {
			taken[account] = append(taken[account], key)
			return nil
		})
		return err
	})
	if err := db.engine.SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("take probes: %w", unavailable(err))
	}
	return taken, nil
}
