package deliver

import (
	"fmt"
	"maps"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/sendgate/sendgate/internal/route"
)

// view is what one claim, or one explanation, sees of the accounts. It implements route.View. The set of accounts does not
// change: an account that is replaced meanwhile is used in its old form to the end.
type view struct {
	accounts   map[int32]*account
	now        time.Time // local
	recipients int       // of the message that is being routed
	taken      map[int32]int
	refused    map[int32]int       // accounts that had no slot for a call of so many recipients
	until      map[int32]time.Time // when each account that was full has room
}

func (s *accounts) view(recipients int) *view {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return &view{
		accounts: maps.Clone(s.byID), now: time.Now(), recipients: recipients,
		taken: map[int32]int{}, refused: map[int32]int{}, until: map[int32]time.Time{},
	}
}

// Health implements route.View.
func (v *view) Health(conf *route.Account) route.Why {
	a := v.accounts[conf.ID]
	if a == nil {
		return route.Why{Code: route.Broken, Reason: "not loaded yet"}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure != "" {
		return route.Why{Code: route.Broken, Reason: a.failure}
	}
	for _, p := range a.conf.Parked {
		if p.SenderDomain == "" && !a.probing("", v.now) {
			return route.Why{Code: route.Parked, Reason: p.Reason, Until: p.Next}
		}
	}
	switch a.breaker.State() {
	case gobreaker.StateOpen:
		return route.Why{Code: route.Breaker, Reason: "breaker open"}
	case gobreaker.StateHalfOpen:
		if a.inflight+v.taken[conf.ID] > 0 {
			return route.Why{Code: route.Breaker, Reason: "breaker half open, a probe is running"}
		}
	case gobreaker.StateClosed:
	}
	return route.Why{}
}

// Probe implements route.View.
func (v *view) Probe(conf *route.Account, p route.Park) bool {
	a := v.accounts[conf.ID]
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.probing(p.Key(), v.now)
}

// refuse notes that an account has no slot before a time, for this claim and the next ones.
func (v *view) refuse(id int32, a *account, until time.Time) {
	v.refused[id] = v.recipients
	a.noSlot(until, v.recipients)
}

// Free implements route.View.
func (v *view) Free(conf *route.Account) route.Why {
	a := v.accounts[conf.ID]
	a.mu.Lock()
	defer a.mu.Unlock()
	cost, refused := v.refused[conf.ID]
	switch {
	case refused && v.recipients >= cost:
		v.until[conf.ID] = a.busy
		return route.Why{Code: route.NoSlot, Reason: "no slot until " + clock(a.busy), Until: a.busy}
	case a.blocked.After(v.now):
		v.until[conf.ID] = a.blocked
		return route.Why{Code: route.Throttled, Reason: "throttled until " + clock(a.blocked), Until: a.blocked}
	case a.busy.After(v.now) && v.recipients >= a.busyCost:
		v.until[conf.ID] = a.busy
		return route.Why{Code: route.NoSlot, Reason: "no slot until " + clock(a.busy), Until: a.busy}
	case a.inflight+v.taken[conf.ID] >= a.share:
		v.until[conf.ID] = v.now
		if a.stalled(v.now) {
			return route.Why{Code: route.Stalled, Reason: fmt.Sprintf("%d calls in flight, none of which ends", a.share)}
		}
		return route.Why{Code: route.Busy, Reason: fmt.Sprintf("%d calls in flight", a.share)}
	}
	return route.Why{}
}

// room returns how many more calls the account could start, apart from slots. It is 0 if there is no slot before a known time.
func (v *view) room(a *account) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure != "" || a.conf.Paused || a.blocked.After(v.now) || a.busy.After(v.now) && a.busyCost <= 1 {
		return 0
	}
	if a.breaker.State() == gobreaker.StateOpen {
		return 0
	}
	return max(a.share-a.inflight, 0)
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }
