// Package route decides which account takes a message: rules pick a pool, and the pool's weights pick an account. An
// account that cannot carry the message, is not healthy or has no free slot is struck from the list. It is pure: the same
// configuration, facts, live view and seed give the same Decision. It takes no slot and makes no call.
//
// A newcomer's likeliest mistake is to renormalise weights over the free accounts. In a pool that waits, a message whose
// account has no slot must stay with that account; otherwise the shares are not those that the operator set.
package route

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// View is the live state of accounts as one replica sees it.
type View interface {
	// Health returns why the account should get no mail at all now.
	Health(a *Account) Why
	// Free returns why the account can't take one more call right now.
	Free(a *Account) Why
	// Probe reports whether this message may be let through a park, to try whether the account takes mail again.
	Probe(a *Account, p Park) bool
}

// Verdict is the outcome of Plan.
type Verdict int

// The verdicts.
const (
	Chosen     Verdict = iota // Decision.Chosen can take it now
	Full                      // accounts are fit for it, but none of those allowed is free now
	Unfit                     // no account is fit for it now; that may change
	Impossible                // no account of its pool can ever carry it, as things are configured
)

// Request is one message to be routed.
type Request struct {
	Facts *mail.Facts
	Seed  uint64                 // the same for every plan of one message: its choice stays while the weights do
	Avoid map[string]queue.Avoid // accounts that failed it
	Now   time.Time
}

// Seed derives the seed of a message.
func Seed(id mail.ID) uint64 {
	return mix(binary.BigEndian.Uint64(id[8:]) ^ mix(binary.BigEndian.Uint64(id[:8])))
}

// Plan routes one message. The candidates of the decision stand in the order in which they were considered.
func Plan(c *Config, v View, r Request) (Decision, Verdict) {
	d, members, overflow := candidates(c, r.Facts)
	type fit struct {
		at    int // index in d.Candidates
		acc   *Account
		probe bool
		last  bool
		score float64
	}
	var fits []fit
	var others bool // some fit account is not one that may have sent it
	ever := false
	for i, m := range members {
		acc := c.Account(m.Account)
		why, final := unfit(acc, m, d.Pinned, v, r)
		d.Candidates[i].Why = why
		ever = ever || !final
		if why.Code == "" {
			last := r.Avoid[acc.Name].Last
			fits, others = append(fits, fit{i, acc, acc.parked(r.Facts), last, score(r.Seed, acc.Name, m.Weight)}), others || !last
		}
	}
	if len(fits) == 0 {
		if !ever && len(members) > 0 {
			return d, Impossible
		}
		return d, Unfit
	}
	if others {
		fits = slices.DeleteFunc(fits, func(f fit) bool {
			if f.last {
				d.Candidates[f.at].Why = Why{Code: Tried, Reason: r.Avoid[f.acc.Name].Why}
			}
			return f.last
		})
	}
	probes := 0
	for _, f := range fits {
		if f.probe {
			probes++
		}
	}
	slices.SortFunc(fits, func(a, b fit) int {
		if a.probe == b.probe && a.score < b.score || a.probe && !b.probe { // probes come before the weighted order
			return -1
		}
		return 1
	})
	for i, f := range fits {
		busy := v.Free(f.acc)
		if busy.Code == "" {
			d.Chosen, d.Spilled, d.Probe = f.acc.Name, i > probes, f.probe
			return d, Chosen
		}
		d.Candidates[f.at].Why = busy
		if f.probe { // it came first only because of its park
			continue
		}
		if overflow == Wait || busy.Code == Busy {
			d.WaitsFor = f.acc.Name
			break
		}
	}
	return d, Full
}

// candidates finds the pool, or the pinned account, and lists its members.
func candidates(c *Config, f *mail.Facts) (Decision, []Member, Overflow) {
	d := Decision{Config: c.Version, Candidates: []Candidate{}}
	var members []Member
	overflow := Wait
	if f.Account != "" {
		d.Pinned = true
		members = []Member{{Account: f.Account, Weight: 1}}
	} else {
		pool, rule := c.PoolFor(f)
		d.Rule = rule
		if pool != nil {
			d.Pool, members, overflow = pool.Name, pool.Members, pool.Overflow
		}
	}
	for _, m := range members {
		d.Candidates = append(d.Candidates, Candidate{Account: m.Account, Weight: m.Weight})
	}
	return d, members, overflow
}

// Candidates lists the accounts that may have got a message with these facts, whatever weights, pauses and health were
// then: the account that it is pinned to, or all members of its pool. If the pool has no members, that is every account.
func (c *Config) Candidates(f *mail.Facts) []*Account {
	_, members, _ := candidates(c, f)
	var found []*Account
	for _, m := range members {
		if a := c.Account(m.Account); a != nil {
			found = append(found, a)
		}
	}
	if len(found) > 0 || f.Account != "" {
		return found
	}
	for i := range c.Accounts {
		found = append(found, &c.Accounts[i])
	}
	return found
}

// PoolFor returns the pool of a message that is not pinned and the id of the rule that named it (0: the default pool).
// It returns nil when a rule names a pool that does not exist.
func (c *Config) PoolFor(f *mail.Facts) (*Pool, int64) {
	for i := range c.Rules {
		if c.Rules[i].matches(f) {
			return c.Pool(c.Rules[i].Pool), c.Rules[i].ID
		}
	}
	return c.Pool(DefaultPool), 0
}

func (r *Rule) matches(f *mail.Facts) bool {
	return (r.Stream == "" || r.Stream == f.Stream) &&
		(r.Tag == "" || slices.Contains(f.Tags, r.Tag)) &&
		(r.SenderDomain == "" || r.SenderDomain == f.SenderDomain) &&
		(r.RecipientDomain == "" || len(f.Domains) == 1 && f.Domains[0] == r.RecipientDomain)
}

// unfit says why the account is struck from the list, and whether that is final in this configuration. For a message whose
// content was refused once, a weight of 0, a deletion and a pause are final too: it does not wait for an operator.
func unfit(a *Account, m Member, pinned bool, v View, r Request) (why Why, final bool) {
	refused := contentRefused(r.Avoid)
	if at, _ := queue.Repeated(r.Avoid); at != "" && m.Account != at {
		return Why{Code: Repeats, Reason: "a call of " + at + " may have sent it, and is made again there"}, false
	}
	switch {
	case a == nil:
		return Why{Code: Absent, Reason: "no such account"}, pinned
	case m.Weight <= 0:
		return Why{Code: NoWeight, Reason: "weight 0"}, refused
	case a.Draining:
		return Why{Code: Draining, Reason: "is being deleted"}, pinned || refused
	case a.Paused:
		return Why{Code: Paused, Reason: "paused by an operator"}, refused
	}
	if rule := a.Capabilities.Refuse(r.Facts); rule != "" {
		return Why{Code: Cannot, Reason: rule}, true
	}
	for _, w := range a.Limits {
		if cost := w.Cost(r.Facts.Recipients); cost > w.N {
			return Why{Code: Cannot, Reason: "more recipients than its limit of " + w.String()}, true
		}
	}
	if av, ok := r.Avoid[a.Name]; ok && (av.Final || av.Until.After(r.Now)) {
		return Why{Code: Tried, Reason: av.Why, Until: av.Until}, av.Final
	}
	for name, av := range r.Avoid {
		if av.Kind != "" && av.Kind == string(a.Kind) {
			return Why{Code: Tried, Reason: string(a.Kind) + " refused the content at " + name}, true
		}
	}
	for _, p := range a.Parked {
		if p.Covers(r.Facts) && !v.Probe(a, p) {
			return Why{Code: Parked, Reason: p.Reason, Until: p.Next}, false
		}
	}
	return v.Health(a), false
}

// contentRefused reports whether a provider refused the content of a message.
func contentRefused(avoid map[string]queue.Avoid) bool {
	for _, av := range avoid {
		if av.Kind != "" {
			return true
		}
	}
	return false
}

// parked reports whether the account is parked for messages with these facts.
func (a *Account) parked(f *mail.Facts) bool {
	return slices.ContainsFunc(a.Parked, func(p Park) bool { return p.Covers(f) })
}

// score orders accounts by weighted rendezvous hashing: over many seeds each account comes first in proportion to its
// weight, and a change of one weight moves no more messages than it must.
func score(seed uint64, account string, weight float64) float64 {
	h := seed
	for i := range len(account) {
		h = mix(h ^ uint64(account[i]))
	}
	u := (float64(h>>11) + 0.5) / (1 << 53) // in (0, 1)
	return -math.Log(u) / weight
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
