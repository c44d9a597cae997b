package mail

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestEvidenceFoldsInAnyOrder(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // a seed that can be repeated
	types := append(EventTypes(), EventUnmapped)
	for range 2000 {
		var all []Evidence
		for range 1 + rng.IntN(8) {
			e := Event{Type: types[rng.IntN(len(types))], At: time.Unix(int64(rng.IntN(4)), 0)}
			all = append(all, e.Evidence(ID{0: byte(rng.IntN(3)), 15: byte(len(all))}))
		}
		fold := func() (v Evidence) {
			for _, e := range all {
				v = v.Max(e)
			}
			return v
		}
		want := fold()
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = append(all, all[rng.IntN(len(all))]) // once more
		if got := fold(); got.Rank > 0 && got != want {
			t.Fatalf("fold = %+v in one order, %+v in another", want, got)
		}
	}
}

func TestWhatOutweighsWhat(t *testing.T) {
	t.Parallel()
	orders := [][]EventType{
		{EventUnmapped, EventAccepted, EventDeferred, EventOpened, EventDelivered, EventBounced, EventComplained},
		{EventUnmapped, EventAccepted, EventDeferred, EventRejected, EventDelivered, EventBounced, EventComplained},
	}
	for _, order := range orders {
		for i, lo := range order {
			for _, hi := range order[i+1:] {
				late := Event{Type: lo, At: time.Unix(100, 0)}
				early := Event{Type: hi, At: time.Unix(1, 0)}
				got := late.Evidence(ID{9}).Max(early.Evidence(ID{1}))
				if want := early.Evidence(ID{1}).Status; got.Status != want {
					t.Errorf("%s after %s ends as %s, want %s", lo, hi, got.Status, want)
				}
			}
		}
	}
}

func TestRejectedByAListIsSuppressed(t *testing.T) {
	t.Parallel()
	for reason, want := range map[Reason]Status{
		SuppressedBounce: Suppressed, SuppressedComplaint: Suppressed, SuppressedUnsubscribe: Suppressed,
		Content: Failed, InvalidInput: Failed, OtherReason: Failed, InvalidAddress: Failed,
	} {
		e := Event{Type: EventRejected, Bounce: &Bounce{Reason: reason}}
		if got := e.Evidence(ID{}).Status; got != want {
			t.Errorf("rejected for %s is %s, want %s", reason, got, want)
		}
	}
	if got := (&Event{Type: EventRejected}).Evidence(ID{}).Status; got != Failed {
		t.Errorf("rejected without a reason is %s, want failed", got)
	}
}

func TestKeysTellEventsApart(t *testing.T) {
	t.Parallel()
	base := Event{Name: "delivered", UniqueID: "u1", MessageID: ID{1}, Recipient: "ann@example.org", At: time.Unix(5, 0), Detail: "250 ok", URL: ""}
	id, content := base.Keys(1)
	same := base
	same.UniqueID, same.Recipient = "u2", "ANN@example.org"
	if id2, content2 := same.Keys(1); id2 == id || content2 != content {
		t.Error("a repetition under a new id must keep the key of its content, and no other")
	}
	for name, change := range map[string]func(*Event){
		"name": func(e *Event) { e.Name = "x" }, "message": func(e *Event) { e.MessageID = ID{2} },
		"recipient": func(e *Event) { e.Recipient = "bob@example.org" }, "time": func(e *Event) { e.At = time.Unix(6, 0) },
		"detail": func(e *Event) { e.Detail = "x" }, "url": func(e *Event) { e.URL = "x" },
	} {
		e := base
		change(&e)
		if _, c := e.Keys(1); c == content {
			t.Errorf("another %s has the same key", name)
		}
	}
	if _, c := base.Keys(2); c == content {
		t.Error("another account has the same key")
	}
	none := base
	none.UniqueID = ""
	if a, b := none.Keys(1); a != b {
		t.Error("without an id of the provider's both keys are that of the content")
	}
}
