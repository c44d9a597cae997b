//go:build drill

package postgres

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/internal/devpg"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// newServer is a bed on a server of its own, whose commits wait for the standbys that its function names.
func newServer(t *testing.T) (b *bed, standbys func(names string)) {
	t.Helper()
	cluster, err := devpg.Start(t.Context(), devpg.Options{Dir: t.TempDir(), Fast: true, Settings: map[string]string{"synchronous_commit": "on"}})
	must(t, err)
	t.Cleanup(func() { _ = cluster.Stop() })
	must(t, Migrate(t.Context(), cluster.URL(), io.Discard))
	b = &bed{url: cluster.URL()}
	b.sql, err = pgxpool.New(t.Context(), b.url)
	must(t, err)
	t.Cleanup(b.sql.Close)
	b.db = b.open(t, Options{AcceptWait: patient})
	return b, func(names string) {
		b.exec(t, `ALTER SYSTEM SET synchronous_standby_names = '`+names+`'`)
		b.exec(t, `SELECT pg_reload_conf()`)
		// One process of the server tells the others of the setting, some time after it was read.
		until(t, "commits wait for "+names, func() bool {
			return (b.untilItWaits(t, func(ctx context.Context) error {
				_, err := b.sql.Exec(ctx, commitSQL)
				return err
			}) == nil) == (names == "")
		})
	}
}

// untilItWaits does something until it is done or waits for a standby, which is then given up.
func (b *bed) untilItWaits(t *testing.T, do func(context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	waits := func() bool {
		return get[bool](t, b, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')`)
	}
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	var err error
	returned := false
	until(t, "it returns, or waits for a standby", func() bool {
		select {
		case err = <-done:
			returned = true
		default:
		}
		return returned || waits()
	})
	if returned {
		return err
	}
	cancel()
	err = <-done
	until(t, "nobody waits for a standby any more", func() bool { return !waits() })
	return err
}

func TestNothingIsDoneUntilTheStandbyHasIt(t *testing.T) {
	t.Parallel()
	b, standbys := newServer(t) // dear, hence one for both
	// While no standby has the commit, nobody knows whether it outlives the primary.
	db := b.open(t, Options{AcceptWait: hasty})
	db.commitGrace = 2 * hasty
	standbys("nobody")
	asleep := func() bool {
		return get[bool](t, b, `SELECT EXISTS (SELECT FROM message)`) // seen once the wait for the standby was given up
	}
	if err := acceptUntil(t, db, plain, asleep); !isUnknown(err) {
		t.Errorf("told %v, want that nobody knows", err)
	}
	standbys("")
	b.exec(t, `DELETE FROM ready`)
	repeatedWaits(t, b, standbys)
}

// A commit that no standby has is seen by everybody once the wait for them was given up. Whoever finds its work done by it
// must wait for them as well before it says so: a caller, a provider and an engine all come again, and then forget.
func repeatedWaits(t *testing.T, b *bed, standbys func(names string)) {
	t.Helper()
	f := b.fly(t, submission())
	s := keyed("k")
	for _, tc := range []struct {
		what string
		do   func(context.Context) error
		seen string // counts what it wrote
	}{
		{"a submission", func(ctx context.Context) error {
			out, err := b.db.acceptOnce(ctx, []offer{{s, time.Now().Add(patient)}})
			if err == nil {
				err = out[0].err
			}
			return err
		}, `SELECT count(*) FROM idempotency`},
		{"events", func(ctx context.Context) error {
			_, err := b.db.intakeOnce(ctx, []record.Intake{hook(f.account, told(f.id, mail.EventDelivered, "ann@example.org", 1))})
			return err
		}, `SELECT count(*) FROM event_key`},
		{"a result", func(ctx context.Context) error {
			_, err := b.db.recordOnce(ctx, []ownedResult{{sent(f.due), f.owner}})
			return err
		}, `SELECT count(*) FROM attempt WHERE finished_at IS NOT NULL`},
	} {
		standbys("nobody")
		if err := b.untilItWaits(t, tc.do); err == nil {
			t.Errorf("%s: said to be kept, and no standby has it", tc.what)
		}
		until(t, tc.what+" is seen by everybody", func() bool { return get[int](t, b, tc.seen) > 0 })
		if err := b.untilItWaits(t, tc.do); err == nil {
			t.Errorf("%s, again: said to be kept, and no standby has it", tc.what)
		}
		standbys("")
		must(t, tc.do(t.Context()))
	}
}
