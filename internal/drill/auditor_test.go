//go:build drill

package drill

import (
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

// healthy is a run without mistakes: one message of each policy, and one that was sent again as its policy allows.
func healthy() evidence {
	e := evidence{byID: map[string]stored{}, byKey: map[string]stored{}, lines: map[string][]emulator.Entry{}}
	for _, s := range []stored{
		{ID: "a", Tenant: "acme", Key: "ka", Status: "delivered", Policy: "never", Calls: 1},
		{ID: "b", Tenant: "acme", Key: "kb", Status: "sent", Policy: "reconcile", Calls: 1},
		{ID: "c", Tenant: "acme", Key: "kc", Status: "sent", Policy: "resend", Calls: 2, Unanswered: 1},
		{ID: "d", Tenant: "acme", Key: "kd", Status: "failed", Policy: "never", Calls: 1},
	} {
		e.byID[s.ID], e.byKey["acme "+s.Key] = s, s
		e.promises = append(e.promises, promise{Key: s.Key, ID: s.ID, Policy: s.Policy, Tenant: "acme", Poison: s.ID == "d"})
		for range s.Calls {
			if s.Status != "failed" {
				e.lines[s.ID] = append(e.lines[s.ID], emulator.Entry{MessageID: s.ID, To: []string{"ann+" + s.ID + "@example.org"}})
			}
		}
	}
	return e
}

// noon is the beginning of the minute whose messages the database may have lost.
var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// forget takes a message out of the tables that was promised at a time.
func (e *evidence) forget(n int, at time.Time) {
	e.promises[n].At = at
	delete(e.byID, e.promises[n].ID)
	delete(e.byKey, "acme "+e.promises[n].Key)
}

// change replaces what the tables say of a message.
func (e *evidence) change(id string, f func(*stored)) {
	s := e.byID[id]
	f(&s)
	e.byID[id], e.byKey["acme "+s.Key] = s, s
}

// The auditor is tested with an example of each mistake that it must find.
func TestAuditorFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(*evidence)
		want  string // part of what it says; "" is nothing
	}{
		"nothing":                    {func(*evidence) {}, ""},
		"a message that is gone":     {func(e *evidence) { e.forget(0, time.Time{}) }, "messages lost: a was promised"},
		"gone in the lapse":          {func(e *evidence) { e.forget(0, noon.Add(time.Second)) }, ""},
		"gone from before the lapse": {func(e *evidence) { e.forget(0, noon.Add(-time.Millisecond)) }, "messages lost: a was promised"},
		"gone from after the lapse":  {func(e *evidence) { e.forget(0, noon.Add(time.Minute)) }, "messages lost: a was promised"},
		"not gone, but stuck in the lapse": {func(e *evidence) {
			e.promises[1].At = noon.Add(time.Second)
			e.change("b", func(s *stored) { s.Status = "queued" })
		}, "messages lost: b is queued"},
		"another message under the key in the lapse": {func(e *evidence) {
			e.promises[0].At = noon.Add(time.Second)
			e.change("a", func(s *stored) { s.ID = "z" })
		}, "messages lost: a was promised under key ka"},
		"another message under the key": {func(e *evidence) { e.change("a", func(s *stored) { s.ID = "z" }) }, "messages lost: a was promised under key ka"},
		"a message that never ended":    {func(e *evidence) { e.change("b", func(s *stored) { s.Status = "queued" }) }, "messages lost: b is queued"},
		"sent, and nobody has it":       {func(e *evidence) { delete(e.lines, "b") }, "messages lost: b is sent and no provider has it"},
		"failed without a reason":       {func(e *evidence) { e.promises[3].Poison = false }, "wrong end: d is failed"},
		"failed, and a provider has it": {func(e *evidence) { e.lines["d"] = e.lines["a"] }, "wrong end: d is failed, 1 at providers"},
		"a twin under never": {func(e *evidence) {
			e.lines["a"] = append(e.lines["a"], e.lines["a"]...)
			e.change("a", func(s *stored) { s.Unanswered = 1 })
		}, "mailed twice without leave: a, on_ambiguous never"},
		"a twin under resend without cause": {func(e *evidence) { e.change("c", func(s *stored) { s.Unanswered = 0 }) }, "mailed twice without leave: c"},
		"two calls for different recipients": {func(e *evidence) {
			e.lines["b"] = append(e.lines["b"], emulator.Entry{MessageID: "b", To: []string{"bob@example.org"}})
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := healthy()
			c.spoil(&e)
			r := &rig{lapse: lapse{from: noon, until: noon.Add(time.Minute)}}
			var said []string
			for _, x := range append(r.judgePromises(e), r.judgeTwins(e)) {
				if len(x.ids) > 0 {
					said = append(said, x.what+": "+strings.Join(x.ids, "; "))
				}
			}
			if got := strings.Join(said, " | "); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("the auditor says %q, want %q", got, c.want)
			}
		})
	}
}
