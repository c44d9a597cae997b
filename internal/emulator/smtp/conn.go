package smtp

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

// listener keeps track of its connections, so that Stop can close them.
type listener struct {
	net.Listener
	mu    sync.Mutex
	conns map[*conn]struct{}
}

func newListener(l net.Listener) *listener {
	return &listener{Listener: l, conns: map[*conn]struct{}{}}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	sc := &conn{Conn: c, list: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[sc] = struct{}{}
	return sc, nil
}

// Close implements net.Listener. The emulator also closes it, so a second close is not an error.
func (l *listener) Close() error {
	_ = l.Listener.Close()
	return nil
}

// closeAll closes idle connections at once, and the others when their transaction ends or when ctx ends.
func (l *listener) closeAll(ctx context.Context) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		left := 0
		for _, c := range l.list() {
			if c.busy.Load() && ctx.Err() == nil {
				left++
			} else {
				_ = c.Close()
			}
		}
		if left == 0 {
			return
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (l *listener) list() []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.conns))
}

// conn lets a session control how its next reply is written.
type conn struct {
	net.Conn
	list *listener
	busy atomic.Bool // inside a transaction

	// The session sets these, and the same goroutine reads them when go-smtp writes the reply.
	last    bool // the connection is closed after the reply
	trickle func([]byte) (int, error)
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	if c.trickle != nil {
		n, err := c.trickle(b)
		c.trickle = nil
		return n, err
	}
	n, err := c.Conn.Write(b)
	if c.last {
		_ = c.Close()
	}
	return n, err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.list.mu.Lock()
	delete(c.list.conns, c)
	c.list.mu.Unlock()
	return c.Conn.Close()
}

// host names the client in the form of Postfix's replies.
func (c *conn) host() string {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return "unknown"
	}
	return "unknown[" + host + "]"
}

// reset closes the connection with RST.
func (c *conn) reset() {
	emulator.Reset(c.Conn)
	_ = c.Close()
}

// untilGone reads and discards data until the client or Stop closes the connection.
func (c *conn) untilGone() {
	_ = c.SetReadDeadline(time.Time{})
	c.busy.Store(false) // so that Stop does not wait
	var b [512]byte
	for {
		if _, err := c.Read(b[:]); err != nil {
			return
		}
	}
}
