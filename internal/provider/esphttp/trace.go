package esphttp

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
)

// keptBody is how much of a response body a Trace keeps, in bytes.
const keptBody = 4 << 10

type traceKey struct{}

// Trace records what happened to the requests made under one context. It is safe for concurrent use.
type Trace struct {
	mu       sync.Mutex
	requests int
	wrote    bool
	legs     []*leg // requests in progress
	status   int
	header   http.Header
	body     []byte
}

// Track returns a context whose requests, made through any Client, are recorded in the Trace.
func Track(ctx context.Context) (context.Context, *Trace) {
	tr := &Trace{}
	return context.WithValue(ctx, traceKey{}, tr), tr
}

// traceFrom never returns nil: a request outside Track is recorded in a Trace that nobody reads.
func traceFrom(ctx context.Context) *Trace {
	if tr, ok := ctx.Value(traceKey{}).(*Trace); ok {
		return tr
	}
	return &Trace{}
}

// Wrote reports whether any byte of a request may have left this machine. It is never false if one did. Over HTTP/1 it counts
// bytes given to the socket, so a request that stayed in a buffer does not count as sent.
func (t *Trace) Wrote() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.wrote || slices.ContainsFunc(t.legs, (*leg).wrote)
}

// Requests returns how many requests were begun, including those that never got a connection.
func (t *Trace) Requests() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.requests
}

// Status returns the HTTP status of the last response, or 0 when none came.
func (t *Trace) Status() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.status
}

// Header returns a copy of the header of the last response. It is never nil.
func (t *Trace) Header() http.Header {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.header == nil {
		return http.Header{}
	}
	return t.header.Clone()
}

// Body returns the first 4 KiB of the last response's body. It has only the bytes that a caller has read.
func (t *Trace) Body() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.body)
}

func (t *Trace) begin() *leg {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := &leg{}
	t.requests++
	t.legs = append(t.legs, l)
	return l
}

// end closes the leg: its connection may serve another request from now on, whose bytes must not count here.
func (t *Trace) end(l *leg, resp *http.Response) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wrote = t.wrote || resp != nil || l.wrote()
	t.legs = slices.DeleteFunc(t.legs, func(other *leg) bool { return other == l })
	if resp != nil {
		t.status, t.header, t.body = resp.StatusCode, resp.Header.Clone(), nil
	}
}

func (t *Trace) keep(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.body = append(t.body, p[:min(len(p), keptBody-len(t.body))]...)
}

// leg is one request on its way. Transport may try several connections for it.
type leg struct {
	mu      sync.Mutex
	sent    bool         // known for certain
	conn    *countedConn // nil when the connection is not ours or is shared by HTTP/2 streams
	start   int64        // bytes written to conn before this request
	claimed bool         // WroteHeaders was called since the last GotConn
}

// hooks returns the client trace of the request. Over HTTP/1, WroteHeaders means only "written to a buffer", so the connection's
// own count decides instead.
func (l *leg) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { l.got(info.Conn) },
		WroteHeaders: func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.claimed = true
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.claimed = l.claimed || info.Err == nil
		},
	}
}

func (l *leg) got(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = l.sent || l.wroteLocked()
	l.claimed = false
	if l.conn = counted(c); l.conn != nil {
		l.start = l.conn.written.Load()
	}
}

func (l *leg) wrote() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent || l.wroteLocked()
}

func (l *leg) wroteLocked() bool {
	if l.conn == nil {
		return l.claimed
	}
	return l.conn.wroteSince(l.start)
}

// counted finds our connection below TLS, or nil when HTTP/2 shares it among requests.
func counted(c net.Conn) *countedConn {
	for {
		switch conn := c.(type) {
		case *countedConn:
			return conn
		case *tls.Conn:
			if conn.ConnectionState().NegotiatedProtocol == "h2" {
				return nil
			}
			c = conn.NetConn()
		default:
			return nil
		}
	}
}

// countedConn counts the bytes that the kernel accepted.
type countedConn struct {
	net.Conn
	writing atomic.Int32
	written atomic.Int64
}

// Write implements net.Conn.
func (c *countedConn) Write(p []byte) (int, error) {
	c.writing.Add(1)
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	c.writing.Add(-1) // after the count, so that wroteSince can't fall between the two
	return n, err
}

// wroteSince reports whether bytes left after the given count, or are leaving now.
func (c *countedConn) wroteSince(start int64) bool {
	return c.writing.Load() > 0 || c.written.Load() > start
}
