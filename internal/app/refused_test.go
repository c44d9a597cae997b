//go:build drill

package app

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

func TestABreakerOpensOnRepeatedFailuresAndClosesAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	only(t, r, "postmark", "ses")
	b.faults(t, map[string][]emulator.Fault{"postmark": {{Mode: "error", Status: 503}}})
	sent := 0
	eventually(t, settleTime, "the breaker shows as open", func() bool {
		submit(t, r.api, letters(20))
		sent += 20
		b.settle(t, settleTime)
		return code(t, r, "postmark") == "breaker"
	})
	calls := b.emu.Stats()["postmark"].Requests
	submit(t, r.api, letters(20))
	b.settle(t, 20*time.Second)
	if more := b.emu.Stats()["postmark"].Requests - calls; more > 2 {
		t.Errorf("calls through an open breaker = %d, want a probe at most", more)
	}
	if got := b.shares(); got["ses"] != sent+20 {
		t.Errorf("ledger = %v, want all by ses", got)
	}

	b.faults(t, nil)
	id := send(t, r.api, pinned("postmark")) // the probe
	becomes(t, r.api, id, settleTime, "sent")
	eventually(t, settleTime, "the breaker is closed", func() bool { return code(t, r, "postmark") == "" })
}
