//go:build drill

package drill

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// report is what a drill has to say at its end.
type report struct {
	id       string
	accepted int
	lost     int
	twins    int // all, those that a policy allows included
	unknown  int
	p99      time.Duration
	heal     time.Duration
	figures  []string
	over     []string // figures beyond their bounds
}

// figure adds a measured value. A bound of 0 means none; a value beyond its bound is printed with the bound.
func (r *report) figure(name string, d, bound time.Duration) {
	text := fmt.Sprintf("%s=%s", name, round(d))
	if bound > 0 && d > bound {
		text += fmt.Sprintf("(over %s)", round(bound))
		r.over = append(r.over, text)
	}
	r.figures = append(r.figures, text)
}

// size adds a measured number of bytes with its bound.
func (r *report) size(name string, bytes, bound int64) {
	text := fmt.Sprintf("%s=%dMB", name, bytes>>20)
	if bytes > bound {
		text += fmt.Sprintf("(over %dMB)", bound>>20)
		r.over = append(r.over, text)
	}
	r.figures = append(r.figures, text)
}

// tally adds something counted.
func (r *report) tally(name string, n any) {
	r.figures = append(r.figures, fmt.Sprintf("%s=%v", name, n))
}

func round(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second:
		return d.Round(time.Second)
	case d > time.Second:
		return d.Round(100 * time.Millisecond)
	case d < 20*time.Millisecond:
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// line is the last line of the drill.
func (r *report) line(passed bool) string {
	verdict := "PASS"
	if !passed {
		verdict = "FAIL"
	}
	words := []string{fmt.Sprintf("drill=%s seed=%d accepted=%d lost=%d twins=%d unknown=%d p99_accept=%s heal=%s",
		r.id, *seedFlag, r.accepted, r.lost, r.twins, r.unknown, round(r.p99), round(r.heal))}
	return strings.Join(append(append(words, r.figures...), verdict), " ")
}

// conclude prints the result, however the drill ended.
func (r *rig) conclude(t *testing.T) {
	if *strict {
		for _, f := range r.report.over {
			t.Errorf("beyond its bound: %s", f)
		}
	}
	if t.Failed() {
		for _, x := range r.replicas {
			t.Logf("the end of the log of %s:\n%s", x.name, x.tail())
		}
	}
	line := r.report.line(!t.Failed())
	t.Log(line)
	enterTable(line)
}

// complaints are findings of one kind; a few of them are enough to read.
type complaints struct {
	what string
	ids  []string
}

func (c *complaints) add(format string, args ...any) {
	c.ids = append(c.ids, fmt.Sprintf(format, args...))
}

func (c *complaints) fail(t *testing.T) {
	t.Helper()
	if len(c.ids) > 0 {
		slices.Sort(c.ids)
		t.Errorf("%d %s: %s", len(c.ids), c.what, strings.Join(c.ids[:min(5, len(c.ids))], "; "))
	}
}
