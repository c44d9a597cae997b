package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sendgate/sendgate/internal/record"
)

func TestReadinessDoubtsADatabaseThatStoredNothing(t *testing.T) {
	t.Parallel()
	full := &record.Unavailable{Reason: "storage_full", Err: &pgconn.PgError{Code: "53100", Message: "disk full"}}
	readOnly := fmt.Errorf("accept: %w", &record.Unavailable{Reason: "database", Err: &pgconn.PgError{Code: "25006"}})
	slow := &record.Unavailable{Reason: "database", Err: context.DeadlineExceeded}
	works := func(context.Context) error { return nil }
	broken := func(context.Context) error { return errors.New("probe: disk full") }
	unasked := func(context.Context) error { t.Error("probed without a doubt"); return nil }
	for _, tc := range []struct {
		name    string
		results []error // of messages, in order
		after   time.Duration
		probe   func(context.Context) error
		ready   bool
	}{
		{"nothing happened", nil, 0, unasked, true},
		{"it was stored", []error{nil}, 0, unasked, true},
		{"full", []error{full}, 0, works, false},
		{"full a moment ago, and a probe fits", []error{full}, fullFor - time.Second, works, false},
		{"full, and a probe fits later", []error{full}, fullFor, works, true},
		{"full, and a probe does not fit", []error{full}, time.Hour, broken, false},
		{"full, and the next message fits", []error{full, nil}, 0, unasked, true},
		{"read-only", []error{readOnly}, 0, works, false},
		{"slow, but it writes", []error{slow}, 0, works, true},
		{"slow, and it does not", []error{slow}, 0, broken, false},
		{"an error of any other kind, and it does not write", []error{errors.New("permission denied")}, 0, broken, false},
		{"a key that was used before", []error{record.ErrMismatch, record.ErrConflict}, 0, unasked, true},
		{"our own queue was full", []error{&record.Unavailable{Reason: "queue_full"}}, 0, unasked, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := &writes{}
			for _, err := range tc.results {
				w.note(record.Accepted{}, err)
			}
			time.Sleep(tc.after)
			if err := w.check(t.Context(), tc.probe); (err == nil) != tc.ready {
				t.Errorf("%s: %v, want ready %t", tc.name, err, tc.ready)
			}
			if tc.ready && w.doubt != nil {
				t.Errorf("%s: the doubt stayed", tc.name)
			}
		})
	}
	w := &writes{}
	w.note(record.Accepted{}, full)
	w.note(record.Accepted{Replayed: true}, nil)
	if w.doubt == nil {
		t.Error("an answer that was repeated from before ended the doubt: it stored nothing")
	}
}

// A database without disk space still answers all queries. Load balancers that use readiness must see it, and hear when it is
// over, though no message comes meanwhile.
func TestFullDatabaseIsNotReady(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r, err := b.startWith(t, func(a *App) { a.writes.hold = 500 * time.Millisecond })
	if err != nil {
		t.Fatal(err)
	}
	do := func(sql string) {
		t.Helper()
		if _, err := b.rows.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	do(`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
CREATE FUNCTION full_disk_too() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON message FOR EACH STATEMENT EXECUTE FUNCTION full_disk();
CREATE EVENT TRIGGER full_disk_too ON ddl_command_start WHEN TAG IN ('CREATE TABLE AS') EXECUTE FUNCTION full_disk_too()`)
	if status, line := b.get(t, r.ops+"/readyz"); status != http.StatusOK {
		t.Errorf("nobody has noticed yet: /readyz is %d %q", status, line)
	}
	_, err = r.api.Send(t.Context(), letter(1), "")
	wantProblem(t, "send to a full database", err, http.StatusServiceUnavailable)
	if status, line := b.get(t, r.ops+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(line, "stores nothing") || !strings.Contains(line, "space left") {
		t.Errorf("/readyz is %d %q, want a full disk as its reason", status, line)
	}
	do(`DROP TRIGGER full_disk ON message; DROP EVENT TRIGGER full_disk_too`)
	eventually(t, settleTime, "it is ready again by itself", func() bool { return r.ready(t.Context(), b.http) })
	send(t, r.api, letter(2))
	if n := b.count(t.Context(), `SELECT count(*) FROM pg_class WHERE relname LIKE 'sendgate_probe%'`); n != 0 {
		t.Errorf("%d tables of probes are left", n)
	}
}
