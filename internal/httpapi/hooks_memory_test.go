package httpapi

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
)

// Bodies that hang before the receivers, each a byte short of the most that is allowed, take a bounded part of the memory. What
// is beyond it is told to come back, and ordinary events are taken meanwhile.
func TestHookBodiesThatHangTakeBoundedMemory(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHooks(inputHooks(7)))
	s := httptest.NewUnstartedServer(nil)
	s.Config = HTTPServer(r.server.Handler())
	s.Start()
	t.Cleanup(s.Close)
	const many = 2 * hookRoom / provider.MaxHook
	var refused atomic.Int64
	var written, ended sync.WaitGroup
	for range many {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		written.Add(1)
		ended.Go(func() {
			_, _ = fmt.Fprintf(conn, "POST /hooks/made-up HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", provider.MaxHook)
			_, _ = conn.Write(bytes.Repeat([]byte(" "), provider.MaxHook-1))
			written.Done()
			_ = conn.SetReadDeadline(time.Now().Add(hookReading / 2)) // those that have a place are not answered before that
			if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
				if resp.StatusCode == http.StatusServiceUnavailable {
					refused.Add(1)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
		t.Cleanup(func() { _ = conn.Close() })
	}
	written.Wait()
	body := "delivered ann@example.org"
	r.want(r.hook("made-up", body, madeUp.sign(body)), 200, "")
	ended.Wait()
	if least := int64(many - hookRoom/(provider.MaxHook-freeBody) - 2); refused.Load() < least {
		t.Errorf("%d of %d bodies were refused, want %d at least", refused.Load(), many, least)
	}
}
