package deliver

import (
	"fmt"
	"slices"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/route"
)

// view is how the accounts stood at one moment, made for one claim or one explanation. It implements route.View. A claim
// notes in it what it takes and which accounts have no slot; the accounts themselves learn of that later.
type view struct {
	now        time.Time   // local
	recipients int         // of the message that is being routed
	shares     *mail.Facts // of the same message, if it may travel with others; else nil
	resent     bool        // an earlier call may have sent the same message
	accounts   map[int32]*standing
}

// standing is how one account stood, and what the claim added.
type standing struct {
	failure  string // why there is no adapter
	paused   bool
	parked   []route.Park
	probes   []string // keys of the parks that one message may be let through
	breaker  gobreaker.State
	inflight int // calls, those of this claim included
	share    int
	batch    provider.BatchSpec
	keyed    bool                 // the provider takes repeats of a call with one message
	open     map[string]*openCall // of this claim, by what their messages have in common
	stalled  bool                 // full of calls that do not end
	limits   []limit.Window
	blocked  time.Time
	busy     time.Time // no slot before this for calls of at least busyCost recipients
	busyCost int
	gap      time.Duration // between two messages
	perCall  int           // messages in a call lately; 0 is 1
	turn     time.Time     // when the last message that is held for its turn is due again
	full     time.Time     // when it has room again, if it was found full for a message and the time is known
	packed   bool          // it was found full for a message because of the calls in flight
}

// newView returns how the accounts stand now, for a message with one recipient.
func newView(live map[int32]*account, now time.Time) *view {
	v := &view{now: now, recipients: 1, accounts: make(map[int32]*standing, len(live))}
	all := make([]standing, 0, len(live))
	for id, a := range live {
		all = append(all, a.standing(now))
		v.accounts[id] = &all[len(all)-1]
	}
	return v
}

func (a *account) standing(now time.Time) standing {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := standing{
		failure: a.failure, paused: a.conf.Paused, parked: a.conf.Parked, breaker: a.breaker.State(),
		inflight: a.inflight, share: a.share, batch: a.batch, keyed: a.within > 0, stalled: a.stalled(now), limits: a.conf.Limits,
		blocked: a.blocked, busy: a.busy, busyCost: a.busyCost, gap: a.gapAt(now), perCall: a.perCall, turn: a.turn,
	}
	for key, p := range a.probes {
		if !p.used && now.Before(p.until) {
			s.probes = append(s.probes, key)
		}
	}
	return s
}

// Health implements route.View.
func (v *view) Health(conf *route.Account) route.Why {
	s := v.accounts[conf.ID]
	if s == nil {
		return route.Why{Code: route.Broken, Reason: "not loaded yet"}
	}
	if s.failure != "" {
		return route.Why{Code: route.Broken, Reason: s.failure}
	}
	for _, p := range s.parked {
		if p.SenderDomain == "" && !slices.Contains(s.probes, "") {
			return route.Why{Code: route.Parked, Reason: p.Reason, Until: p.Next}
		}
	}
	switch s.breaker {
	case gobreaker.StateOpen:
		return route.Why{Code: route.Breaker, Reason: "breaker open"}
	case gobreaker.StateHalfOpen:
		if s.inflight > 0 {
			return route.Why{Code: route.Breaker, Reason: "breaker half open, a probe is running"}
		}
	case gobreaker.StateClosed:
	}
	return route.Why{}
}

// Probe implements route.View.
func (v *view) Probe(conf *route.Account, p route.Park) bool {
	s := v.accounts[conf.ID]
	return s != nil && slices.Contains(s.probes, p.Key())
}

// Free implements route.View. An account whose call has room for the message is free.
func (v *view) Free(conf *route.Account) route.Why {
	s := v.accounts[conf.ID] // not nil: it has passed Health
	switch {
	case v.openCall(conf) != nil:
		return route.Why{}
	case s.blocked.After(v.now):
		s.full = s.blocked
		return route.Why{Code: route.Throttled, Reason: "throttled until " + clock(s.blocked), Until: s.blocked}
	case s.busy.After(v.now) && v.recipients >= s.busyCost:
		s.full = s.busy
		return route.Why{Code: route.NoSlot, Reason: "no slot until " + clock(s.busy), Until: s.busy}
	case s.inflight >= s.share:
		s.packed = true
		if s.stalled {
			return route.Why{Code: route.Stalled, Reason: fmt.Sprintf("%d calls in flight, none of which ends", s.share)}
		}
		return route.Why{Code: route.Busy, Reason: fmt.Sprintf("%d calls in flight", s.share)}
	}
	return route.Why{}
}

// take notes a call for an account, and returns the keys of the parks that its message is let through. Other messages are
// still kept out.
func (v *view) take(conf *route.Account, f *mail.Facts) []string {
	s := v.accounts[conf.ID]
	s.inflight++
	var keys []string
	for _, p := range conf.Parked {
		if p.Covers(f) && slices.Contains(s.probes, p.Key()) {
			keys = append(keys, p.Key())
		}
	}
	s.probes = slices.DeleteFunc(s.probes, func(key string) bool { return slices.Contains(keys, key) })
	return keys
}

// refuse notes that an account has no slot before a time, for calls of as many recipients or more.
func (v *view) refuse(conf *route.Account, until time.Time) {
	s := v.accounts[conf.ID]
	s.busy, s.busyCost = until, v.recipients
}

// How long a message is held for its turn at most. The rate of a limit is known. How long calls take may change at any moment:
// if it is them that messages wait for, and not a limit, a longer wait could leave the account idle.
const (
	longestTurn  = 10 * time.Minute
	longestGuess = 3 * time.Second
)

// nextTurn returns until when to hold one more message for an account that has room at first. Messages come back about
// twice as fast as the account can take them. So it never runs out of them, and few rows are written more than twice.
func (v *view) nextTurn(conf *route.Account, first time.Time) time.Time {
	s := v.accounts[conf.ID]
	perCall := time.Duration(max(s.perCall, 1))
	gap, longest := min(max(s.gap, time.Millisecond/perCall), time.Second), longestGuess
	if len(s.limits) > 0 && first.After(v.now) { // a window is used up
		longest = longestTurn
	}
	for _, w := range s.limits {
		if w.Per <= time.Minute { // a longer window may be used up at once; first has its next slot
			longest = longestTurn
			each := w.Per / time.Duration(w.N)
			if w.Unit == limit.Requests {
				each /= perCall
			}
			gap = max(gap, each)
		}
	}
	if first.Before(v.now) {
		first = v.now
	}
	if s.turn.Before(first) {
		s.turn = first
	}
	if s.turn = s.turn.Add(gap / 2); s.turn.After(first.Add(longest)) {
		s.turn = first.Add(longest)
	}
	return s.turn
}

// perLook is the time between calls for which a message more is looked at: two thousand a second cost little.
const perLook = 500 * time.Microsecond

// fill returns for how many messages to look to fill so many calls. A message that is found and not taken costs as much as one
// that is taken, and nobody knows before which messages may travel together. So where calls are many, it is as many as they
// carried lately, and some more, to find out whether they carry more by now. Where they are few, it is as many as they may carry.
func (s *standing) fill(calls int) int {
	if s.batch.Max <= 1 {
		return calls
	}
	each, n := maxTogether, 0
	if s.perCall > 0 {
		each, n = min(int(s.gap*time.Duration(s.perCall)/perLook), maxTogether), calls*s.perCall
		if s.perCall > 1 {
			n *= 2
		} else {
			n += max(n/4, 4)
		}
	}
	return min(max(n, calls*each), calls*s.batch.Max)
}

// room returns how many more messages the accounts could take, apart from slots. An account without a slot before a known
// time counts 0.
func (v *view) room() int {
	room := 0
	for _, s := range v.accounts {
		switch {
		case s.failure != "", s.paused, s.blocked.After(v.now), s.busy.After(v.now) && s.busyCost <= 1, s.breaker == gobreaker.StateOpen:
		default:
			room += s.fill(max(s.share-s.inflight, 0))
		}
	}
	return room
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }
