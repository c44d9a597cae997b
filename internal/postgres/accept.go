package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// acceptWait is how long a caller waits for its commit, unless Options say otherwise. A message that is larger than a
// whole ordinary batch gets more time in proportion, or a slow disk could never store it.
//
// leastAttempt is the least time that a batch gets once it was taken, even if some of its callers have less left. A batch
// that is cut short has to be done again. longestAttempt is the most: a connection whose server is gone without a word must
// not use up the whole time of the callers.
const (
	acceptWait       = 10 * time.Second
	acceptWaitPerMiB = 400 * time.Millisecond
	leastAttempt     = 1500 * time.Millisecond
	longestAttempt   = 5 * time.Second
)

// heavyExtra is the additional time for the bytes beyond an ordinary batch.
func heavyExtra(bytes int64) time.Duration {
	return time.Duration(max(0, bytes-acceptWeight)>>20) * acceptWaitPerMiB
}

// acceptWeight bounds one transaction to what it can write in time, in bytes as mail.Message.Bytes counts them: 65 kB for a
// message to a thousand recipients.
const acceptWeight = 4 << 20

// offer is a submission and the time until which its caller waits.
type offer struct {
	*record.Submission
	until time.Time
}

// Accept makes a submission durable, in one transaction with others that wait. It returns record.ErrMismatch when the
// idempotency key was used with another request. It returns *record.Unavailable when the database does not take it in time:
// then it is not stored, and never will be. It returns *record.OutcomeUnknown when it can't find out whether it is stored.
func (db *DB) Accept(ctx context.Context, s *record.Submission) (record.Accepted, error) {
	size := s.Message.Bytes()
	until := time.Now().Add(db.acceptWait + heavyExtra(size))
	ctx, cancel := context.WithDeadlineCause(context.WithoutCancel(ctx), until, errSlow)
	defer cancel()
	return db.accepts.do(ctx, offer{s, until}, size)
}

// AcceptAll is Accept for many submissions at once. Each has its own answer.
func (db *DB) AcceptAll(ctx context.Context, subs []*record.Submission) ([]record.Accepted, []error) {
	until := time.Now().Add(db.acceptWait + heavyExtra(weigh(subs)))
	ctx, cancel := context.WithDeadlineCause(context.WithoutCancel(ctx), until, errSlow)
	defer cancel()
	accepted, errs := make([]record.Accepted, len(subs)), make([]error, len(subs))
	jobs := make([]*job[offer, record.Accepted], len(subs))
	for i, s := range subs {
		j := db.accepts.job(offer{s, until}, s.Message.Bytes())
		if errs[i] = db.accepts.submit(j); errs[i] == nil {
			jobs[i] = j
		}
	}
	for i, j := range jobs {
		if j != nil {
			accepted[i], errs[i] = j.wait(ctx)
		}
	}
	return accepted, errs
}

// errSlow is the cause when a commit took too long.
var errSlow = errors.New("no commit in time")

// acceptSQL writes a batch in one statement. It skips submissions whose idempotency key an earlier submission has. They are
// looked up afterwards, because this statement's snapshot may not see the earlier one.
var acceptSQL = `
WITH i AS (
    SELECT * FROM @i
), k AS (
    INSERT INTO idempotency (tenant_id, key, fingerprint, message_id)
    SELECT tenant_id, key, fingerprint, id FROM i WHERE key <> '' ORDER BY tenant_id, key
    ON CONFLICT DO NOTHING
    RETURNING message_id
), win AS (
    SELECT * FROM i WHERE key = '' OR id IN (SELECT message_id FROM k)
), r AS (
    INSERT INTO recipient (message_id, n, tenant_id, kind, email, folded, name, status, updated_at)
    SELECT win.id, x.n, win.tenant_id, x.kind, x.email, nullif(x.key, x.email), x.name,
           CASE WHEN ` + suppressedSQL("win.tenant_id", "x.key", "win.stream") + `
                OR x.erased <> '' AND EXISTS (SELECT FROM erased e WHERE e.tenant_id = win.tenant_id AND e.hash = x.erased) THEN 'suppressed' ELSE 'queued' END, win.created_at
    FROM @x JOIN win ON win.row = x.row
    RETURNING message_id, n, status
), dead AS (
    SELECT message_id FROM r GROUP BY message_id HAVING bool_and(status = 'suppressed')
), m AS (
    INSERT INTO message (id, tenant_id, status, stream, sender, sender_folded, subject, tags, facts, on_ambiguous, created_at, send_at,
                         expires_at, updated_at)
    SELECT id, tenant_id, CASE WHEN id IN (SELECT message_id FROM dead) THEN 'suppressed' ELSE 'queued' END, stream, sender,
           nullif(sender_key, sender), subject, tags::text[], facts, on_ambiguous, created_at, send_at, expires_at, created_at
    FROM win
), b AS (
    INSERT INTO body (id, payload) SELECT id, payload FROM win
), q AS (
    INSERT INTO ready (id, lane, tenant_id, due)
    SELECT id, lane, tenant_id, greatest(now(), send_at) FROM win WHERE id NOT IN (SELECT message_id FROM dead)
)
SELECT win.id, coalesce(s.gone, '{}')
FROM win
LEFT JOIN (SELECT message_id, array_agg(n ORDER BY n) AS gone FROM r WHERE status = 'suppressed' GROUP BY message_id) s
    ON s.message_id = win.id`

// acceptBatch stores a batch in transactions of as many rows as the pace allows.
func (db *DB) acceptBatch(ctx context.Context, offers []offer) ([]record.Accepted, []error) {
	// Two batches with overlapping keys in different order would deadlock.
	byKey := func(a, b *offer) int { return strings.Compare(a.Key, b.Key) }
	got, errs := inOrder(offers, byKey, func(rest []offer) (got []acceptOutcome, errs []error) {
		for len(rest) > 0 {
			some := rest[:min(len(rest), db.pace.rows())]
			g, e := bisect(ctx, some, db.acceptOnce)
			got, errs, rest = append(got, g...), append(errs, e...), rest[len(some):]
		}
		return got, errs
	})
	results := make([]record.Accepted, len(offers))
	for i := range got {
		results[i] = got[i].accepted
		if errs[i] == nil {
			errs[i] = got[i].err
		}
	}
	return results, errs
}

// acceptOutcome is the answer to one submission of a batch.
type acceptOutcome struct {
	accepted record.Accepted
	err      error // of this row alone, while the batch was committed: record.ErrMismatch
}

// acceptOnce tries until a batch is committed, or until the last of its callers has no time left. So a short outage of the
// database delays the callers by no more than its own length. An error means that nothing of the batch is stored; errLarge
// asks for a smaller batch.
func (db *DB) acceptOnce(ctx context.Context, offers []offer) ([]acceptOutcome, error) {
	out := make([]acceptOutcome, len(offers))
	left := make([]int, len(offers)) // those without an outcome
	for i := range offers {
		left[i] = i
	}
	left = expired(time.Now(), offers, left, out, unavailable(errSlow)) // their time ended while other parts were tried
	for made := false; len(left) > 0; {
		by := attemptEnd(time.Now(), db.acceptWait, offers, left)
		err := db.acceptTogether(ctx, offers, left, by, out)
		if isCode(err, "23514") && !made { // no partition for these ids: the job that makes partitions did not run
			if _, err = db.EnsurePartitions(ctx); err == nil {
				made = true
				continue
			}
		}
		db.pace.note(len(left), err)
		if outOfTime(err) && len(left) > 1 {
			return out, errLarge
		}
		err = unavailable(err)
		if away, ok := errors.AsType[*record.Unavailable](err); !ok || away.Reason == "storage_full" {
			return out, err
		}
		left = expired(time.Now(), offers, left, out, err)
		if len(left) > 0 && !sleep(ctx, retryPause) {
			return out, err
		}
	}
	return out, nil
}

// attemptEnd is when an attempt at a batch has to be over: when the time of its first caller ends, within the least and the
// longest time of an attempt.
func attemptEnd(now time.Time, wait time.Duration, offers []offer, left []int) time.Time {
	first, weight := offers[left[0]].until, int64(0)
	for _, i := range left {
		if offers[i].until.Before(first) {
			first = offers[i].until
		}
		weight += offers[i].Message.Bytes()
	}
	extra := heavyExtra(weight)
	least, longest := now.Add(min(leastAttempt, wait)+extra), now.Add(longestAttempt+extra)
	switch {
	case first.Before(least):
		return least
	case first.After(longest):
		return longest
	}
	return first
}

// expired gives the error why to the offers whose time is over, and returns the others.
func expired(now time.Time, offers []offer, left []int, out []acceptOutcome, why error) []int {
	return slices.DeleteFunc(left, func(i int) bool {
		late := !now.Before(offers[i].until)
		if late {
			out[i].err = why
		}
		return late
	})
}

// acceptTogether commits all that is left of a batch, or nothing of it. If the outcome of the commit is not known, that is
// the answer to each: another try could store them twice.
func (db *DB) acceptTogether(ctx context.Context, offers []offer, left []int, by time.Time, out []acceptOutcome) error {
	subs := make([]*record.Submission, len(left))
	for n, i := range left {
		subs[n] = offers[i].Submission
	}
	suppressed, err := db.insertSubmissions(ctx, subs, by)
	if unknown, ok := errors.AsType[*record.OutcomeUnknown](err); ok {
		for _, i := range left {
			out[i].err = unknown
		}
		return nil
	}
	if err != nil {
		return err
	}
	var lost []int
	for n, i := range left {
		gone, won := suppressed[subs[n].Message.ID]
		if !won {
			lost = append(lost, i)
			continue
		}
		out[i].accepted = firstAnswer(subs[n].Message, gone)
	}
	db.replay(ctx, offers, lost, out)
	return nil
}

// weigh is the size of all messages, in bytes.
func weigh(subs []*record.Submission) int64 {
	sum := int64(0)
	for _, s := range subs {
		sum += s.Message.Bytes()
	}
	return sum
}

// collectAccepted reads the stored messages, each with the numbers of its suppressed recipients.
func collectAccepted(rows pgx.Rows) (map[mail.ID][]int16, error) {
	won := make(map[mail.ID][]int16)
	var id [16]byte
	var gone []int16
	_, err := pgx.ForEachRow(rows, []any{&id, &gone}, func() error {
		won[id] = slices.Clone(gone)
		return nil
	})
	return won, err
}

// replay gives the first answer to the submissions whose key was there already. Each succeeds or fails on its own: the
// others of the batch are committed. A message is stored under such a key, so the answer must not say that nothing is
// stored: *record.Unavailable becomes *record.OutcomeUnknown.
func (db *DB) replay(ctx context.Context, offers []offer, lost []int, out []acceptOutcome) {
	ctx, cancel := context.WithTimeout(ctx, db.acceptWait+answerGrace)
	defer cancel()
	for _, i := range lost {
		a, err := db.Replay(ctx, offers[i].Submission)
		if errors.Is(err, record.ErrNotFound) { // the key was deleted after the insert met it
			err = &record.Unavailable{RetryAfter: time.Second, Reason: "database", Err: err}
		} else if _, away := errors.AsType[*record.Unavailable](err); away {
			err = &record.OutcomeUnknown{Err: err}
		}
		out[i].accepted, out[i].err = a, err
	}
}

// Replay reads the first answer to a submission whose key is there already. It returns record.ErrMismatch when the first
// submission had another fingerprint, and record.ErrNotFound when the key is not there: it may have expired a moment ago. It
// does not need the body, which may be deleted by then. A suppressed recipient that has not changed since the message was
// made was suppressed at acceptance.
//
// The answer must be as durable as the first one: the lock on the key gives the transaction something to commit, see commitSQL.
func (db *DB) Replay(ctx context.Context, s *record.Submission) (record.Accepted, error) {
	const q = `
SELECT k.fingerprint, m.id, coalesce(m.send_at > m.created_at, false), r.email, r.status = 'suppressed' AND r.updated_at = m.created_at
FROM idempotency k
JOIN message m ON m.id = k.message_id
JOIN recipient r ON r.message_id = k.message_id
WHERE k.tenant_id = $1 AND k.key = $2
ORDER BY r.n
FOR KEY SHARE OF k`
	rows := query(ctx, db.accept, q, s.Message.Tenant, s.Key)
	a := record.Accepted{Replayed: true}
	var fingerprint []byte
	var id [16]byte
	var scheduled, suppressed bool
	var email string
	_, err := pgx.ForEachRow(rows, []any{&fingerprint, &id, &scheduled, &email, &suppressed}, func() error {
		a.ID = id
		a.Recipients = append(a.Recipients, record.RecipientStatus{Email: email, Status: firstStatus(scheduled, suppressed)})
		return nil
	})
	switch {
	case err != nil:
		return record.Accepted{}, fmt.Errorf("read idempotency key: %w", unavailable(err))
	case len(a.Recipients) == 0:
		return record.Accepted{}, fmt.Errorf("idempotency key: %w", record.ErrNotFound)
	case !bytes.Equal(fingerprint, s.Fingerprint[:]):
		return record.Accepted{}, record.ErrMismatch
	}
	a.Status = foldAnswer(a.Recipients)
	return a, nil
}

// firstAnswer is the answer to the caller at acceptance.
func firstAnswer(m *mail.Message, suppressed []int16) record.Accepted {
	a := record.Accepted{ID: m.ID}
	scheduled := m.SendAt.After(m.CreatedAt)
	for _, r := range m.Recipients() {
		status := firstStatus(scheduled, slices.Contains(suppressed, int16(r.N))) //nolint:gosec // at most 1000 recipients
		a.Recipients = append(a.Recipients, record.RecipientStatus{Email: r.Address.Email, Status: status})
	}
	a.Status = foldAnswer(a.Recipients)
	return a
}

// firstStatus is the status of a recipient at acceptance.
func firstStatus(scheduled, suppressed bool) mail.Status {
	switch {
	case suppressed:
		return mail.Suppressed
	case scheduled:
		return mail.Scheduled
	}
	return mail.Queued
}

// foldAnswer computes the status of a message from those of its recipients.
func foldAnswer(recipients []record.RecipientStatus) mail.Status {
	all := make([]mail.Status, len(recipients))
	for i, r := range recipients {
		all[i] = r.Status
	}
	return mail.Fold(all)
}

// acceptRows gives the rows of acceptSQL: messages, and their recipients.
func (db *DB) acceptRows(subs []*record.Submission) (*rowset, error) {
	messages, recipients := rowsAs("i", len(subs)), rowsAs("x", len(subs))
	for row, s := range subs {
		m := s.Message
		f := m.Facts()
		f.Content = m.ContentHash()
		facts, err := json.Marshal(f)
		if err != nil {
			return nil, fmt.Errorf("encode facts: %w", err)
		}
		payload, err := json.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("encode message: %w", err)
		}
		messages.row().int("row", row).id("id", m.ID).int("tenant_id", int(m.Tenant)).int("lane", int(s.Lane)).
			text("key", s.Key).bytes("fingerprint", s.Fingerprint[:]).bytes("payload", payload).raw("facts", facts).
			text("stream", m.Stream).text("sender", m.From.Email).text("sender_key", mail.FoldAddress(m.From.Email)).
			text("subject", m.Subject).text("tags", textArray(m.Tags)).text("on_ambiguous", string(m.OnAmbiguous)).
			time("created_at", m.CreatedAt).maybeTime("send_at", m.SendAt).time("expires_at", m.ExpiresAt)
		for _, r := range m.Recipients() {
			recipients.row().int("row", row).small("n", r.N).text("kind", string(r.Kind)).text("name", r.Address.Name).
				text("email", r.Address.Email).text("key", mail.FoldAddress(r.Address.Email)).text("erased", db.erasedHash(mail.FoldAddress(r.Address.Email)))
		}
	}
	return messages.with(recipients), nil
}

// textArray writes a text[] literal: unnest can't carry an array of arrays of different lengths.
func textArray(items []string) string {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	var b strings.Builder
	b.WriteByte('{')
	for i, s := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		_, _ = quote.WriteString(&b, s)
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

// rowFault reports whether parts of a batch may succeed where the whole failed: the database refused it because of one of its
// rows, or it took too long.
func rowFault(err error) bool {
	return errors.Is(err, errLarge) || isCode(err, "22021", "22P05", "22P02", "22001", "22003", "22023", "22P03", "23502", "23503", "23505", "23514", "54000")
}
