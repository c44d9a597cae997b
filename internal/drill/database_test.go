//go:build drill

package drill

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// backAfter notes how long after a moment the first 202 came.
func (r *rig) backAfter(t *testing.T, name string, at time.Time, bound time.Duration) {
	t.Helper()
	must(t, 30*time.Second, "mail is accepted again", func() bool { n, _ := r.clients.acceptedSince(at); return n > 0 })
	_, first := r.clients.acceptedSince(at)
	r.report.figure(name, first.Sub(at), bound)
}

// The database is stopped without a checkpoint, again and again, and recovers from its log.
func TestD05DatabaseIsStoppedImmediately(t *testing.T) {
	drillTest(t, "D05", plan{}, func(t *testing.T, r *rig) {
		r.faults(t, slow())
		stops := 0
		for end := time.Now().Add(*duration); time.Now().Before(end); stops++ {
			r.pg.stopImmediately(t)
			down := time.Now()
			pause(t, 500*time.Millisecond)
			if n := r.clients.askedSince(down); n != 0 {
				t.Errorf("202s while the database is down = %d, want none", n)
			}
			r.pg.start(t)
			r.backAfter(t, fmt.Sprintf("first202_%d", stops+1), time.Now(), 3*time.Second)
			pause(t, 1500*time.Millisecond)
		}
		r.report.tally("stops", stops)
		r.faults(t, nil)
	})
}

// Every process of the database stands still, as when its disk hangs.
func TestD06DatabaseIsFrozen(t *testing.T) {
	drillTest(t, "D06", plan{}, func(t *testing.T, r *rig) {
		thaw := r.pg.freeze(t)
		frozen := time.Now()
		pause(t, max(*duration, 7*time.Second)) // longer than anybody waits
		if n := r.clients.askedSince(frozen); n != 0 {
			t.Errorf("202s while the database stands still = %d, want none", n)
		}
		if r.clients.answers("503") == 0 {
			t.Error("nobody was told 503: the fault was not on")
		}
		for _, x := range r.replicas {
			n := metric(t, x, "go_goroutines")
			r.report.tally(x.name+"_goroutines", n)
			if n > 2000 {
				t.Errorf("goroutines of %s = %.0f: they pile up", x.name, n)
			}
		}
		thaw()
		r.backAfter(t, "first202", time.Now(), 3*time.Second)
		pause(t, 2*time.Second)
	})
}

// One replica loses the database and keeps its providers: it stops sending, and another takes over what it had. Its lease is that
// of a service that nobody tuned.
func TestD08ReplicaIsCutOffFromTheDatabase(t *testing.T) {
	cuts := map[int]*wire{}
	p := plan{settings: []string{"SENDGATE_LEASE=15s"}, dsn: func(t *testing.T, i int, dsn string) string {
		t.Helper()
		cuts[i] = newWire(t, dsn)
		return cuts[i].dsn
	}}
	drillTest(t, "D08", p, func(t *testing.T, r *rig) { r.cutOff(t, cuts[0], true, true) })
}

// The same, with only the answers of the database lost: the replica's statements arrive, and it never learns of it.
func TestD09ReplicaHearsNothingFromTheDatabase(t *testing.T) {
	cuts := map[int]*wire{}
	p := plan{dsn: func(t *testing.T, i int, dsn string) string {
		t.Helper()
		cuts[i] = newWire(t, dsn)
		return cuts[i].dsn
	}}
	drillTest(t, "D09", p, func(t *testing.T, r *rig) { r.cutOff(t, cuts[0], false, true) })
}

// cutOff drops everything on one replica's wire for longer than its lease, and checks that the other takes over.
func (r *rig) cutOff(t *testing.T, w *wire, there, back bool) {
	t.Helper()
	r.faults(t, slow())
	victim := r.replicas[0]
	w.cut(t, there, back)
	began := time.Now()
	must(t, 10*time.Second, "the replica says that it is not ready", func() bool { return !victim.ready(t.Context()) })
	const orphans = `SELECT count(*) FROM inflight f WHERE f.started_at IS NULL
		AND NOT EXISTS (SELECT 1 FROM replica r WHERE r.id = f.owner AND r.lease_until > now())`
	const dead = `SELECT count(*) FROM replica WHERE lease_until > now()`
	must(t, 20*time.Second, "its lease has run out", func() bool { return r.count(t.Context(), dead) == len(r.replicas)-1 })
	must(t, 20*time.Second, "others have what it had not begun", func() bool { return r.count(t.Context(), orphans) == 0 })
	r.report.figure("rescue", time.Since(began), 20*time.Second)
	pause(t, *duration)
	w.proxy.Toxics.ResetToxics(t.Context())
	must(t, 30*time.Second, "the replica is ready again", func() bool { return victim.ready(t.Context()) })
	r.faults(t, nil)
	pause(t, time.Second)
}

// One session of the service is ended by the server every 200 ms.
func TestD10DatabaseSessionsAreKilled(t *testing.T) {
	drillTest(t, "D10", plan{}, func(t *testing.T, r *rig) {
		killed := 0
		for end := time.Now().Add(*duration); time.Now().Before(end) || killed < 5 && time.Since(end) < time.Minute; {
			killed += max(0, r.count(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM (
				SELECT pid FROM pg_stat_activity WHERE application_name = 'sendgate' ORDER BY random() LIMIT 1) s`))
			pause(t, 200*time.Millisecond)
		}
		if killed < 5 {
			t.Errorf("sessions killed = %d: the fault was not on", killed)
		}
		r.report.tally("sessions_killed", killed)
	})
}

// The server has few connections to give, and others hold most of them.
func TestD32ConnectionsOfTheDatabaseRunOut(t *testing.T) {
	p := plan{postgres: map[string]string{"max_connections": "60"}}
	drillTest(t, "D32", p, func(t *testing.T, r *rig) {
		free := holdConnections(t, r.pg, 4)
		r.replicas[1].kill() // whose connections are taken by others before it comes back
		more := holdConnections(t, r.pg, 0)
		r.replicas[1].launch(t)
		pause(t, *duration)
		r.report.tally("connections_held", free.n+more.n)
		free.release()
		more.release()
		must(t, time.Minute, "the replica is ready again", func() bool { return r.replicas[1].ready(t.Context()) })
		r.replicas[1].up.Store(true)
		pause(t, time.Second)
	})
}

// held are connections that somebody else has.
type held struct {
	n       int
	release func()
}

// holdConnections opens all connections that the server allows, except the spare ones, and keeps them.
func holdConnections(t *testing.T, s *server, spare int) held {
	t.Helper()
	var closers []func()
	for len(closers) < 200 {
		c, err := connect(t.Context(), s.dsn)
		if err != nil {
			if !strings.Contains(err.Error(), "53300") {
				t.Fatal(err)
			}
			break
		}
		closers = append(closers, c)
	}
	if len(closers) == 0 {
		t.Fatal("there was no connection to take: the fault can't be put on")
	}
	for range min(spare, len(closers)-1) {
		closers[len(closers)-1]()
		closers = closers[:len(closers)-1]
	}
	release := sync.OnceFunc(func() {
		for _, c := range closers {
			c()
		}
	})
	t.Cleanup(release)
	return held{len(closers), release}
}
