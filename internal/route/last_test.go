package route

import (
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/queue"
)

func TestAnAccountThatMayHaveSentItComesLast(t *testing.T) {
	t.Parallel()
	last := queue.Avoid{Last: true, Why: "a call may have sent it"}
	for _, tc := range []struct {
		name  string
		avoid map[string]queue.Avoid
		weigh func(*Config)
		free  map[string]Why
		want  string // any of these
		full  bool
	}{
		{name: "another is fit", avoid: map[string]queue.Avoid{"a": last}, want: "b"},
		{name: "and so the other way round", avoid: map[string]queue.Avoid{"b": last}, want: "a"},
		{name: "no other is fit", avoid: map[string]queue.Avoid{"a": last, "b": {Final: true}}, want: "a"},
		{name: "the other has no weight", avoid: map[string]queue.Avoid{"a": last}, weigh: func(c *Config) { c.Pools[0].Members[1].Weight = 0 }, want: "a"},
		{name: "the other is full", avoid: map[string]queue.Avoid{"a": last}, free: map[string]Why{"b": {Code: NoSlot, Reason: "no slot"}}, full: true},
		{name: "both may have it", avoid: map[string]queue.Avoid{"a": last, "b": last}, want: "ab"},
	} {
		for seed := range uint64(40) {
			c := config(Spill, 1, 1)
			if tc.weigh != nil {
				tc.weigh(c)
			}
			r := request(mix(seed))
			r.Avoid = tc.avoid
			d, v := Plan(c, fakeView{free: tc.free}, r)
			if tc.full {
				if v != Full {
					t.Errorf("%s: %v to %q, want it to wait", tc.name, v, d.Chosen)
				}
				continue
			}
			if v != Chosen || len(d.Chosen) != 1 || !strings.Contains(tc.want, d.Chosen) {
				t.Errorf("%s: %v to %q, want %s", tc.name, v, d.Chosen, tc.want)
			}
			if tc.want == "b" && d.Candidates[0].Why != (Why{Code: Tried, Reason: "a call may have sent it"}) {
				t.Errorf("%s: the decision says %q of the account that comes last", tc.name, d.Candidates[0].Reason)
			}
		}
	}
}
