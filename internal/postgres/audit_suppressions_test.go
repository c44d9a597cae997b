package postgres

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/record"
)

// Whatever a key does to suppressions is in the audit, and what the events do is not. A complaint that was lifted is told as one.
func TestAuditHasWhatKeysDoToSuppressions(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	add := func(email, reason, by string) {
		t.Helper()
		must(t, b.db.Suppress(ctx, record.Suppression{Tenant: 1, Email: email, Reason: reason, Origin: "api", By: by}))
	}
	add("Ann@Example.org", "complaint", "key-1")
	add("ann@example.org", "complaint", "key-2") // changes nothing
	add("bob@example.org", "unsubscribe", "")
	_, err := b.db.ImportSuppressions(ctx, 1, []record.Suppression{
		{Email: "ann@example.org", Reason: "manual", Origin: "import", By: "key-3"}, {Email: "cy@example.org", Reason: "manual", Origin: "import"},
	})
	must(t, err)
	if err := b.db.Unsuppress(ctx, "key-4", 1, "ann@example.org", false); !errors.Is(err, record.ErrForbidden) {
		t.Fatal(err)
	}
	must(t, b.db.Unsuppress(ctx, "key-5", 1, "ann@example.org", true))
	must(t, b.db.Unsuppress(ctx, "key-5", 1, "bob@example.org", false))
	entries, err := b.db.Audit(ctx, record.AuditFilter{Action: "suppression", Limit: 20})
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Actor+" "+e.Action+" "+e.Target+" "+string(e.Detail))
	}
	want := []string{
		`key-5 suppression.delete b***@example.org {"lifted": [{"reason": "unsubscribe", "stream": ""}], "tenant": 1, "complaint": false}`,
		`key-5 suppression.delete a***@example.org {"lifted": [{"reason": "complaint", "stream": ""}], "tenant": 1, "complaint": true}`,
		`key-3 suppression.import  {"rows": 2, "added": 1, "tenant": 1}`,
		`key-1 suppression.create a***@example.org {"reason": "complaint", "stream": "", "tenant": 1}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
	entries, err = b.db.Audit(ctx, record.AuditFilter{Target: "Bob@example.org", Limit: 20})
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("entries of an address = %+v, want one", entries)
	}
}

func TestFailedLoginsAreKeptUpToABound(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	must(t, b.db.NoteFailedLogins(ctx, []record.FailedLogins{{From: "192.0.2.1/32", Since: time.Unix(0, 0).UTC(), Keys: 3, Links: 1}}))
	entries, err := b.db.Audit(ctx, record.AuditFilter{Actor: "stranger", Action: "login", Target: "192.0.2.1/32", Limit: 20})
	must(t, err)
	if len(entries) != 1 || string(entries[0].Detail) != `{"keys": 3, "since": "1970-01-01T00:00:00Z", "unsubscribe_links": 1}` {
		t.Errorf("entries = %+v, want one with both counts", entries)
	}
	b.exec(t, `INSERT INTO audit (actor, action, target) SELECT 'stranger', 'login.failed', '' FROM generate_series(1, 20010)`)
	_, err = b.db.Sweep(ctx)
	must(t, err)
	if n := get[int](t, b, `SELECT count(*) FROM audit WHERE action = 'login.failed'`); n != 20000 {
		t.Errorf("%d entries of failed logins are left, want 20000", n)
	}
}
