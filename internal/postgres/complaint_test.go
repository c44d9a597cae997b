package postgres

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// Whoever may not lift a complaint lifts nothing where there is one in force.
func TestComplaintIsLiftedOnlyByWhomMay(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	add := func(email, stream, reason string, expires time.Time) {
		t.Helper()
		must(t, b.db.Suppress(ctx, record.Suppression{Tenant: 1, Email: email, Stream: stream, Reason: reason, Origin: "api", ExpiresAt: expires}))
	}
	never := time.Time{}
	add("ann@example.org", "", "complaint", never)
	add("ann@example.org", "news", "unsubscribe", never)
	if err := b.db.Unsuppress(ctx, "tester", 1, "Ann@example.org", false); !errors.Is(err, record.ErrForbidden) {
		t.Errorf("all of an address that complained: %v, want ErrForbidden", err)
	}
	if got := len(b.suppressed(t, record.Suppression{})); got != 2 {
		t.Errorf("left after a refusal = %d, want both", got)
	}
	must(t, b.db.Unsuppress(ctx, "tester", 1, "ann@example.org", false, "news"))
	if err := b.db.Unsuppress(ctx, "tester", 1, "ann@example.org", false, ""); !errors.Is(err, record.ErrForbidden) {
		t.Errorf("the complaint: %v, want ErrForbidden", err)
	}
	if err := b.db.Unsuppress(ctx, "tester", 1, "bob@example.org", false); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("an address without any: %v, want ErrNotFound", err)
	}
	must(t, b.db.Unsuppress(ctx, "tester", 1, "ann@example.org", true))
	add("cy@example.org", "", "complaint", time.Now().Add(-time.Hour))
	must(t, b.db.Unsuppress(ctx, "tester", 1, "cy@example.org", false)) // it is over
}

func TestListedKeysAreThoseThatAreGood(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	for id, expires := range map[string]time.Time{"0000000a": {}, "0000000b": time.Now().Add(time.Hour), "0000000c": time.Now().Add(-time.Hour), "0000000d": {}} {
		must(t, b.db.CreateKey(ctx, "ops", record.Key{ID: id, Tenant: 1, Name: "k", Hash: make([]byte, 32), Scopes: []record.Scope{record.ScopeSend}, ExpiresAt: expires}))
	}
	must(t, b.db.RevokeKey(ctx, "ops", "0000000d"))
	ids, err := b.db.KeyIDs(ctx)
	must(t, err)
	slices.Sort(ids)
	if !slices.Equal(ids, []string{"0000000a", "0000000b"}) {
		t.Errorf("ids = %v, want those neither revoked nor expired", ids)
	}
}

// Nothing that a key may add over a complaint makes it easier to lift, whatever reason it names and however long it is to last.
func TestNothingIsAddedOverAComplaint(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	soon, later := time.Now().Add(time.Minute), time.Now().Add(1000*time.Hour)
	for _, first := range []record.Suppression{{}, {ExpiresAt: later}} {
		for _, over := range []record.Suppression{
			{Reason: "manual"},
			{Reason: "unsubscribe"},
			{Reason: "hard_bounce"},
			{Reason: "manual", ExpiresAt: soon},
			{Reason: "complaint", ExpiresAt: soon},
			{Reason: "manual", ExpiresAt: later.Add(time.Hour)},
		} {
			for way, add := range map[string]func(record.Suppression) error{
				"added": func(s record.Suppression) error { return b.db.Suppress(ctx, s) },
				"imported": func(s record.Suppression) error {
					_, err := b.db.ImportSuppressions(ctx, 1, []record.Suppression{s})
					return err
				},
			} {
				b.exec(t, `DELETE FROM suppression`)
				first.Tenant, first.Email, first.Reason, first.Origin = 1, "ann@example.org", "complaint", "api"
				must(t, b.db.Suppress(ctx, first))
				over.Tenant, over.Email, over.Origin = 1, "ANN@example.org", "api"
				must(t, add(over))
				if err := b.db.Unsuppress(ctx, "tester", 1, "ann@example.org", false); !errors.Is(err, record.ErrForbidden) {
					t.Errorf("%s over a complaint until %s: %s until %s: lifting it = %v, want ErrForbidden", way, first.ExpiresAt, over.Reason, over.ExpiresAt, err)
				}
				b.exec(t, `UPDATE suppression SET expires_at = expires_at - interval '2 minutes'`)
				if got := len(b.suppressed(t, record.Suppression{})); got != 1 {
					t.Errorf("%s over a complaint until %s: %s until %s: %d are left after two minutes", way, first.ExpiresAt, over.Reason, over.ExpiresAt, got)
				}
			}
		}
	}
}
