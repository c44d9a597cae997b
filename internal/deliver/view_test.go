package deliver

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/route"
)

// viewOf is a view at noon of one account.
func viewOf(s standing) *view {
	return &view{now: noon(), recipients: 1, accounts: map[int32]*standing{1: &s}}
}

func TestMessagesComeBackAboutTwiceAsFastAsTheirAccountTakesThem(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	per := func(n int, per time.Duration) []limit.Window { return []limit.Window{{N: n, Per: per}} }
	for name, tc := range map[string]struct {
		account standing
		first   time.Duration // when it has room
		want    time.Duration
	}{
		"nothing is known":                   {standing{}, 0, ms / 2},
		"calls end":                          {standing{gap: 300 * ms}, 0, 150 * ms},
		"calls end seldom":                   {standing{gap: time.Minute}, 0, 500 * ms},
		"it has room later":                  {standing{gap: 300 * ms}, time.Minute, time.Minute + 150*ms},
		"it had room":                        {standing{gap: 300 * ms}, -time.Minute, 150 * ms},
		"others are held for it":             {standing{gap: 300 * ms, turn: noon().Add(time.Second)}, 0, 1150 * ms},
		"its limit is slower than its calls": {standing{gap: 300 * ms, limits: per(6, time.Minute)}, 0, 5 * time.Second},
		"its calls carry many":               {standing{gap: 30 * ms, perCall: 10, limits: []limit.Window{{N: 6, Per: time.Minute, Unit: limit.Requests}}}, 0, 500 * ms},
		"its messages are limited":           {standing{gap: 30 * ms, perCall: 10, limits: []limit.Window{{N: 6, Per: time.Minute, Unit: limit.Messages}}}, 0, 5 * time.Second},
		"many small calls":                   {standing{perCall: 100}, 0, ms / 200},
		"a long window":                      {standing{gap: 300 * ms, limits: per(1, time.Hour)}, 0, 150 * ms},
		"many are held for it":               {standing{gap: 300 * ms, turn: noon().Add(time.Minute)}, 0, longestGuess},
		"many are held for calls, beside a long window that has room": {standing{gap: 300 * ms, limits: per(1_000_000, time.Hour), turn: noon().Add(time.Minute)}, 0, longestGuess},
		"many are held for a long window that is used up":             {standing{gap: 300 * ms, limits: per(100, time.Hour), turn: noon().Add(time.Hour)}, time.Minute, time.Minute + longestTurn},
		"many are held for it, and it has a limit":                    {standing{limits: per(6, time.Minute), turn: noon().Add(time.Hour)}, 0, longestTurn},
	} {
		v := viewOf(tc.account)
		if got := v.nextTurn(&route.Account{ID: 1}, noon().Add(tc.first)).Sub(noon()); got != tc.want {
			t.Errorf("%s: held for %s, want %s", name, got, tc.want)
		}
	}
}

func TestAnAccountKnowsHowManyMessagesItsCallsCarry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(route.Account{ID: 1}, 10)
		for range 15 {
			time.Sleep(100 * time.Millisecond)
			a.start()
			a.done(5)
		}
		if s := a.standing(time.Now()); s.perCall != 5 || s.gap < 15*time.Millisecond || s.gap > 25*time.Millisecond {
			t.Errorf("%d messages in a call, one in %s; want 5, one in 20 ms", s.perCall, s.gap)
		}
	})
}

func TestRoomIsForCallsThatCouldStart(t *testing.T) {
	t.Parallel()
	soon := noon().Add(time.Second)
	for name, tc := range map[string]struct {
		account standing
		want    int
	}{
		"two calls in flight":           {standing{share: 10, inflight: 2}, 8},
		"its share became less":         {standing{share: 1, inflight: 2}, 0},
		"not usable":                    {standing{share: 10, failure: "settings"}, 0},
		"paused":                        {standing{share: 10, paused: true}, 0},
		"throttled":                     {standing{share: 10, blocked: soon}, 0},
		"throttled before":              {standing{share: 10, blocked: noon()}, 10},
		"no slot":                       {standing{share: 10, busy: soon, busyCost: 1}, 0},
		"no slot for many recipients":   {standing{share: 10, busy: soon, busyCost: 2}, 10},
		"breaker open":                  {standing{share: 10, breaker: gobreaker.StateOpen}, 0},
		"breaker half open":             {standing{share: 10, breaker: gobreaker.StateHalfOpen}, 10},
		"what calls carry is not known": {standing{share: 10, inflight: 6, batch: upTo(500)}, 400},
		"calls could carry a few":       {standing{share: 10, inflight: 6, batch: upTo(2)}, 8},
		"many calls carry one each":     {standing{share: 100, perCall: 1, gap: time.Millisecond / 2, batch: upTo(500)}, 125},
		"few of them do":                {standing{share: 10, inflight: 6, perCall: 1, gap: 20 * time.Millisecond, batch: upTo(500)}, 160},
		"calls are rare":                {standing{share: 10, inflight: 6, perCall: 2, gap: time.Second, batch: upTo(500)}, 400},
		"calls carry many":              {standing{share: 10, inflight: 6, perCall: 20, batch: upTo(500)}, 160},
		"calls are full":                {standing{share: 10, inflight: 6, perCall: 500, batch: upTo(500)}, 2000},
	} {
		if got := viewOf(tc.account).room(); got != tc.want {
			t.Errorf("%s: room for %d, want %d", name, got, tc.want)
		}
	}
}
