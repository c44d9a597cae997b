package route

import (
	"testing"

	"github.com/sendgate/sendgate/internal/queue"
)

// A message whose call will be repeated goes to the account of that call and to no other, whatever the weights are.
func TestARepeatGoesToItsAccountOnly(t *testing.T) {
	t.Parallel()
	c := config(Spill, 100, 1)
	r := request(1)
	r.Avoid = map[string]queue.Avoid{"b": {Repeat: &queue.Repeat{N: 1}}}
	d, verdict := Plan(c, fakeView{}, r)
	if verdict != Chosen || d.Chosen != "b" || d.Candidates[0].Code != Repeats {
		t.Errorf("plan = %+v, %v; want b, and a struck as %s", d, verdict, Repeats)
	}
	c.Accounts[1].Paused = true
	if d, verdict = Plan(c, fakeView{}, r); verdict != Unfit {
		t.Errorf("plan with b paused = %+v, %v; want none", d, verdict)
	}
	r.Avoid["b"].Repeat.Over = true
	if d, verdict = Plan(c, fakeView{}, r); verdict != Chosen || d.Chosen != "a" {
		t.Errorf("plan after the repeats = %+v, %v; want a", d, verdict)
	}
}
