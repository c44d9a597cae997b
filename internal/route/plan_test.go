package route

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
)

type fakeView struct {
	health, free map[string]Why
	probes       []string // account and key of a park
}

func (v fakeView) Health(a *Account) Why { return v.health[a.Name] }
func (v fakeView) Free(a *Account) Why   { return v.free[a.Name] }

func (v fakeView) Probe(a *Account, p Park) bool {
	return slices.Contains(v.probes, a.Name+" "+p.Key())
}

func config(overflow Overflow, weights ...float64) *Config {
	c := &Config{Version: 7}
	p := Pool{ID: 1, Name: DefaultPool, Overflow: overflow}
	for i, w := range weights {
		name := string(rune('a' + i))
		c.Accounts = append(c.Accounts, Account{ID: int32(i + 1), Name: name}) //nolint:gosec // a handful
		p.Members = append(p.Members, Member{Account: name, Weight: w})
	}
	c.Pools = []Pool{p}
	return c
}

func request(seed uint64) Request {
	return Request{
		Facts: &mail.Facts{Stream: "transactional", SenderDomain: "example.com", Domains: []string{"example.org"}, Recipients: 1},
		Seed:  seed, Now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC),
	}
}

func shares(t *testing.T, c *Config, v View, n int) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		d, verdict := Plan(c, v, request(Seed(mail.NewID())))
		if verdict == Chosen {
			got[d.Chosen]++
		} else {
			got["-"]++
		}
	}
	return got
}

func TestSharesFollowWeights(t *testing.T) {
	t.Parallel()
	const n = 20_000
	weights := []float64{1, 2, 0, 4, 0.5}
	got := shares(t, config(Spill, weights...), fakeView{}, n)
	for i, w := range weights {
		p := w / 7.5
		sigma := math.Sqrt(n * p * (1 - p))
		if have := float64(got[string(rune('a'+i))]); math.Abs(have-n*p) > 4*sigma {
			t.Errorf("account %c: %.0f messages, want %.0f within 4 sigma (%.0f)", 'a'+i, have, n*p, 4*sigma)
		}
	}
}

func TestPlanIsDeterministicUnderASeed(t *testing.T) {
	t.Parallel()
	c := config(Spill, 1, 1, 1)
	first, _ := Plan(c, fakeView{}, request(42))
	for range 10 {
		again, _ := Plan(c, fakeView{}, request(42))
		if diff := cmp.Diff(first, again); diff != "" {
			t.Fatalf("same seed, other decision:\n%s", diff)
		}
	}
}

func TestAWeightChangeMovesOnlyWhatItMust(t *testing.T) {
	t.Parallel()
	before, after := config(Spill, 1, 1), config(Spill, 1, 3)
	for seed := range uint64(5000) {
		was, _ := Plan(before, fakeView{}, request(seed))
		is, _ := Plan(after, fakeView{}, request(seed))
		if was.Chosen == "b" && is.Chosen == "a" {
			t.Fatalf("seed %d moved from the account that gained weight", seed)
		}
	}
}

func TestWaitKeepsTheShareAndSpillLeavesItAndSaysSo(t *testing.T) {
	t.Parallel()
	busy := fakeView{free: map[string]Why{"a": {Code: NoSlot, Reason: "no slot"}}}
	if got := shares(t, config(Wait, 1, 1), busy, 2000); got["-"] < 850 || got["b"] > 1150 {
		t.Errorf("wait with a busy account: %v, want half of them to stay", got)
	}
	for seed := range uint64(100) {
		d, verdict := Plan(config(Wait, 1, 1), busy, request(seed))
		if verdict == Full && d.WaitsFor != "a" {
			t.Fatalf("a message that stays waits for %q, want a", d.WaitsFor)
		}
	}
	spilled := 0
	for seed := range uint64(2000) {
		d, verdict := Plan(config(Spill, 1, 1), busy, request(seed))
		if verdict != Chosen || d.Chosen != "b" {
			t.Fatalf("spill: chosen %q (%v), want b", d.Chosen, verdict)
		}
		if d.Spilled {
			spilled++
			if d.Candidates[0].Reason != "no slot" {
				t.Fatalf("spilled without saying why: %+v", d)
			}
		}
	}
	if spilled < 850 || spilled > 1150 {
		t.Errorf("spilled = %d of 2000, want about half", spilled)
	}
}

func TestWaitMovesOnWhenTheAccountIsUnfit(t *testing.T) {
	t.Parallel()
	down := fakeView{health: map[string]Why{"a": {Code: Breaker, Reason: "breaker open"}}}
	if got := shares(t, config(Wait, 1, 1), down, 500); got["b"] != 500 {
		t.Errorf("wait with a broken account: %v, want all at b", got)
	}
}

func TestReasonsAreGivenForEveryAccountStruck(t *testing.T) {
	t.Parallel()
	c := config(Spill, 1, 0, 1, 1, 1, 1, 1)
	c.Accounts[2].Paused = true
	c.Accounts[3].Parked = []Park{{SenderDomain: "example.com", Reason: "sender not verified", Next: request(1).Now.Add(time.Hour)}}
	c.Accounts[4].Capabilities = provider.Capabilities{MaxRecipients: 1, MaxBytes: 10}
	c.Accounts[5].Draining = true
	r := request(1)
	r.Facts.Bytes = 11
	r.Avoid = map[string]queue.Avoid{"g": {Until: r.Now.Add(time.Second), Why: "503"}}
	d, verdict := Plan(c, fakeView{health: map[string]Why{"a": {Code: Breaker, Reason: "breaker open"}}}, r)
	want := []Candidate{
		{"a", 1, Why{Code: Breaker, Reason: "breaker open"}},
		{"b", 0, Why{Code: NoWeight, Reason: "weight 0"}},
		{"c", 1, Why{Code: Paused, Reason: "paused by an operator"}},
		{"d", 1, Why{Code: Parked, Reason: "sender not verified", Until: r.Now.Add(time.Hour)}},
		{"e", 1, Why{Code: Cannot, Reason: "message of 11 bytes is over the cap of 10"}},
		{"f", 1, Why{Code: Draining, Reason: "is being deleted"}},
		{"g", 1, Why{Code: Tried, Reason: "503", Until: r.Now.Add(time.Second)}},
	}
	if diff := cmp.Diff(want, d.Candidates); diff != "" || verdict != Unfit {
		t.Errorf("verdict %v, candidates (-want +got):\n%s", verdict, diff)
	}
}

func TestWhatKeepsAMessageFromAnAccountAndForHowLong(t *testing.T) {
	t.Parallel()
	now := request(1).Now
	for _, tc := range []struct {
		name    string
		parks   []Park
		avoid   queue.Avoid
		verdict Verdict
	}{
		{"nothing", nil, queue.Avoid{}, Chosen},
		{"the account is parked", []Park{{Reason: "bad key"}}, queue.Avoid{}, Unfit},
		{"its sender is parked", []Park{{SenderDomain: "example.com", Reason: "not verified"}}, queue.Avoid{}, Unfit},
		{"another sender is parked", []Park{{SenderDomain: "example.net", Reason: "not verified"}}, queue.Avoid{}, Chosen},
		{"it was tried there a moment ago", nil, queue.Avoid{Until: now.Add(time.Second), Why: "503"}, Unfit},
		{"it was tried there some time ago", nil, queue.Avoid{Until: now, Why: "503"}, Chosen},
		{"it was refused there for good", nil, queue.Avoid{Final: true, Why: "too large"}, Impossible},
	} {
		c, r := config(Spill, 1), request(1)
		c.Accounts[0].Parked = tc.parks
		r.Avoid = map[string]queue.Avoid{"a": tc.avoid}
		if d, verdict := Plan(c, fakeView{}, r); verdict != tc.verdict {
			t.Errorf("%s: verdict %d, candidates %+v; want verdict %d", tc.name, verdict, d.Candidates, tc.verdict)
		}
	}
	c := config(Spill, 1)
	c.Accounts[0].Draining = true // it may take mail again, or another account may come
	if d, verdict := Plan(c, fakeView{}, request(1)); verdict != Unfit {
		t.Errorf("its only account drains: verdict %d, candidates %+v; want verdict %d", verdict, d.Candidates, Unfit)
	}
}

func TestAMessageThatNobodyCanCarryIsImpossible(t *testing.T) {
	t.Parallel()
	c := config(Spill, 1, 1)
	c.Accounts[0].Capabilities.MaxRecipients = 1
	c.Accounts[1].Limits = []limit.Window{{N: 2, Per: time.Second, Unit: limit.Recipients}}
	r := request(1)
	r.Facts.Recipients = 3
	if d, verdict := Plan(c, fakeView{}, r); verdict != Impossible {
		t.Errorf("verdict = %v (%+v), want Impossible", verdict, d)
	}
	c.Accounts[1].Limits = nil
	c.Accounts[1].Paused = true
	if _, verdict := Plan(c, fakeView{}, r); verdict != Unfit {
		t.Errorf("verdict with a fit but paused account = %v, want Unfit", verdict)
	}
}

func TestRulesPickThePoolByPosition(t *testing.T) {
	t.Parallel()
	c := config(Spill, 1, 1)
	c.Pools = append(c.Pools, Pool{ID: 2, Name: "bulk", Members: []Member{{"b", 1}}})
	c.Rules = []Rule{
		{ID: 11, Stream: "bulk", Pool: "bulk"},
		{ID: 12, Tag: "digest", SenderDomain: "example.com", Pool: "bulk"},
		{ID: 13, RecipientDomain: "example.net", Pool: "bulk"},
	}
	cases := []struct {
		name string
		edit func(*mail.Facts)
		rule int64
	}{
		{"no rule", func(*mail.Facts) {}, 0},
		{"stream", func(f *mail.Facts) { f.Stream = "bulk" }, 11},
		{"tag and sender", func(f *mail.Facts) { f.Tags = []string{"x", "digest"} }, 12},
		{"tag, other sender", func(f *mail.Facts) { f.Tags, f.SenderDomain = []string{"digest"}, "example.net" }, 0},
		{"recipient domain", func(f *mail.Facts) { f.Domains = []string{"example.net"} }, 13},
		{"one of two recipient domains", func(f *mail.Facts) { f.Domains = []string{"example.net", "example.org"} }, 0},
	}
	for _, tc := range cases {
		r := request(1)
		tc.edit(r.Facts)
		if d, _ := Plan(c, fakeView{}, r); d.Rule != tc.rule {
			t.Errorf("%s: rule %d, want %d", tc.name, d.Rule, tc.rule)
		}
	}
}

func TestPinnedMessageGoesNowhereElse(t *testing.T) {
	t.Parallel()
	c := config(Spill, 1, 1)
	r := request(1)
	r.Facts.Account = "b"
	if d, v := Plan(c, fakeView{}, r); v != Chosen || d.Chosen != "b" || !d.Pinned {
		t.Errorf("pinned: %+v (%v), want b", d, v)
	}
	if _, v := Plan(c, fakeView{free: map[string]Why{"b": {Code: NoSlot, Reason: "no slot"}}}, r); v != Full {
		t.Errorf("pinned to a busy account: %v, want Full", v)
	}
	r.Facts.Account = "nowhere"
	if _, v := Plan(c, fakeView{}, r); v != Impossible {
		t.Errorf("pinned to an account that does not exist: %v, want Impossible", v)
	}
}

func TestStoredDecisionIsCapped(t *testing.T) {
	t.Parallel()
	d := Decision{Config: math.MaxInt64, Pool: strings.Repeat("p", 40), Chosen: "account-49"}
	for i := range 50 {
		d.Candidates = append(d.Candidates, Candidate{fmt.Sprintf("account-%d", i), 1.5, Why{Code: Tried, Reason: strings.Repeat("ü", 300)}})
	}
	b := d.JSON()
	var back Decision
	if err := json.Unmarshal(b, &back); err != nil || len(b) > MaxDecisionBytes {
		t.Fatalf("stored decision: %d bytes, %v; want at most %d of valid JSON", len(b), err, MaxDecisionBytes)
	}
	last := back.Candidates[len(back.Candidates)-1]
	if last.Account != "account-49" || back.Omitted+len(back.Candidates) != 50 {
		t.Errorf("kept %d, omitted %d, last %q: want the chosen one kept and all accounted for",
			len(back.Candidates), back.Omitted, last.Account)
	}
}

func BenchmarkPlan(b *testing.B) {
	c := config(Spill, 1, 1, 1, 1, 1)
	for i := range uint64(b.N) { //nolint:gosec // b.N is positive
		Plan(c, fakeView{}, request(i))
	}
}

func TestCandidatesAreAllThatMayHaveBeenChosen(t *testing.T) {
	t.Parallel()
	c := config(Spill, 1, 0, 3)
	c.Accounts[2].Paused = true
	c.Accounts = append(c.Accounts, Account{ID: 9, Name: "elsewhere"})
	c.Pools = append(c.Pools, Pool{ID: 2, Name: "empty"})
	c.Rules = []Rule{{Stream: "bulk", Pool: "empty"}}
	for _, tc := range []struct {
		name  string
		facts mail.Facts
		want  string
	}{
		{"pool, whatever the weights", mail.Facts{}, "a b c"},
		{"pinned", mail.Facts{Account: "elsewhere"}, "elsewhere"},
		{"pinned to none", mail.Facts{Account: "gone"}, ""},
		{"pool without members", mail.Facts{Stream: "bulk"}, "a b c elsewhere"},
	} {
		var names []string
		for _, a := range c.Candidates(&tc.facts) {
			names = append(names, a.Name)
		}
		if got := strings.Join(names, " "); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
