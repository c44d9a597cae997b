package postgres

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
)

// foldSQL says the order of statuses a second time. This holds it to that of mail.Fold, for every pair and for many
// triples.
func TestFoldSQLAgreesWithMailFold(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	all := []mail.Status{
		mail.Scheduled, mail.Queued, mail.Sending, mail.Sent, mail.Delivered, mail.Deferred, mail.Unknown, mail.Failed,
		mail.FailedUnknown, mail.Bounced, mail.Complained, mail.Suppressed, mail.Cancelled, mail.Expired,
	}
	cases := [][]mail.Status{{}}
	for _, x := range all {
		for _, y := range all {
			cases = append(cases, []mail.Status{x, y})
		}
	}
	for range 200 {
		pick := func() mail.Status { return all[rand.IntN(len(all))] }
		cases = append(cases, []mail.Status{pick(), pick(), pick()})
	}
	ids := make([]mail.ID, len(cases))
	var owners [][16]byte
	var ns []int16
	var statuses []string
	for i, c := range cases {
		ids[i] = mail.NewID()
		for n, s := range c {
			owners, ns, statuses = append(owners, ids[i]), append(ns, int16(n)), append(statuses, string(s))
		}
	}
	b.exec(t, `INSERT INTO message (id, tenant_id, status, stream, sender, subject, facts, on_ambiguous, created_at, expires_at, updated_at)
		SELECT id, 1, 'queued', '', '', '', '{}', 'never', now(), now(), now() - interval '1 day' FROM unnest($1::uuid[]) AS id`, rawIDs(ids))
	b.exec(t, `INSERT INTO recipient (message_id, n, tenant_id, kind, email, status, updated_at)
		SELECT id, n, 1, 'to', '', status, now() FROM unnest($1::uuid[], $2::smallint[], $3::text[]) AS i(id, n, status)`, owners, ns, statuses)
	_, err := b.db.engine.Exec(t.Context(), foldSQL, idRows(ids))
	must(t, err)
	for i, c := range cases {
		if got, want := get[string](t, b, `SELECT status FROM message WHERE id = $1`, [16]byte(ids[i])), mail.Fold(c); mail.Status(got) != want {
			t.Errorf("foldSQL(%v) = %s, mail.Fold says %s", c, got, want)
		}
	}
	if n := get[int](t, b, `SELECT count(*) FROM message WHERE updated_at < $1`, time.Now().Add(-time.Hour)); n != 0 {
		t.Errorf("%d messages do not say when they changed", n)
	}
}
