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
	hanging := bytes.Repeat([]byte(" "), provider.MaxHook-1)
	answers := make(chan int, many)
	var written, ended sync.WaitGroup
	t.Cleanup(ended.Wait)
	for range many {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		written.Add(1)
		ended.Go(func() {
			_, _ = fmt.Fprintf(conn, "POST /hooks/made-up HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", provider.MaxHook)
			_, _ = conn.Write(hanging)
			written.Done()
			if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
				answers <- resp.StatusCode
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
	written.Wait()
	body := "delivered ann@example.org"
	r.want(r.hook("made-up", body, madeUp.sign(body)), 200, "")
	const least = many - hookRoom/(provider.MaxHook-freeBody) - 2
	patience := time.After(hookReading / 2) // those that have a place are not answered before that
	for refused := 0; refused < least; {
		select {
		case status := <-answers:
			if status == http.StatusServiceUnavailable {
				refused++
			}
		case <-patience:
			t.Fatalf("%d of %d bodies were refused, want %d at least", refused, many, least)
		}
	}
}
