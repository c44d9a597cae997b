package ses

import (
	"fmt"
	"strings"
	"testing"
)

// TestCrowdedRecordCostsNoMoreThanItsLength counts allocations, which the load of the machine does not change. Somebody who may
// publish to the topic must not be able to use seconds of our processor with a record of 256 kB.
func TestCrowdedRecordCostsNoMoreThanItsLength(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts those of all goroutines
	cost := func(n int) float64 {
		var to, bounced []string // none of whom is among the others
		for i := range n {
			to = append(to, fmt.Sprintf(`"to%d@EXAMPLE.org"`, i))
			bounced = append(bounced, fmt.Sprintf(`{"emailAddress":"Other%d@Example.com"}`, i))
		}
		raw := fmt.Appendf(nil, `{"eventType":"Bounce","mail":{"destination":[%s]},"bounce":{"bouncedRecipients":[%s]}}`,
			strings.Join(to, ","), strings.Join(bounced, ","))
		if got := len(parse(raw)); got != n {
			t.Fatalf("events = %d, want %d", got, n)
		}
		return testing.AllocsPerRun(2, func() { parse(raw) })
	}
	if few, many := cost(100), cost(800); many > 12*few {
		t.Errorf("allocations = %.0f for 100 recipients and %.0f for 800, want 8 times as many", few, many)
	}
}
