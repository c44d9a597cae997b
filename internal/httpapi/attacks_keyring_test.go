package httpapi

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// Keys that one address forges beyond its allowance are not looked up one by one: the list of all ids, read once a second,
// refuses them.
func TestForgedKeysBeyondTheAllowanceAreNotLookedUp(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]func(i int) string{
		"an address":      func(int) string { return "198.51.100.1" },
		"an IPv6 network": func(i int) string { return fmt.Sprintf("[2001:db8::%x]", i+1) },
	} {
		r := newRig(t)
		for second := range 3 {
			for i := range 200 {
				_, wrong, _ := NewKey()
				if got := r.at(source(i), wrong); got != 401 && got != 429 {
					t.Errorf("%s: a forged key = %d", name, got)
				}
			}
			if got := r.store.count("KeyByID"); got > failuresPerMinute+second {
				t.Errorf("%s: %d look-ups in %d s, want no more than the allowance of %d a minute", name, got, second, failuresPerMinute)
			}
			if got := r.store.count("KeyIDs"); got != second+1 {
				t.Errorf("%s: the list was read %d times in %d s, want once a second", name, got, second)
			}
			r.clock.move(time.Second)
		}
	}
}

// A key that is known is served while the database hangs over reading it again, and no longer than keyGrace.
func TestKnownKeyIsServedWhileItIsReadAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.AcceptWait = 200 * time.Millisecond })
	if got := r.at("192.0.2.1", r.read); got != 200 {
		t.Fatalf("at first = %d", got)
	}
	r.store.intercept(func(ctx context.Context, method string) error { // the database hangs
		if method != "KeyByID" {
			return nil
		}
		<-ctx.Done()
		return &record.Unavailable{Reason: "database", RetryAfter: time.Second, Err: ctx.Err()}
	})
	for age, want := range map[time.Duration]int{keyTTL - time.Millisecond: 200, keyTTL: 200, keyTTL + keyGrace - time.Millisecond: 200, keyTTL + keyGrace: 503} {
		r.server.keys.mu.Lock()
		r.server.keys.entries[r.read[3:11]] = keyEntry{r.server.keys.entries[r.read[3:11]].key, r.clock.now().Add(-age)}
		r.server.keys.mu.Unlock()
		if got := r.at("192.0.2.1", r.read); got != want {
			t.Errorf("read %s ago, while the database hangs = %d, want %d", age, got, want)
		}
	}
}
