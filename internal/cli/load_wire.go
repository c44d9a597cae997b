package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxAnswer caps an answer, in bytes; that of a batch of 1,000 has about 200 kB.
const maxAnswer = 8 << 20

// loadConn is one keep-alive connection that sends prebuilt requests with one write each. It is far cheaper than the client
// of net/http, which matters if generator and server share a machine. It never repeats a request.
type loadConn struct {
	server  *url.URL
	timeout time.Duration
	conn    net.Conn
	read    *bufio.Reader
	answer  bytes.Buffer
	used    time.Time // when the last answer came
	unwatch func() bool
}

const (
	maxIdle   = 5 * time.Second // a server may drop a connection that was idle for longer
	stopGrace = 2 * time.Second // for pending answers when the run is interrupted
)

// call sends one request and returns the answer's status and body; the body is valid until the next call.
func (c *loadConn) call(ctx context.Context, request []byte) (int, []byte, error) {
	if time.Since(c.used) > maxIdle {
		c.close()
	}
	if c.conn == nil {
		if err := c.dial(ctx); err != nil {
			return 0, nil, err
		}
	}
	status, keep, err := c.exchange(request)
	if err != nil || !keep {
		c.close()
	}
	return status, c.answer.Bytes(), err
}

// dial connects. When ctx ends, pending calls get stopGrace more.
func (c *loadConn) dial(ctx context.Context) error {
	host := c.server.Host
	if c.server.Port() == "" {
		host = net.JoinHostPort(c.server.Hostname(), c.server.Scheme)
	}
	d := net.Dialer{Timeout: c.timeout}
	conn, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if c.server.Scheme == "https" {
		secure := tls.Client(conn, &tls.Config{ServerName: c.server.Hostname(), MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return fmt.Errorf("connect: %w", err)
		}
		conn = secure
	}
	c.conn, c.read = conn, bufio.NewReader(conn)
	c.unwatch = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now().Add(stopGrace)) })
	return nil
}

// exchange sends a request and reads its answer. keep reports whether the connection can be used again.
func (c *loadConn) exchange(request []byte) (status int, keep bool, err error) {
	c.answer.Reset()
	if err := c.conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, false, fmt.Errorf("set deadline: %w", err)
	}
	_, writeErr := c.conn.Write(request) // a server may refuse and close before it has read everything: still read its answer
	resp, err := http.ReadResponse(c.read, nil)
	switch {
	case err != nil && writeErr != nil:
		return 0, false, fmt.Errorf("write request: %w", writeErr)
	case err != nil:
		return 0, false, fmt.Errorf("read answer: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // the connection is closed or reused, whatever this says
	if _, err := c.answer.ReadFrom(io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return 0, false, fmt.Errorf("read answer: %w", err)
	}
	c.used = time.Now()
	return resp.StatusCode, writeErr == nil && !resp.Close && c.answer.Len() < maxAnswer, nil
}

func (c *loadConn) close() {
	if c.conn != nil {
		c.unwatch()
		_ = c.conn.Close()
		c.conn = nil
	}
}
