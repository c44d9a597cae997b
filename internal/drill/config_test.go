//go:build drill

package drill

import (
	"strings"
	"testing"
	"time"
)

// Two processes on one database can't have different limits, weights or accounts, because these are in the database. A
// process with another secret key does not start, because no other process could decrypt its credentials. A process with
// another lease counts as dead when its own lease has run out.
func TestD42ConfigurationsDiffer(t *testing.T) {
	drillTest(t, "D42", plan{}, func(t *testing.T, r *rig) {
		x := r.replicas[1]
		right := x.env
		x.kill()
		x.env = replaced(right, "SENDGATE_SECRET_KEY=", strings.Repeat("e8", 32))
		x.up.Store(false)
		x.launch(t)
		select {
		case <-x.done:
		case <-time.After(30 * time.Second):
			t.Fatalf("a process with another secret key goes on\n%s", x.tail())
		}
		if x.err == nil || !strings.Contains(x.tail(), "give all of them one key") {
			t.Errorf("it ended with %v, and says\n%s", x.err, x.tail())
		}
		x.env = replaced(right, "SENDGATE_LEASE=", "9s")
		x.start(t)
		pause(t, *duration/2)
		if n := r.number(t, `SELECT count(*) FROM replica WHERE lease_until > clock_timestamp() + interval '6 s'`); n != 1 {
			t.Errorf("leases of more than five seconds = %d, want one", n)
		}
		x.kill()
		x.env = right
		pause(t, *duration)
		x.start(t)
	})
}

// replaced returns an environment with one variable changed.
func replaced(env []string, prefix, value string) []string {
	changed := make([]string, len(env))
	for i, v := range env {
		if changed[i] = v; strings.HasPrefix(v, prefix) {
			changed[i] = prefix + value
		}
	}
	return changed
}
