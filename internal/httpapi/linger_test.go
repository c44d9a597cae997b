package httpapi

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// bodyLeft is more than the buffers of a connection hold, so that a client can't get rid of it unless it is read.
const bodyLeft = 12 << 20

// A client that writes its whole body before it reads gets its answer, and so does one that reads at once, before it has
// written the rest. Neither finds its connection reset.
func TestWhoeverIsRefusedEarlyGetsTheAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.MaxBody, o.BodyBudget = bodyLeft+1, bodyLeft+1; o.Now = time.Now })
	s := httptest.NewUnstartedServer(nil)
	s.Config = HTTPServer(r.server.Handler())
	s.Start()
	t.Cleanup(s.Close)
	defer r.server.bodies.take(holder{tenant: 99}, bodyLeft+1, nil).release() // all the room there is
	var wg sync.WaitGroup
	for name, c := range map[string]struct {
		path, key string
		length    int
		status    int
	}{
		"no room":        {"/v1/send", "send", bodyLeft, http.StatusServiceUnavailable},
		"no room, batch": {"/v1/send/batch", "send", bodyLeft, http.StatusServiceUnavailable},
		"too large":      {"/v1/send", "send", 2 * bodyLeft, http.StatusRequestEntityTooLarge},
		"no key":         {"/v1/send", "", bodyLeft, http.StatusUnauthorized},
		"a stray hook":   {"/hooks/nobody", "", bodyLeft, http.StatusNotFound},
		"not there":      {"/v1/nothing", "", bodyLeft, http.StatusNotFound},
	} {
		for _, early := range []bool{false, true} {
			wg.Go(func() {
				key := ""
				if c.key == "send" {
					key = r.send
				}
				status, closed, err := upload(s.Listener.Addr().String(), c.path, key, c.length, early)
				if err != nil || status != c.status || !closed {
					t.Errorf("%s, reads early %t: status %d, closed %t, %v; want %d on a connection that is closed", name, early, status, closed, err, c.status)
				}
			})
		}
	}
	wg.Wait()
}

// upload sends a request with a body by hand. One that reads early sends the second half of it when it has the answer.
func upload(addr, path, key string, length int, early bool) (status int, closed bool, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if key != "" {
		key = "Authorization: Bearer " + key + "\r\n"
	}
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n", path, key, length)
	if err != nil {
		return 0, false, err
	}
	rest := length
	if early {
		rest = length / 2
	}
	in := bufio.NewReader(conn)
	if err := writeFiller(conn, length-rest); err != nil {
		return 0, false, fmt.Errorf("first half: %w", err)
	}
	write := func() error { return writeFiller(conn, rest) }
	if !early {
		if err := write(); err != nil {
			return 0, false, fmt.Errorf("body: %w", err)
		}
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return 0, false, fmt.Errorf("answer: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, false, fmt.Errorf("body of the answer: %w", err)
	}
	if early {
		if err := write(); err != nil {
			return 0, false, fmt.Errorf("second half: %w", err)
		}
	}
	_, err = in.ReadByte()
	if err != io.EOF { //nolint:errorlint // a reset is another one
		return resp.StatusCode, false, fmt.Errorf("after the answer: %w", err)
	}
	return resp.StatusCode, resp.Close, nil
}

// writeFiller writes n bytes.
func writeFiller(w io.Writer, n int) error {
	block := make([]byte, 256<<10)
	for ; n > 0; n -= len(block) {
		if _, err := w.Write(block[:min(n, len(block))]); err != nil {
			return err
		}
	}
	return nil
}
