//go:build drill

package drill

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// D50 to D58 are the nine cells of faults and pressure of a public benchmark of queues on PostgreSQL:
// https://github.com/hardbyte/postgresql-job-queue-benchmarking, results/2026-05-09-full-sweep, phases B and C. Each comment
// below names its cell there. That benchmark offers a fixed rate, which most queues carry with ease, and holds a fault for one
// to five minutes. Here a backlog stands all the time, so the replicas send as fast as they can, and -duration says how long
// the fault is on. The speed is compared with that before the fault. Afterwards everything has to end.

// chaos_crash_recovery: one of two workers is killed, stays away for a minute, and comes back.
func TestD50OneOfTwoIsKilled(t *testing.T) {
	cellDrill(t, cell{id: "D50", after: 90}, func(t *testing.T, s *standing, on time.Duration) {
		victim := s.rig.replicas[0]
		victim.kill()
		pause(t, on)
		victim.start(t)
	})
}

// chaos_postgres_restart: the database is stopped for half of the time.
func TestD51DatabaseIsRestarted(t *testing.T) {
	cellDrill(t, cell{id: "D51", after: 90}, func(t *testing.T, s *standing, on time.Duration) {
		pg := s.rig.pg
		if err := pg.cluster.Stop(); err != nil {
			t.Fatal(err)
		}
		down := time.Now()
		pause(t, on/2)
		if n := s.rig.clients.askedSince(down); n != 0 {
			t.Errorf("202s while the database is down = %d, want none", n)
		}
		pg.start(t)
		pause(t, on/2)
	})
}

// chaos_repeated_kills: one of two workers is killed every 20 s, and is back a second later.
func TestD52OneOfTwoIsKilledAgainAndAgain(t *testing.T) {
	cellDrill(t, cell{id: "D52", after: 90}, func(t *testing.T, s *standing, on time.Duration) {
		victim, kills := s.rig.replicas[0], 0
		for end := time.Now().Add(on); time.Now().Before(end) || kills < 2; kills++ {
			pause(t, min(on/6, 20*time.Second))
			victim.kill()
			pause(t, time.Second)
			victim.start(t)
		}
		s.rig.report.tally("kills", kills)
	})
}

// chaos_pg_backend_kill: all sessions of the service that are in a transaction are ended twice a second.
func TestD53ActiveSessionsAreKilled(t *testing.T) {
	cellDrill(t, cell{id: "D53", after: 90}, func(t *testing.T, s *standing, on time.Duration) {
		killed := 0
		for end := time.Now().Add(on); time.Now().Before(end) || killed < 5 && time.Since(end) < time.Minute; {
			killed += max(0, s.rig.count(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
				WHERE application_name = 'sendgate' AND state IN ('active', 'idle in transaction')`))
			pause(t, 500*time.Millisecond)
		}
		if killed < 5 {
			t.Errorf("sessions killed = %d: the fault was not on", killed)
		}
		s.rig.report.tally("sessions_killed", killed)
	})
}

// chaos_pool_exhaustion: others hold 300 of 400 connections. Here they hold all that the replicas have not got.
func TestD54OthersHoldAllConnections(t *testing.T) {
	few := map[string]string{"max_connections": "60"}
	cellDrill(t, cell{id: "D54", postgres: few, under: 75, after: 90}, func(t *testing.T, s *standing, on time.Duration) {
		others := holdConnections(t, s.rig.pg, 0)
		defer others.release()
		pause(t, on)
		s.rig.report.tally("connections_held", others.n)
	})
}

// idle_in_tx: a session has written something and does not end its transaction, so no dead row can be removed.
func TestD55SessionIsIdleInTransaction(t *testing.T) {
	cellDrill(t, cell{id: "D55", under: 75, after: 90}, func(t *testing.T, s *standing, on time.Duration) {
		tx := begin(t, s.rig, pgx.ReadCommitted)
		defer func() { _ = tx.Rollback(t.Context()) }()
		if _, err := tx.Exec(t.Context(), `SELECT txid_current()`); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(on); time.Now().Before(end) || s.rig.heldBack(t, tx) < enoughHeldBack && time.Since(end) < time.Minute; {
			pause(t, 500*time.Millisecond)
		}
		s.rig.checkHeldBack(t, tx)
	})
}

// active_readers: four sessions count the rows of the queue again and again, each in one long snapshot.
func TestD56ReadersScanTheQueue(t *testing.T) {
	cellDrill(t, cell{id: "D56", under: 75, after: 90}, func(t *testing.T, s *standing, on time.Duration) {
		ctx, stop := context.WithTimeout(t.Context(), on)
		defer stop()
		var scans atomic.Int64
		done := make(chan struct{})
		const readers = 4
		var last pgx.Tx
		for range readers {
			tx := begin(t, s.rig, pgx.RepeatableRead)
			defer func() { _ = tx.Rollback(t.Context()) }()
			last = tx
			go func() {
				defer func() { done <- struct{}{} }()
				for ctx.Err() == nil {
					var n int
					err := tx.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM ready) + (SELECT count(*) FROM inflight)`).Scan(&n)
					if err != nil {
						t.Errorf("scan the queue: %v", err)
						return
					}
					scans.Add(1)
					sleep(ctx, 100*time.Millisecond)
				}
			}()
		}
		for range readers {
			<-done
		}
		if scans.Load() < 2*readers {
			t.Errorf("scans = %d by %d readers: the fault was not on", scans.Load(), readers)
		}
		s.rig.report.tally("scans", scans.Load())
		s.rig.checkHeldBack(t, last)
	})
}

// sustained_high_load: half as much again comes in as is sent.
func TestD57MoreComesInThanIsSent(t *testing.T) {
	cellDrill(t, cell{id: "D57", comes: true, after: 90}, func(t *testing.T, s *standing, on time.Duration) {
		s.offer(t, on, 1.5*s.calm)
	})
}

// event_burst: a queue fills for minutes, and then drains. Here callers offer as much as they can.
func TestD58ABurstComesIn(t *testing.T) {
	cellDrill(t, cell{id: "D58", comes: true, after: 90}, func(t *testing.T, s *standing, on time.Duration) {
		s.offer(t, on, 0)
	})
}

// begin begins a transaction that the server does not end by itself, on a connection of its own, which ends with the drill.
func begin(t *testing.T, r *rig, level pgx.TxIsoLevel) pgx.Tx {
	t.Helper()
	c, err := pgx.Connect(t.Context(), r.dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	tx, err := c.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: level})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SET LOCAL idle_in_transaction_session_timeout = 0`); err != nil {
		t.Fatal(err)
	}
	return tx
}

// enoughHeldBack is the number of transactions since one that is open that shows that it holds back the removal of dead rows.
const enoughHeldBack = 100

// heldBack is the number of transactions since one that is open.
func (r *rig) heldBack(t *testing.T, tx pgx.Tx) int {
	t.Helper()
	return r.number(t, `SELECT coalesce(greatest(age(backend_xmin), age(backend_xid)), 0) FROM pg_stat_activity WHERE pid = $1`,
		int(tx.Conn().PgConn().PID()))
}

// checkHeldBack notes how much an open transaction holds back.
func (r *rig) checkHeldBack(t *testing.T, tx pgx.Tx) {
	t.Helper()
	since := r.heldBack(t, tx)
	if since < enoughHeldBack {
		t.Errorf("transactions since the one that is open = %d: it holds nothing back", since)
	}
	r.report.tally("transactions_held_back", since)
	for _, table := range []string{"ready", "inflight", "rate_window"} {
		r.report.tally("dead_"+table, r.number(t, `SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = $1`, table))
	}
}
