package deliver

import (
	"testing"
	"time"
)

func TestRatesCountFromTheReportBefore(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		from, to    time.Time
		before, now float64
		want        float64
	}{
		{at, at.Add(2 * time.Second), 10, 15, 2.5},
		{at, at.Add(time.Second), 10, 10, 0},
		{time.Time{}, at, 0, 1e6, 0},         // the first report
		{at, at, 10, 20, 0},                  // no time passed
		{at, at.Add(time.Second), 100, 3, 3}, // the account was deleted and made again
	} {
		if got := perSecond(c.from, c.to, c.before, c.now); got != c.want {
			t.Errorf("perSecond(%s, %s, %g, %g) = %g, want %g", c.from, c.to, c.before, c.now, got, c.want)
		}
	}
}
