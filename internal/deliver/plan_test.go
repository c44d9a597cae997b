package deliver

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/sony/gobreaker/v2"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/route"
)

func testLane() queue.Lane { return queue.Lane{Number: 1, Tenant: 1} }

// testDue is a message that is due at noon and may wait for an hour.
func testDue(changes ...func(*queue.Due)) queue.Due {
	d := queue.Due{
		ID: mail.NewID(), Lane: testLane(), Due: noon(), ExpiresAt: noon().Add(time.Hour),
		Facts: &mail.Facts{Sender: "shop@example.com", SenderDomain: "example.com", Recipients: 1},
	}
	for _, change := range changes {
		change(&d)
	}
	return d
}

func dues(n int) []queue.Due {
	due := make([]queue.Due, n)
	for i := range due {
		due[i] = testDue()
	}
	return due
}

// ours is noon by our clock, which is slow.
func ours() time.Time { return noon().Add(-3 * time.Second) }

// testInput is a claim at noon that found these messages. They go to account a unless something keeps them from it: the
// weight of b, in the same pool, is next to nothing.
func testInput(due ...queue.Due) claimInput {
	return claimInput{
		now: noon(),
		config: &route.Config{
			Accounts: []route.Account{{ID: 1, Name: "a", Concurrency: 300}, {ID: 2, Name: "b", Concurrency: 300}},
			Pools: []route.Pool{
				{ID: 1, Name: route.DefaultPool, Overflow: route.Wait, Members: []route.Member{{Account: "a", Weight: 1e6}, {Account: "b", Weight: 1e-6}}},
				{ID: 2, Name: "bulk", Overflow: route.Wait, Members: []route.Member{{Account: "a", Weight: 1}}},
			},
			Rules: []route.Rule{{ID: 1, Stream: "bulk", Pool: "bulk"}},
		},
		view:   &view{now: ours(), accounts: map[int32]*standing{1: {share: 300}, 2: {share: 300}}},
		quotas: []queue.LaneQuota{{Lane: testLane(), Max: 256}},
		limits: map[int32]*limit.Account{1: {}, 2: {}},
		due:    due,
	}
}

// fates says in words what becomes of each message; neighbours with the same fate share a line.
func fates(in claimInput, p claimPlan) []string {
	fate := map[mail.ID]string{}
	for _, it := range p.items {
		fate[it.due.ID] = fmt.Sprintf("to account %d in %s", it.account, it.slot.Sub(ours()))
		if len(it.probes) > 0 {
			fate[it.due.ID] += fmt.Sprintf(" as a probe of %q", it.probes)
		}
		for _, other := range it.others {
			fate[other.due.ID] = "joins it"
		}
	}
	for _, h := range p.Hold {
		fate[h.ID] += "held for " + h.Until.Sub(noon()).String()
	}
	for _, e := range p.ends {
		fate[e.ID] += string(e.Status) + ": " + e.Detail
	}
	for _, l := range p.lapses {
		fate[l.ID] += "unknown again"
	}
	for _, r := range p.Relane {
		fate[r.ID] += fmt.Sprintf(", to lane %d", r.Lane)
	}
	of := func(d queue.Due) string {
		if fate[d.ID] == "" {
			return "stays"
		}
		return fate[d.ID]
	}
	var lines []string
	n := 0
	for i, d := range in.due {
		s := of(d)
		if n++; i+1 < len(in.due) && of(in.due[i+1]) == s {
			continue
		}
		if n > 1 {
			s = fmt.Sprintf("%d times: %s", n, s)
		}
		lines, n = append(lines, s), 0
	}
	return lines
}

func avoiding(avoid map[string]queue.Avoid) func(*queue.Due) {
	return func(d *queue.Due) { d.Avoid = avoid }
}

func repeating(by time.Time) func(*queue.Due) {
	return avoiding(map[string]queue.Avoid{"a": {Repeat: &queue.Repeat{N: 1, By: by}}})
}

func sized(bytes int64) func(*queue.Due) { return func(d *queue.Due) { d.Facts.Bytes = bytes } }

func to(recipients int) func(*queue.Due) {
	return func(d *queue.Due) { d.Facts.Recipients = recipients }
}

func inStream(name string) func(*queue.Due) { return func(d *queue.Due) { d.Facts.Stream = name } }

func expiring(at time.Time) func(*queue.Due) { return func(d *queue.Due) { d.ExpiresAt = at } }

func TestPlanClaimFollowsTheTable(t *testing.T) {
	t.Parallel()
	const ms, mb = time.Millisecond, int64(1 << 20)
	paced := func(next time.Duration) *limit.Account { // 10/s, whose next slot comes after so long
		return &limit.Account{Ledgers: []limit.Ledger{{Window: limit.Window{N: 10, Per: time.Second, Unit: limit.Requests}, TAT: noon().Add(200*ms + next)}}}
	}
	onlyA := func(in *claimInput) { in.config.Pools[0].Members = in.config.Pools[0].Members[:1] }
	fullA := func(in *claimInput) { in.view.accounts[1].inflight = 300 }
	cases := []struct {
		name    string
		due     []queue.Due
		arrange func(*claimInput)
		fates   []string
		lane    laneReport
		want    claimPlan // what else it holds
	}{
		{
			name: "it goes to its account", due: []queue.Due{testDue(), testDue(func(d *queue.Due) { d.Due = noon().Add(ms) })},
			fates: []string{"2 times: to account 1 in 0s"}, lane: laneReport{took: 2},
		},
		{
			name: "a slot within the horizon is taken ahead", due: []queue.Due{testDue()},
			arrange: func(in *claimInput) { in.limits[1] = paced(30 * ms) },
			fates:   []string{"to account 1 in 30ms"}, lane: laneReport{took: 1},
		},
		{
			name: "a later slot is waited for, and others may pass", due: []queue.Due{testDue(), testDue()},
			arrange: func(in *claimInput) { in.limits[1] = paced(300 * ms) },
			fates:   []string{"2 times: stays"}, lane: laneReport{atHead: 2, room: ours().Add(275 * ms)},
			want: claimPlan{noSlot: []noSlot{{1, ours().Add(275 * ms), 1}}, room: ours().Add(275 * ms)},
		},
		{
			name: "a pool that spills gives it to the next account", due: []queue.Due{testDue(), testDue()},
			arrange: func(in *claimInput) { in.limits[1], in.config.Pools[0].Overflow = paced(300*ms), route.Spill },
			fates:   []string{"2 times: to account 2 in 0s"}, lane: laneReport{took: 2},
			want: claimPlan{noSlot: []noSlot{{1, ours().Add(275 * ms), 1}}},
		},
		{
			name: "a lane without another account sleeps until its own has a slot", due: []queue.Due{testDue(), testDue()},
			arrange: func(in *claimInput) { onlyA(in); in.limits[1] = paced(300 * ms) },
			fates:   []string{"2 times: stays"}, lane: laneReport{room: ours().Add(275 * ms), asleep: ours().Add(275 * ms)},
			want: claimPlan{noSlot: []noSlot{{1, ours().Add(275 * ms), 1}}},
		},
		{
			name: "the concurrency holds over all replicas", due: []queue.Due{testDue(), testDue(), testDue()},
			arrange: func(in *claimInput) { onlyA(in); in.limits[1] = &limit.Account{Open: limit.Open{Calls: 298}} },
			fates:   []string{"2 times: to account 1 in 0s", "stays"}, lane: laneReport{took: 2, room: ours().Add(20 * ms)},
			want: claimPlan{noSlot: []noSlot{{1, ours().Add(20 * ms), 1}}},
		},
		{
			name: "where many recipients find no slot, few may", due: []queue.Due{testDue(to(5)), testDue(to(2)), testDue(to(5))},
			arrange: func(in *claimInput) {
				in.limits[1] = &limit.Account{Open: limit.Open{Recipients: 6}, Ledgers: []limit.Ledger{{Window: limit.Window{N: 10, Per: time.Minute, Unit: limit.Recipients}}}}
			},
			fates: []string{"stays", "to account 1 in 0s", "stays"}, lane: laneReport{took: 1, atHead: 2, room: ours().Add(20 * ms)},
			want: claimPlan{noSlot: []noSlot{{1, ours().Add(20 * ms), 5}}, room: ours().Add(20 * ms)},
		},
		{
			name: "a limit was lowered below its cost", due: []queue.Due{testDue(to(2))},
			arrange: func(in *claimInput) {
				onlyA(in)
				in.limits[1] = &limit.Account{Ledgers: []limit.Ledger{{Window: limit.Window{N: 1, Per: time.Second, Unit: limit.Recipients}}}}
			},
			fates: []string{"stays"}, lane: laneReport{room: ours().Add(1975 * ms), asleep: ours().Add(1975 * ms)},
			want: claimPlan{noSlot: []noSlot{{1, ours().Add(1975 * ms), 2}}},
		},
		{
			name: "an account has room for some", due: []queue.Due{testDue(), testDue(), testDue()},
			arrange: func(in *claimInput) { onlyA(in); in.view.accounts[1].share = 2 },
			fates:   []string{"2 times: to account 1 in 0s", "stays"}, lane: laneReport{took: 2, room: ours().Add(maxHold), calls: true},
		},
		{
			name: "only the next few for a full account stay, the others come back by turns",
			due:  dues(keepAtHead + 3), arrange: func(in *claimInput) { fullA(in); in.view.accounts[1].gap = 100 * ms },
			fates: []string{"32 times: stays", "held for 50ms", "held for 100ms", "held for 150ms"},
			lane:  laneReport{atHead: keepAtHead, heldBack: 3, room: ours().Add(maxHold), calls: true},
			want:  claimPlan{turns: map[int32]time.Time{1: ours().Add(150 * ms)}, room: ours().Add(maxHold)},
		},
		{
			name: "more for a full account may lie behind", due: dues(3),
			arrange: func(in *claimInput) { fullA(in); in.quotas[0].Max = 3 },
			fates:   []string{"3 times: stays"}, lane: laneReport{atHead: 3, room: ours().Add(maxHold), calls: true}, want: claimPlan{room: ours().Add(maxHold), deeper: true},
		},
		{
			name: "a lane whose account has all its calls in flight sleeps until one ends", due: []queue.Due{testDue()},
			arrange: func(in *claimInput) { onlyA(in); in.view.accounts[1].share = 0 },
			fates:   []string{"stays"}, lane: laneReport{room: ours().Add(maxHold), calls: true, asleep: ours().Add(laneNap)},
		},
		{
			name: "all accounts are full for long", due: []queue.Due{testDue()},
			arrange: func(in *claimInput) {
				in.view.accounts[1].blocked, in.view.accounts[2].blocked = ours().Add(time.Hour), ours().Add(time.Hour)
			},
			fates: []string{"stays"}, lane: laneReport{room: ours().Add(maxHold), asleep: ours().Add(laneNap)},
		},
		{
			name: "all accounts are full for long, and others of the lane are taken", due: []queue.Due{testDue(), testDue(func(d *queue.Due) { d.Facts.Account = "b" })},
			arrange: func(in *claimInput) { onlyA(in); in.view.accounts[1].blocked = ours().Add(4 * time.Second) },
			fates:   []string{"held for 4s", "to account 2 in 0s"}, lane: laneReport{took: 1, room: ours().Add(4 * time.Second)},
		},
		{
			name: "nobody can ever carry it", due: []queue.Due{testDue(avoiding(map[string]queue.Avoid{"a": {Final: true, Why: "too large"}, "b": {Final: true, Why: "no"}}))},
			fates: []string{"failed: no account can carry this message; a: tried: too large; b: tried: no"}, lane: laneReport{ended: 1},
		},
		{
			name: "it has expired", due: []queue.Due{testDue(expiring(noon())), testDue(expiring(noon().Add(ms)))},
			fates: []string{"expired: not sent before expires_at", "to account 1 in 0s"}, lane: laneReport{ended: 1, took: 1},
		},
		{
			name: "more may lie behind those that have expired", due: []queue.Due{testDue(expiring(noon()))},
			arrange: func(in *claimInput) { in.quotas[0].Max = 1 },
			fates:   []string{"expired: not sent before expires_at"}, lane: laneReport{ended: 1}, want: claimPlan{deeper: true},
		},
		{
			name: "a repeat goes to the account of its call", due: []queue.Due{testDue(repeating(noon().Add(ms)))},
			arrange: func(in *claimInput) { in.config.Pools[0].Members[0].Weight = 1e-12 },
			fates:   []string{"to account 1 in 0s"}, lane: laneReport{took: 1},
		},
		{
			name: "a repeat that is late lapses, expired or not", due: []queue.Due{testDue(repeating(noon())), testDue(repeating(noon().Add(ms)), expiring(noon()))},
			fates: []string{"2 times: unknown again"}, lane: laneReport{ended: 2},
		},
		{
			name: "a repeat whose account cannot carry it any more lapses", due: []queue.Due{testDue(repeating(noon().Add(ms)), to(2))},
			arrange: func(in *claimInput) {
				onlyA(in)
				in.config.Accounts[0].Limits = []limit.Window{{N: 1, Per: time.Second, Unit: limit.Recipients}}
			},
			fates: []string{"unknown again"}, lane: laneReport{ended: 1},
		},
		{
			name: "a repeat waits for its account no longer than it may", due: []queue.Due{testDue(repeating(noon().Add(7 * time.Second)))},
			arrange: func(in *claimInput) { in.config.Accounts[0].Paused = true },
			fates:   []string{"held for 7s"}, lane: laneReport{unfit: 1},
		},
		{
			name: "large messages wait for each other, small ones don't", due: []queue.Due{testDue(sized(40 * mb)), testDue(sized(40 * mb)), testDue(sized(mb / 8))},
			fates: []string{"to account 1 in 0s", "stays", "to account 1 in 0s"}, lane: laneReport{took: 2, room: ours().Add(heavyRetry)},
		},
		{
			name: "a large message waits for those that are carried", due: []queue.Due{testDue(sized(40 * mb))},
			arrange: func(in *claimInput) { in.heavy = 25 * mb },
			fates:   []string{"stays"}, lane: laneReport{room: ours().Add(heavyRetry), asleep: ours().Add(heavyRetry)},
		},
		{
			name: "a large message goes alone, whatever its size", due: []queue.Due{testDue(sized(100 * mb))},
			fates: []string{"to account 1 in 0s"}, lane: laneReport{took: 1},
		},
		{
			name: "this replica carries it", due: []queue.Due{testDue(), testDue()},
			arrange: func(in *claimInput) { in.carried = map[mail.ID]bool{in.due[0].ID: true} },
			fates:   []string{"stays", "to account 1 in 0s"}, lane: laneReport{took: 1, room: ours().Add(heavyRetry)},
		},
		{
			name:    "it waits for its own retry, and nobody waits for it",
			due:     []queue.Due{testDue(avoiding(map[string]queue.Avoid{"a": {Until: noon().Add(9 * time.Second)}, "b": {Until: noon().Add(8 * time.Second)}}))},
			arrange: func(in *claimInput) { in.quotas[0].Max = 1 },
			fates:   []string{"held for 8s"}, lane: laneReport{unfit: 1}, want: claimPlan{deeper: true},
		},
		{
			name: "breakers are open", due: []queue.Due{testDue(), testDue(expiring(noon().Add(time.Second)))},
			arrange: func(in *claimInput) {
				in.view.accounts[1].breaker, in.view.accounts[2].breaker = gobreaker.StateOpen, gobreaker.StateOpen
			},
			fates: []string{"held for 5s", "held for 1s"}, lane: laneReport{asleep: ours().Add(laneNap)},
		},
		{
			name: "all accounts are paused", due: []queue.Due{testDue()},
			arrange: func(in *claimInput) { in.config.Accounts[0].Paused, in.config.Accounts[1].Paused = true, true },
			fates:   []string{"held for 1m0s"}, lane: laneReport{asleep: ours().Add(laneNap)},
		},
		{
			name: "a breaker that is half open lets one through", due: []queue.Due{testDue(), testDue()},
			arrange: func(in *claimInput) { in.view.accounts[1].breaker = gobreaker.StateHalfOpen },
			fates:   []string{"to account 1 in 0s", "to account 2 in 0s"}, lane: laneReport{took: 2},
		},
		{
			name: "one message probes a park", due: []queue.Due{testDue(), testDue()},
			arrange: func(in *claimInput) {
				parks := []route.Park{route.ParkFor("example.com"), route.ParkFor("shop@example.com"), route.ParkFor("example.net")}
				in.config.Accounts[0].Parked = parks
				in.view.accounts[1].parked, in.view.accounts[1].probes = parks, []string{"example.com", "shop@example.com", "example.net"}
			},
			fates: []string{`to account 1 in 0s as a probe of ["example.com" "shop@example.com"]`, "to account 2 in 0s"}, lane: laneReport{took: 2},
		},
		{
			name: "it belongs to another lane now, unless it goes at once", due: []queue.Due{testDue(inStream("bulk")), testDue(inStream("bulk"))},
			arrange: func(in *claimInput) { in.view.accounts[1].share = 1 },
			fates:   []string{"to account 1 in 0s", ", to lane 2"}, lane: laneReport{took: 1, room: ours().Add(maxHold), calls: true},
			want: claimPlan{refilled: []queue.Lane{{Number: 2, Tenant: 1}}},
		},
		{
			name: "it belongs to another lane now, and is held there", due: []queue.Due{testDue(inStream("bulk"))},
			arrange: func(in *claimInput) { in.config.Accounts[0].Paused = true },
			fates:   []string{"held for 1m0s, to lane 2"}, lane: laneReport{asleep: ours().Add(laneNap)},
			want: claimPlan{refilled: []queue.Lane{{Number: 2, Tenant: 1}}},
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			in := testInput(tc.due...)
			if tc.arrange != nil {
				tc.arrange(&in)
			}
			got := planClaim(in)
			if diff := cmp.Diff(tc.fates, fates(in, got)); diff != "" {
				t.Errorf("what becomes of the messages (-want +got):\n%s", diff)
			}
			tc.lane.rows, tc.lane.oldest = len(tc.due), noon()
			tc.want.lanes = map[queue.Lane]*laneReport{testLane(): &tc.lane}
			diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(claimPlan{}, laneReport{}, noSlot{}), cmpopts.EquateEmpty(),
				cmpopts.IgnoreFields(claimPlan{}, "Claim", "items", "ends", "lapses")) // fates showed these
			if diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}
