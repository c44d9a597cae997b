package route

import (
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
)

func TestAParkCoversWhatItIsAbout(t *testing.T) {
	t.Parallel()
	shop := mail.Facts{Sender: "shop@example.com", SenderDomain: "example.com"}
	info := mail.Facts{Sender: "info@example.com", SenderDomain: "example.com"}
	old := mail.Facts{SenderDomain: "example.com"} // accepted by a process that kept no address
	other := mail.Facts{Sender: "shop@example.net", SenderDomain: "example.net"}
	for key, covered := range map[string][4]bool{
		"":                 {true, true, true, true},
		"example.com":      {true, true, true, false},
		"shop@example.com": {true, false, true, false},
	} {
		p := ParkFor(key)
		if p.Key() != key {
			t.Errorf("the key of %q is %q", key, p.Key())
		}
		for i, f := range []mail.Facts{shop, info, old, other} {
			if got := p.Covers(&f); got != covered[i] {
				t.Errorf("park %q covers %+v: %v, want %v", key, f, got, covered[i])
			}
		}
	}
}

func TestAProbeGoesFirstAndIsNoSpill(t *testing.T) {
	t.Parallel()
	c := config(Spill, 1, 1000)
	c.Accounts[0].Parked = []Park{{Reason: "401"}}
	view := fakeView{probes: []string{"a "}}
	for seed := range uint64(50) {
		if d, _ := Plan(c, view, request(seed)); d.Chosen != "a" || !d.Probe || d.Spilled {
			t.Fatalf("seed %d: %+v, want the parked account as a probe", seed, d)
		}
		if d, _ := Plan(c, fakeView{}, request(seed)); d.Chosen != "b" || d.Probe || d.Spilled || d.Candidates[0].Code != Parked || d.Candidates[0].Reason != "401" {
			t.Fatalf("seed %d without a probe: %+v, want the other", seed, d)
		}
	}
	view.free = map[string]Why{"a": {Code: NoSlot, Reason: "no slot"}}
	if d, _ := Plan(c, view, request(1)); d.Chosen != "b" || d.Probe || d.Spilled {
		t.Errorf("the parked account is busy: %+v, want the other, as if there were no probe", d)
	}
	c.Pools[0].Overflow = Wait
	if d, _ := Plan(c, view, request(1)); d.Chosen != "b" {
		t.Errorf("the same where messages wait: %+v, want the other", d)
	}
	c.Pools[0].Members[0].Weight = 0
	if d, _ := Plan(c, fakeView{probes: []string{"a "}}, request(1)); d.Chosen != "b" {
		t.Errorf("weight 0: %+v, want no probe", d)
	}
}

func TestRefusedContentGoesToAnotherKindOrNowhere(t *testing.T) {
	t.Parallel()
	of := func(kinds ...string) *Config {
		weights := make([]float64, len(kinds))
		for i := range weights {
			weights[i] = 1
		}
		c := config(Spill, weights...)
		for i, k := range kinds {
			c.Accounts[i].Kind = provider.Kind(k)
		}
		return c
	}
	r := request(1)
	r.Avoid = map[string]queue.Avoid{"a": {Final: true, Why: "rejected: status 400", Kind: "sendgrid"}}
	for _, tc := range []struct {
		name    string
		config  *Config
		edit    func(*Config)
		view    fakeView
		verdict Verdict
		chosen  string
	}{
		{"another kind", of("sendgrid", "sendgrid", "ses"), nil, fakeView{}, Chosen, "c"},
		{"only the same kind", of("sendgrid", "sendgrid"), nil, fakeView{}, Impossible, ""},
		{"the other kind is paused", of("sendgrid", "ses"), func(c *Config) { c.Accounts[1].Paused = true }, fakeView{}, Impossible, ""},
		{"the other kind has weight 0", of("sendgrid", "ses"), func(c *Config) { c.Pools[0].Members[1].Weight = 0 }, fakeView{}, Impossible, ""},
		{"the other kind goes away", of("sendgrid", "ses"), func(c *Config) { c.Accounts[1].Draining = true }, fakeView{}, Impossible, ""},
		{"the other kind is parked", of("sendgrid", "ses"), func(c *Config) { c.Accounts[1].Parked = []Park{{}} }, fakeView{}, Unfit, ""},
		{"the other kind is down", of("sendgrid", "ses"), nil, fakeView{health: map[string]Why{"b": {Code: Breaker, Reason: "breaker open"}}}, Unfit, ""},
		{"the other kind is busy", of("sendgrid", "ses"), nil, fakeView{free: map[string]Why{"b": {Code: NoSlot, Reason: "no slot"}}}, Full, ""},
	} {
		if tc.edit != nil {
			tc.edit(tc.config)
		}
		d, verdict := Plan(tc.config, tc.view, r)
		if verdict != tc.verdict || d.Chosen != tc.chosen {
			t.Errorf("%s: verdict %d, chosen %q; want %d, %q: %+v", tc.name, verdict, d.Chosen, tc.verdict, tc.chosen, d.Candidates)
		}
	}
	d, _ := Plan(of("sendgrid", "sendgrid"), fakeView{}, r)
	if why := d.Candidates[1].Reason; !strings.Contains(why, "sendgrid refused the content at a") {
		t.Errorf("reason = %q, want it to name who refused the content", why)
	}
}
