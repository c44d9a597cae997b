package deliver

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

func testLanes(n int) (*lanes, []queue.Lane) {
	l := &lanes{}
	l.init()
	var ids []queue.Lane
	for i := range n {
		id := queue.Lane{Number: 1, Tenant: mail.TenantID(i + 1)} //nolint:gosec // a handful
		l.note(id)
		ids = append(ids, id)
	}
	return l, ids
}

// grow makes a lane ask for as much as it may.
func grow(l *lanes, id queue.Lane) {
	for range 10 {
		l.learn(queue.LaneQuota{Lane: id, Max: 1}, &laneReport{rows: 1, took: 1})
	}
}

func TestRoomIsDividedByTenantWeight(t *testing.T) {
	t.Parallel()
	l, ids := testLanes(2)
	grow(l, ids[0])
	grow(l, ids[1])
	l.refresh(ids, []record.Tenant{{ID: 1, Weight: 300}, {ID: 2, Weight: 100}}, noon())
	quotas, _ := l.ask(200, noon())
	got := map[mail.TenantID]int{}
	for _, q := range quotas {
		got[q.Tenant] = q.Max
	}
	if got[1] != 150 || got[2] != 50 {
		t.Errorf("quotas = %v, want 150 and 50", got)
	}
}

func TestManyTenantsTakeTurns(t *testing.T) {
	t.Parallel()
	l, ids := testLanes(30)
	served := map[queue.Lane]int{}
	for range 9 {
		quotas, _ := l.ask(10, noon())
		if len(quotas) != 10 {
			t.Fatalf("asked for %d lanes with room for 10", len(quotas))
		}
		for _, q := range quotas {
			served[q.Lane]++
		}
	}
	for _, id := range ids {
		if served[id] != 3 {
			t.Errorf("tenant %d was served %d times in 9 claims of 10, want 3", id.Tenant, served[id])
		}
	}
}

func TestALaneWithoutRoomSleepsUntilItsAccountHasSome(t *testing.T) {
	t.Parallel()
	l, ids := testLanes(2)
	until := noon().Add(700 * time.Millisecond)
	l.learn(queue.LaneQuota{Lane: ids[0], Max: 16}, &laneReport{rows: 16, asleep: until})
	quotas, wakes := l.ask(100, noon())
	if len(quotas) != 1 || quotas[0].Lane != ids[1] || !wakes.Equal(until) {
		t.Errorf("ask = %v, wakes %s: want only the other lane, and to wake at %s", quotas, wakes, until)
	}
	if quotas, _ = l.ask(100, until); len(quotas) != 2 {
		t.Errorf("ask at its time = %v, want both lanes", quotas)
	}
	l.learn(queue.LaneQuota{Lane: ids[0], Max: 16}, &laneReport{rows: 16, asleep: until.Add(time.Hour)})
	l.awaken()
	if quotas, _ = l.ask(100, until); len(quotas) != 2 {
		t.Errorf("ask after a change of configuration = %v, want both lanes", quotas)
	}
}

func TestTheEndOfACallWakesTheLanesThatWaitForIt(t *testing.T) {
	t.Parallel()
	l, ids := testLanes(3)
	l.callEnded() // before any of them slept
	if quotas, _ := l.ask(100, noon()); len(quotas) != 3 {
		t.Fatalf("ask = %v, want all lanes", quotas)
	}
	l.learn(queue.LaneQuota{Lane: ids[0], Max: 16}, &laneReport{rows: 16, asleep: noon().Add(laneNap), calls: true})
	l.learn(queue.LaneQuota{Lane: ids[1], Max: 16}, &laneReport{rows: 16, asleep: noon().Add(laneNap)}) // its account is blocked
	if quotas, _ := l.ask(100, noon()); len(quotas) != 1 || quotas[0].Lane != ids[2] {
		t.Errorf("ask = %v, want the lane that does not sleep", quotas)
	}
	l.callEnded()
	for _, want := range []int{2, 2} { // what was asked stays awake until it is found full again
		if quotas, _ := l.ask(100, noon()); len(quotas) != want {
			t.Errorf("ask after the end of a call = %v, want %d lanes", quotas, want)
		}
	}
	l.learn(queue.LaneQuota{Lane: ids[0], Max: 16}, &laneReport{rows: 16, asleep: noon().Add(laneNap), calls: true})
	l.callEnded()
	l.ask(0, noon())
	if quotas, _ := l.ask(100, noon()); len(quotas) != 2 {
		t.Errorf("ask after one that had no room = %v, want that the end is not forgotten", quotas)
	}
}

func TestTheLowWaterMarkFollowsTheOldestRowAndIsForgotten(t *testing.T) {
	t.Parallel()
	l, ids := testLanes(1)
	first, _ := l.ask(10, noon())
	if !first[0].Low.IsZero() {
		t.Fatalf("first claim starts at %s, want the beginning", first[0].Low)
	}
	oldest := noon().Add(-time.Minute)
	l.learn(first[0], &laneReport{rows: 10, took: 10, oldest: oldest})
	next, _ := l.ask(10, noon().Add(time.Second))
	if want := oldest.Add(-markMargin); !next[0].Low.Equal(want) {
		t.Errorf("next claim starts at %s, want %s", next[0].Low, want)
	}
	l.rewind(ids[0])
	if q, _ := l.ask(10, noon().Add(2*time.Second)); !q[0].Low.IsZero() {
		t.Errorf("claim after a rewind starts at %s, want the beginning", q[0].Low)
	}
	l.learn(next[0], &laneReport{rows: 10, took: 10, oldest: oldest})
	if q, _ := l.ask(10, noon().Add(markForget+time.Second)); !q[0].Low.IsZero() {
		t.Errorf("claim after %s starts at %s, want a full sweep", markForget, q[0].Low)
	}
}

func TestALaneAsksForMoreWhileAllIsTaken(t *testing.T) {
	t.Parallel()
	l, ids := testLanes(1)
	var asked []int
	for range 7 {
		q, _ := l.ask(1000, noon())
		asked = append(asked, q[0].Max)
		l.learn(q[0], &laneReport{rows: q[0].Max, took: q[0].Max, oldest: noon()})
	}
	if asked[0] != 16 || asked[6] != maxClaim {
		t.Errorf("asked for %v rows, want growth from 16 to %d", asked, maxClaim)
	}
	q, _ := l.ask(1000, noon())
	l.learn(q[0], &laneReport{rows: q[0].Max, took: 3, oldest: noon()})
	if q, _ = l.ask(1000, noon()); q[0].Max != 16 {
		t.Errorf("after taking 3 of %d it asks for %d, want 16", maxClaim, q[0].Max)
	}
	for range 9 {
		l.learn(q[0], &laneReport{rows: q[0].Max, fill: maxTogether})
		q, _ = l.ask(1000, noon())
	}
	if q[0].Max != maxTogether {
		t.Errorf("while an account that takes many in a call is full, it asks for %d, want %d", q[0].Max, maxTogether)
	}
	l.refresh(ids, nil, noon().Add(24*time.Hour))
}
