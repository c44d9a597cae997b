//go:build drill

package drill

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// quietTenant has no backlog.
const quietTenant = "globex"

// backlog is messages that were accepted yesterday, and wait: those of two tenants, most by the pool and some pinned to an
// account, all due or some scheduled for later. They have the partitions of their day for themselves.
type backlog struct {
	rig    *rig
	day    time.Time // UTC
	filled int
	args   []any // of fillQueueSQL, from the fifth on
}

const (
	fillChunk   = 20_000
	fillWriters = 2
	fillSpan    = time.Hour // within which all of them were accepted
)

func (r *rig) newBacklog(t *testing.T, someLater bool) *backlog {
	t.Helper()
	b := &backlog{rig: r, day: time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -1)}
	id := func(query, name string) (n int32) {
		if err := r.rows.QueryRow(t.Context(), query, name).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const tenant = `SELECT id FROM tenant WHERE name = $1`
	const pinnedTo = "sendgrid"
	pooledFacts, pooledBody := waitingMessage(t, "")
	pinnedFacts, pinnedBody := waitingMessage(t, pinnedTo)
	b.args = []any{
		id(tenant, "acme"), id(tenant, "default"), id(`SELECT id FROM account WHERE name = $1`, pinnedTo), pooledFacts, pinnedFacts,
		pooledBody, pinnedBody, someLater,
	}
	return b
}

// waitingMessage has the facts for routing and the body of a message; @id, @tenant and @n in them are replaced.
func waitingMessage(t *testing.T, account string) (facts, body string) {
	t.Helper()
	m := mail.Message{
		Tenant: -1, From: mail.Address{Email: "shop@example.com"}, To: []mail.Address{{Email: "ann+w-@n@example.org"}}, Subject: "Waiting",
		Text: strings.Repeat("It is on its way. ", 20), Stream: "transactional", CreatedAt: time.Now().UTC(),
		ExpiresAt: time.Now().UTC().AddDate(0, 0, 2), OnAmbiguous: "never", Account: account,
	}
	f, err := json.Marshal(m.Facts())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(f), strings.NewReplacer(mail.ID{}.String(), "@id", `"tenant":-1`, `"tenant":@tenant`).Replace(string(text))
}

// fillQueueSQL writes messages as an accept does: those numbered from $1 to $2, accepted at $3 and every $4 after. With $12 they
// have waited since then, and some are scheduled; replicas that run look for such old ones only twice a minute. Otherwise they are
// due in a moment, when they are committed.
const fillQueueSQL = `
WITH i AS MATERIALIZED (
    SELECT (left(uuid_floor(at)::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid AS id, n, at,
           CASE WHEN n % 10 < 6 THEN $5::int ELSE $6::int END AS tenant_id, n % 20 = 7 AS pinned,
           CASE WHEN $12 AND n % 5 = 4 THEN now() + interval '6 h' + n * interval '1 ms' END AS send_at
    FROM (SELECT n, $3::timestamptz + n * $4::interval AS at FROM generate_series($1::int, $2::int) n) x
), m AS (
    INSERT INTO message (id, tenant_id, status, stream, sender, subject, facts, on_ambiguous, created_at, send_at, expires_at, updated_at)
    SELECT id, tenant_id, 'queued', 'transactional', 'shop@example.com', 'Waiting', (CASE WHEN pinned THEN $9 ELSE $8 END)::jsonb, 'never',
           at, send_at, now() + interval '2 d', at
    FROM i
), r AS (
    INSERT INTO recipient (message_id, n, tenant_id, kind, email, status, updated_at)
    SELECT id, 0, tenant_id, 'to', 'ann+w-' || n || '@example.org', 'queued', at FROM i
), b AS (
    INSERT INTO body (id, payload)
    SELECT id, convert_to(replace(replace(replace(CASE WHEN pinned THEN $11 ELSE $10 END, '@id', id::text), '@tenant', tenant_id::text),
                                  '@n', n::text), 'UTF8')
    FROM i
)
INSERT INTO ready (id, lane, tenant_id, due)
SELECT id, CASE WHEN pinned THEN -$7::int ELSE 1 END, tenant_id, CASE WHEN $12 THEN coalesce(send_at, at) ELSE now() + interval '3 s' END FROM i`

// fill adds n messages, those that waited for longest first.
func (b *backlog) fill(t *testing.T, n int) {
	t.Helper()
	first, step := b.day.Add(20*time.Hour), fillSpan/time.Duration(n)
	if b.filled > 0 { // newer than those
		first = first.Add(2 * fillSpan)
	}
	chunks := make(chan int)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range fillWriters {
		wg.Go(func() {
			for from := range chunks {
				to := min(from+fillChunk, n) - 1
				if err := b.write(ctx, from, to, first, step); err != nil && ctx.Err() == nil {
					t.Errorf("fill the queue: %v", err)
					cancel()
				}
			}
		})
	}
	for from := 0; from < n && ctx.Err() == nil; from += fillChunk {
		select {
		case chunks <- from:
		case <-ctx.Done():
		}
	}
	close(chunks)
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	b.filled += n
}

// age does what the server does by itself while a backlog grows for an hour: it vacuums the tables and writes them to disk.
func (b *backlog) age(t *testing.T) {
	t.Helper()
	of := b.day.Format("_20060102")
	for _, q := range []string{`VACUUM ANALYZE ready, message` + of + `, recipient` + of + `, body` + of, `CHECKPOINT`} {
		if _, err := b.rig.rows.Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *backlog) write(ctx context.Context, from, to int, first time.Time, step time.Duration) error {
	return pgx.BeginFunc(ctx, b.rig.rows, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL synchronous_commit = off; SET LOCAL work_mem = '64MB'; SET LOCAL jit = off`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, fillQueueSQL, append([]any{from, to, first, step}, b.args...)...)
		return err
	})
}

// number runs a statement over the ids of the backlog, of which $1 is the least and $2 the one after the last. However long
// the queue is, it gets its time.
func (b *backlog) number(t *testing.T, query string) int {
	t.Helper()
	n := 0
	err := b.rig.rows.QueryRow(t.Context(), `WITH b AS (SELECT uuid_floor($1) AS lo, uuid_floor($2) AS hi) `+query, b.day, b.day.AddDate(0, 0, 1)).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// waiting counts the messages of the backlog that are in the queue.
func (b *backlog) waiting(t *testing.T) int {
	t.Helper()
	return b.number(t, `SELECT count(*) FROM ready WHERE id >= (SELECT lo FROM b) AND id < (SELECT hi FROM b)`)
}

// few reports whether fewer than n of them could be sent now. It does not count further.
func (b *backlog) few(t *testing.T, n int) bool {
	t.Helper()
	return b.number(t, `SELECT count(*) FROM (SELECT FROM ready WHERE id >= (SELECT lo FROM b) AND id < (SELECT hi FROM b) AND due <= now() LIMIT `+strconv.Itoa(min(n, 5000))+`) x`) < min(n, 5000)
}

// tried counts the calls that were made for it.
func (b *backlog) tried(t *testing.T) int {
	t.Helper()
	return b.number(t, `SELECT count(*) FROM attempt WHERE message_id >= (SELECT lo FROM b) AND message_id < (SELECT hi FROM b)`)
}

// cut deletes the messages that were never tried while no process runs, because the drill does not have to send all of them.
func (b *backlog) cut(t *testing.T) {
	t.Helper()
	statements := []string{fmt.Sprintf(`
CREATE TEMP TABLE gone ON COMMIT DROP AS
SELECT id FROM ready WHERE attempts = 0 AND id >= uuid_floor('%s') AND id < uuid_floor('%s')`,
		b.day.Format(time.RFC3339), b.day.AddDate(0, 0, 1).Format(time.RFC3339)), `ANALYZE gone`}
	of := b.day.Format("_20060102")
	for _, x := range [][2]string{{"ready", "id"}, {"message" + of, "id"}, {"recipient" + of, "message_id"}, {"body" + of, "id"}} {
		statements = append(statements,
			fmt.Sprintf(`CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM %s x WHERE NOT EXISTS (SELECT FROM gone WHERE id = x.%s)`, x[0], x[1]),
			`TRUNCATE `+x[0], `INSERT INTO `+x[0]+` SELECT * FROM kept`, `DROP TABLE kept`)
	}
	err := pgx.BeginFunc(t.Context(), b.rig.rows, func(tx pgx.Tx) error {
		for _, q := range statements {
			if _, err := tx.Exec(t.Context(), q); err != nil {
				return fmt.Errorf("%s: %w", q, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
