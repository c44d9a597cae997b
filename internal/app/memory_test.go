package app

import (
	"math"
	"testing"
)

func TestMemoryLimitFollowsTheSettingsAndTheGroup(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, c := range []struct{ queue, body, group, want int64 }{
		{96 * mib, 30 * mib, math.MaxInt64, 352 * mib},
		{96 * mib, 30 * mib, 512 * mib, 352 * mib},
		{96 * mib, 30 * mib, 256 * mib, 192 * mib},
		{256 * mib, 132 * mib, math.MaxInt64, 912 * mib},
	} {
		if got := memoryLimit(c.queue, c.body, c.group); got != c.want {
			t.Errorf("queue %d MiB, body %d MiB, group %d MiB: limit %d MiB, want %d", c.queue/mib, c.body/mib, c.group/mib, got/mib, c.want/mib)
		}
	}
}

func TestBudgetsFollowTheGroup(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, c := range []struct{ queue, body, group, wantQueue, wantBodies int64 }{
		{96 * mib, 30 * mib, math.MaxInt64, 96 * mib, 40 * mib},
		{96 * mib, 30 * mib, 512 * mib, 96 * mib, 40 * mib},
		{96 * mib, 30 * mib, 250 * mib, 50 * mib, 30 * mib},
		{96 * mib, 10 * mib, 250 * mib, 50 * mib, 250 * mib / 12},
		{1024 * mib, 30 * mib, 500 * mib, 100 * mib, 40 * mib},
		{1024 * mib, 200 * mib, 512 * mib, 200 * mib, 200 * mib}, // the largest that was allowed has to fit
	} {
		if queue, bodies := budgets(c.queue, c.body, c.group); queue != c.wantQueue || bodies != c.wantBodies {
			t.Errorf("queue %d MiB, body %d MiB, group %d MiB: %d and %d, want %d and %d", c.queue/mib, c.body/mib, c.group/mib, queue, bodies, c.wantQueue, c.wantBodies)
		}
	}
}
