package httpapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are in memory, so that their time is the test's.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error { close(p); return nil }
func (pipes) Addr() net.Addr { return &net.TCPAddr{} }

// Clients open connections ahead of their requests. One that comes late on such a connection is answered, and its body has its
// whole time; one whose body stalls is cut off after that.
func TestConnectionMayBeOpenedLongBeforeItsRequest(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		opened time.Duration // before the request
		body   time.Duration // after the header
		ok     bool
	}{
		{"at once", 0, 0, true},
		{"on a busy machine", 11 * time.Second, 0, true},
		{"as long as any other may be idle", idleTime - time.Second, bodyTime - time.Second, true},
		{"longer", idleTime + time.Second, 0, false},
		{"with a body that stalls", time.Second, bodyTime + time.Second, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if _, err := io.ReadAll(r.Body); err != nil {
						panic(http.ErrAbortHandler)
					}
					w.WriteHeader(http.StatusAccepted)
				}))
				conns := make(pipes, 1)
				done := make(chan error)
				go func() { done <- s.Serve(conns) }()
				client, server := net.Pipe()
				conns <- server
				time.Sleep(tc.opened)
				status, err := post(client, tc.body)
				if (err == nil && status == http.StatusAccepted) != tc.ok {
					t.Errorf("status %d, %v; want an answer: %t", status, err, tc.ok)
				}
				_ = client.Close()
				_ = s.Close()
				if err := <-done; !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
			})
		})
	}
}

// post sends a request whose body ends some time after its header.
func post(c net.Conn, later time.Duration) (status int, err error) {
	if _, err := fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{"); err != nil {
		return 0, err
	}
	time.Sleep(later)
	if _, err := fmt.Fprint(c, "}"); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
