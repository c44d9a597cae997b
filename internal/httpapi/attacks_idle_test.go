package httpapi

import (
	"fmt"
	"testing"
	"time"
)

// Many addresses together hold every connection, and do nothing with them. A newcomer gets the place of one of them.
func TestIdleConnectionsOfManyAddressesGiveWay(t *testing.T) {
	t.Parallel()
	const room = 16
	for name, begin := range map[string]func(addr, source string){
		"silent":          func(addr, source string) { call(t, source, addr) },
		"after a request": func(addr, source string) { asks(call(t, source, addr), look("none")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			addr := r.outside(t, room)
			for i := range room {
				for range room {
					begin(addr, fmt.Sprintf("127.0.1.%d", i+1))
				}
			}
			status := 0
			for end := time.Now().Add(5 * patience); status == 0 && time.Now().Before(end); <-time.After(50 * time.Millisecond) {
				status = asks(call(t, "127.0.2.1", addr), look(r.read))
			}
			if status != 200 {
				t.Errorf("a newcomer with a good key = %d within %s, want 200", status, 5*patience)
			}
		})
	}
}
