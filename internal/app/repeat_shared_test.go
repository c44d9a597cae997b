//go:build drill

package app

import (
	"fmt"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// A provider that knows messages by their keys knows none of those that shared a call. Such a call is not made again when its
// answer is lost, or the process that waits for it dies: each message would be mailed twice. Messages that go alone, here because of
// their attachments, are repeated all the same.
func TestALostAnswerToSeveralMessagesIsNotAskedForAgain(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"dropped", "killed"} {
		t.Run(way, func(t *testing.T) { t.Parallel(); losesShared(t, way == "killed") })
	}
}

func losesShared(t *testing.T, killed bool) {
	b := newBench(t, benchOptions{})
	settings := []string{"SENDGATE_LEASE=2s", "SENDGATE_REPEAT_SCHEDULE=1s,2s,3s,4s,5s,6s,7s", "SENDGATE_UNKNOWN_WAIT=6s"}
	fault := emulator.Fault{Mode: "accept_then_drop"}
	if killed {
		fault.Latency = emulator.Duration(15 * time.Second) // longer than the process lives; until then a repeat is told that the first call is in progress
	}
	b.faults(t, map[string][]emulator.Fault{"resend": {fault}})
	p := b.serve(t, settings...)
	const shared, alone = 8, 2
	at := time.Now().Add(2 * time.Second)
	var all []api.SendRequest
	for i := range shared + alone {
		m := letterTo("resend", fmt.Sprintf("ann%d@example.org", i))
		m.OnAmbiguous, m.SendAt = "never", &at
		if i >= shared {
			m.Attachments = []api.Attachment{{Filename: "a.txt", Content: "aGk="}}
		}
		all = append(all, m)
	}
	ids := submit(t, p.api, all)
	eventually(t, settleTime, "the provider has all messages", func() bool { return len(b.emu.Ledger()) == len(ids) })
	if n := b.emu.Stats()["resend"].Requests; n >= shared {
		t.Fatalf("%d requests for %d messages: the test tests less than it says", n, len(ids))
	}
	r := p.replica
	if killed {
		p.kill()
		b.faults(t, nil)
		r = b.start(t, settings...)
	}
	b.faults(t, nil)
	repeated := 0
	for i, id := range ids {
		m := becomes(t, r.api, id, time.Minute, "sent", "delivered", "failed_unknown")
		if n := len(b.ledger()[id]); n != 1 {
			t.Errorf("message %d was mailed %d times, want once (%s)", i, n, classes(m))
		}
		last := m.Attempts[len(m.Attempts)-1]
		switch {
		case i >= shared && (m.Status == "failed_unknown" || len(m.Attempts) < 2 || last.Class != "accepted"):
			t.Errorf("message %d went alone and is %s (%s), want its call made again and answered", i, m.Status, classes(m))
		case i < shared && m.Status == "failed_unknown" && len(m.Attempts) == 1 && last.VerdictSource == "deadline":
		case i < shared && len(m.Attempts) > 1: // it found no other message to share a call with
			repeated++
		case i < shared:
			t.Errorf("message %d is %s by %s (%s), want it unknown until its deadline", i, m.Status, last.VerdictSource, classes(m))
		}
	}
	if repeated > 1 {
		t.Errorf("%d messages were sent again, want at most one, which went alone", repeated)
	}
}
