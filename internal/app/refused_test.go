//go:build drill

package app

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
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
	eventually(t, settleTime, "the queue tells of the breaker and of what others send", func() bool {
		submit(t, r.api, letters(1))
		sent++
		q, err := r.admin.Queue(t.Context())
		if err != nil || len(q.Replicas) != 1 {
			t.Fatalf("queue = %+v, %v", q, err)
		}
		told := map[string]api.ReplicaAccount{}
		for _, a := range q.Replicas[0].Accounts {
			told[a.Account] = a
		}
		return told["postmark"].Breaker != "closed" && told["ses"].SentPerSecond > 0 && q.Replicas[0].AcceptedPerSecond > 0
	})
	b.settle(t, settleTime)
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
