//go:build drill

package drill

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// front is a load balancer for clients that can't choose a replica. It passes each connection to a replica that takes it, in
// turn. Webhooks and bounces come in through it. A target that is a path is a Unix socket.
type front struct {
	addr    string
	targets []string
	next    atomic.Int64
	cut     atomic.Bool // it finds nobody
	open    sync.Map    // net.Conn that it passes
}

func startFront(t *testing.T, targets ...string) *front {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{addr: l.Addr().String(), targets: targets}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { f.pass(ctx, c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		wg.Wait()
	})
	return f
}

// pass carries one connection. If no replica takes it, it closes the connection.
func (f *front) pass(ctx context.Context, from net.Conn) {
	defer func() { _ = from.Close() }()
	f.open.Store(from, nil)
	defer f.open.Delete(from)
	to := f.dial(ctx)
	if to == nil {
		return
	}
	defer func() { _ = to.Close() }()
	stop := context.AfterFunc(ctx, func() { _, _ = from.Close(), to.Close() })
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(to, from)
		_ = to.Close()
	}()
	_, _ = io.Copy(from, to)
	_ = from.Close()
	<-done
}

// cutOff closes all connections, and lets nothing through until cut is false again.
func (f *front) cutOff() {
	f.cut.Store(true)
	f.open.Range(func(c, _ any) bool {
		_ = c.(net.Conn).Close() //nolint:forcetypeassert // nothing else is stored
		return true
	})
}

func (f *front) dial(ctx context.Context) net.Conn {
	d := net.Dialer{Timeout: time.Second}
	for range f.targets {
		if f.cut.Load() {
			return nil
		}
		target := f.targets[int(f.next.Add(1))%len(f.targets)]
		network := "tcp"
		if filepath.IsAbs(target) {
			network = "unix"
		}
		if c, err := d.DialContext(ctx, network, target); err == nil {
			return c
		}
	}
	return nil
}

// fetch gets a URL; status 0 is no answer.
func fetch(ctx context.Context, c *http.Client, url string) (status int, body string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, ""
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	return resp.StatusCode, string(text)
}
