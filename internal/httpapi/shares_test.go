package httpapi

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func from(ip string) holder { return network(netip.MustParseAddr(ip)) }

// fill takes places until there are no more, and gives how many.
func fill(p *pool, who holder, cut func()) int {
	n := 0
	for p.take(who, 1, cut) != nil {
		n++
	}
	return n
}

func TestHolderLeavesAsMuchAsItHas(t *testing.T) {
	t.Parallel()
	p := newPool(96, 0)
	for i, want := range []int{48, 24, 12, 6, 3, 1, 1, 1} {
		if got := fill(p, from(fmt.Sprintf("192.0.2.%d", i)), nil); got != want {
			t.Errorf("holder %d got %d places, want %d", i, got, want)
		}
	}
	if got := fill(p, from("::ffff:192.0.2.0"), nil); got != 0 {
		t.Errorf("the same address in another form got %d more", got)
	}
	p = newPool(96, 0)
	if a, b := fill(p, from("2001:db8::1"), nil), fill(p, from("2001:db8::ffff"), nil); a != 48 || b != 0 {
		t.Errorf("two addresses of one /64 got %d and %d places, want 48 for both", a, b)
	}
	if got := fill(newPool(96, 10), from("192.0.2.1"), nil); got != 10 {
		t.Errorf("places of a holder that may have 10 = %d", got)
	}
	if got := fill(newPool(96, 0), holder{}, nil); got != 96 {
		t.Errorf("places for nobody in particular = %d, want all", got)
	}
}

func TestLargePlaceIsGivenWhileItIsTheOnlyOne(t *testing.T) {
	t.Parallel()
	p := newPool(40, 0)
	x := p.take(from("192.0.2.1"), 22, nil)
	if x == nil || !x.grow(8) || x.grow(20) {
		t.Fatalf("place = %+v, want 22, then 30, and not more than there is", x)
	}
	if p.take(from("192.0.2.1"), 5, nil) != nil || p.take(from("192.0.2.2"), 5, nil) == nil {
		t.Error("want no second place for whoever has most, and one for another")
	}
	x.release()
	x.release()
	if p.taken != 5 || len(p.held) != 1 {
		t.Errorf("left after a release: %d of %v", p.taken, p.held)
	}
}

// stalled is a body of which a part comes, and then nothing until it is cut.
type stalled struct {
	part string
	end  chan struct{}
}

func (s *stalled) Read(p []byte) (int, error) {
	if s.part != "" {
		n := copy(p, s.part)
		s.part = s.part[n:]
		return n, nil
	}
	<-s.end
	return 0, io.ErrClosedPipe
}

func TestWhoeverKeepsUsWaitingGivesWayToOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(40, 0)
		slow := &stalled{strings.Repeat("x", 1<<20), make(chan struct{})}
		x := p.take(from("192.0.2.1"), 30, sync.OnceFunc(func() { close(slow.end) }))
		done := make(chan error)
		go func() {
			_, err := io.Copy(io.Discard, paced{x, slow})
			done <- err
		}()
		time.Sleep(patience - time.Millisecond)
		synctest.Wait()
		if p.take(from("192.0.2.2"), 30, nil) != nil {
			t.Error("a place was taken from one who is still within the patience")
		}
		time.Sleep(time.Millisecond)
		other := p.take(from("192.0.2.2"), 30, nil)
		if err := <-done; other == nil || err == nil {
			t.Errorf("other = %v, and the slow one ended with %v", other, err)
		}
		if x.release(); p.taken != 30 {
			t.Errorf("taken = %d, want what the other has", p.taken)
		}
	})
}

// flow is a body of so many bytes per second.
type flow struct {
	perSecond int
	stop      *atomic.Bool
}

func (f flow) Read(p []byte) (int, error) {
	if f.stop.Load() {
		return 0, io.EOF
	}
	time.Sleep(100 * time.Millisecond)
	return min(len(p), f.perSecond/10), nil
}

func TestFlowKeepsItsPlaceAndATrickleDoesNot(t *testing.T) {
	t.Parallel()
	for perSecond, keeps := range map[int]bool{slowest * 2: true, slowest + slowest/8: true, slowest / 2: false, 10: false} {
		synctest.Test(t, func(t *testing.T) {
			p := newPool(1, 0)
			x := p.take(from("192.0.2.1"), 1, func() {})
			var stop atomic.Bool
			var all sync.WaitGroup
			all.Go(func() { _, _ = io.Copy(io.Discard, paced{x, flow{perSecond, &stop}}) })
			time.Sleep(20*time.Second + time.Millisecond)
			if kept := p.take(from("192.0.2.2"), 1, nil) == nil; kept != keeps {
				t.Errorf("%d bytes a second kept the place: %t, want %t", perSecond, kept, keeps)
			}
			stop.Store(true)
			all.Wait()
		})
	}
}

// What is being worked on waits for no client.
func TestPlaceIsKeptWhileItsWorkIsDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(1, 0)
		x := p.take(from("192.0.2.1"), 1, func() { t.Error("cut") })
		if _, err := io.Copy(io.Discard, paced{x, strings.NewReader("body")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if p.take(from("192.0.2.2"), 1, nil) != nil {
			t.Error("the place was given to another")
		}
	})
}

func TestTurnComesInOrderAndByShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(4, 0)
		var got []string
		var mu sync.Mutex
		var all sync.WaitGroup
		for _, who := range []string{"192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"} {
			all.Go(func() {
				x := p.wait(t.Context(), from(who), nil)
				mu.Lock()
				got = append(got, who)
				mu.Unlock()
				time.Sleep(time.Second)
				x.release()
			})
			synctest.Wait()
		}
		mu.Lock()
		first := strings.Join(got, " ")
		mu.Unlock()
		if first != "192.0.2.1 192.0.2.1 192.0.2.2" {
			t.Errorf("had their turn at once: %s, want two of the first and the other", first)
		}
		all.Wait()
		if len(got) != 5 || p.taken != 0 || len(p.waiting) != 0 {
			t.Errorf("turns = %v, left %d and %d waiting", got, p.taken, len(p.waiting))
		}
	})
}
