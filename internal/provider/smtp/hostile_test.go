package smtp

import (
	"bytes"
	"strings"
	"testing"
)

// TestHostileReportCostsNoMoreThanItsLength counts allocations, which the load of the machine does not change. Anyone who got
// a message knows a bounce address.
func TestHostileReportCostsNoMoreThanItsLength(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts those of all goroutines
	c := verpClient(t)
	cost := func(groups, want int) float64 {
		var b bytes.Buffer
		b.WriteString("From: MAILER-DAEMON@example.net\nContent-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n")
		b.WriteString(strings.Repeat("Action: failed\n\n", groups))
		b.WriteString("--b\nContent-Type: message/rfc822\n\nTo: " + strings.Repeat("ann@example.org, ", 400) + "bob@example.org\n\n--b--\n")
		raw := b.Bytes()
		if got := len(c.Parse(raw)); got != want {
			t.Fatalf("events of %d groups = %d, want %d", groups, got, want)
		}
		return testing.AllocsPerRun(2, func() { c.Parse(raw) })
	}
	one, most, more := cost(1, 1), cost(maxReported, maxSettled), cost(15*maxReported, maxSettled)
	if most > one+300*maxReported {
		t.Errorf("allocations = %.0f for one group and %.0f for %d: the returned message is read for each", one, most, maxReported)
	}
	if more > 1.5*most {
		t.Errorf("allocations = %.0f for %d groups and %.0f for 15 times as many: those beyond the cap are read", most, maxReported, more)
	}
}
