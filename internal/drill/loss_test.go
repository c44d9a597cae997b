//go:build drill

package drill

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// More and more packets between the processes and the database are lost. Mail is accepted and sent more slowly, the number of
// connections stays bounded, and nothing is lost or mailed twice.
func TestD11PacketsAreLost(t *testing.T) {
	if os.Getenv(insideKey) == "" {
		runInNetwork(t, "D11")
		return
	}
	var ports []string
	p := plan{dsn: func(t *testing.T, _ int, dsn string) string {
		t.Helper()
		w := newWire(t, dsn)
		ports = append(ports, portOf(t, w.dsn))
		return w.dsn
	}}
	drillTest(t, "D11", p, func(t *testing.T, r *rig) {
		before := r.connections(t)
		for _, percent := range []int{5, 15, 30} {
			mend := losePackets(t, ports, percent)
			began := time.Now()
			pause(t, *duration/2)
			name := fmt.Sprintf("at_%d_percent", percent)
			accepted, _ := r.clients.acceptedSince(began)
			r.report.tally("accepted_"+name, accepted)
			if accepted == 0 {
				t.Errorf("202s while %d %% of all packets are lost = 0, want some", percent)
			}
			if n := r.connections(t); n > 2*before+10 {
				t.Errorf("connections to the database = %d with %d %% of all packets lost, %d before", n, percent, before)
			}
			lost := mend()
			r.report.tally("lost_packets_"+name, lost)
			if lost < 20 {
				t.Errorf("packets lost = %d at %d %%: the fault was not on", lost, percent)
			}
		}
		r.backAfter(t, "first202", time.Now(), 3*time.Second)
		for _, x := range r.replicas {
			must(t, 30*time.Second, x.name+" is ready", func() bool { return x.ready(t.Context()) })
		}
		pause(t, time.Second)
	})
}

func (r *rig) connections(t *testing.T) int {
	t.Helper()
	return r.count(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sendgate'`)
}

func portOf(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// insideKey is set in the environment of a drill that runs in a network of its own.
const insideKey = "SENDGATE_DRILL_INSIDE"

// runInNetwork runs one drill in a process of its own, in a network namespace that holds a loopback and nothing else, so that
// packets can be dropped in it that are nobody else's. It ends with the process.
func runInNetwork(t *testing.T, id string) {
	t.Helper()
	t.Parallel()
	enter := []string{"unshare", "--net", "--", "sh", "-c", `ip link set lo up && exec "$@"`, "sh"}
	try := exec.CommandContext(t.Context(), enter[0], append(enter[1:], "nft", "list", "ruleset")...) //nolint:gosec // our own words
	if out, err := try.CombinedOutput(); err != nil {
		t.Skipf("needs root, unshare, ip and nft, to lose packets in a network of its own: %v %s", err, strings.TrimSpace(string(out)))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	words := append(enter[1:], self, "-test.run", "^"+regexp.QuoteMeta(t.Name())+"$", "-test.v", "-test.timeout", "0", //nolint:gocritic // enter is ours
		"-seed", strconv.FormatUint(*seedFlag, 10), "-duration", duration.String(), "-rate", strconv.Itoa(*rate), fmt.Sprintf("-strict=%t", *strict))
	cmd := exec.CommandContext(t.Context(), enter[0], words...) //nolint:gosec // this program
	cmd.Env = append(os.Environ(), insideKey+"=1")
	cmd.SysProcAttr = dies()
	out, err := cmd.CombinedOutput()
	line := regexp.MustCompile(`(?m)^drill=` + id + ` .*$`).Find(out)
	if err != nil || line == nil {
		t.Errorf("%s in a network of its own: %v\n%s", id, err, out)
	}
	if line != nil {
		enterTable(string(line))
	}
}

// losePackets drops a share of all packets from and to the ports until mend is called, which returns their number.
func losePackets(t *testing.T, ports []string, percent int) (mend func() int) {
	t.Helper()
	set := "{ " + strings.Join(ports, ", ") + " }"
	nft(t, "add", "table", "inet", "drill")
	nft(t, "add", "chain", "inet", "drill", "out", "{ type filter hook output priority 0; }")
	for _, side := range []string{"dport", "sport"} {
		nft(t, "add", "rule", "inet", "drill", "out", fmt.Sprintf("tcp %s %s numgen random mod 100 < %d counter drop", side, set, percent))
	}
	return func() int {
		lost := 0
		for _, m := range regexp.MustCompile(`counter packets (\d+)`).FindAllStringSubmatch(nft(t, "list", "table", "inet", "drill"), -1) {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			lost += n
		}
		nft(t, "delete", "table", "inet", "drill")
		return lost
	}
}

func nft(t *testing.T, words ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nft", words...).CombinedOutput() //nolint:gosec // our own words
	if err != nil {
		t.Fatalf("nft %s: %v\n%s", strings.Join(words, " "), err, out)
	}
	return string(out)
}
