package httpapi

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

// outside serves the rig on a port, with so many connections.
func (r *rig) outside(t *testing.T, conns int64, trusted ...netip.Prefix) (addr string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := HTTPServer(r.server.Handler())
	done := make(chan error, 1)
	go func() { done <- s.Serve(Listener(l, conns, trusted)) }()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return l.Addr().String()
}

// call is a connection from an address of this machine.
func call(t *testing.T, source, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(8 * time.Second))
	return c
}

// asks sends a request over a connection and gives the status, 0 for none.
func asks(c net.Conn, request string) int {
	if _, err := io.WriteString(c, request); err != nil {
		return 0
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

func look(key string) string {
	return "GET /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + "\r\n\r\n"
}

// One address holds as many connections as it can get, in every way to do nothing with one. Others are served.
func TestIdleConnectionsOfOneAddressLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	const room = 32
	for name, begin := range map[string]string{
		"silent": "", "half a header": "GET /v1/messages HTTP/1.1\r\nHost: x\r\n", "after a request": look("none"),
		"slow body": "POST /v1/send HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			addr := r.outside(t, room)
			held := 0
			for range room {
				c := call(t, "127.0.0.1", addr)
				if begin == look("none") {
					if asks(c, begin) != 0 {
						held++
					}
				} else {
					_, _ = io.WriteString(c, begin)
				}
			}
			for _, source := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"} {
				if got := asks(call(t, source, addr), look(r.read)); got != 200 {
					t.Errorf("good key from %s = %d, want 200", source, got)
				}
			}
			if begin == look("none") && held != room/2 {
				t.Errorf("one address got %d of %d connections, want half", held, room)
			}
		})
	}
}

// Connections of a proxy are its clients': it may have all of them, and each client a share of the requests.
func TestClientsBehindAProxyAreHeldApart(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	addr := r.outside(t, 16, netip.MustParsePrefix("127.0.0.1/32"))
	var conns []net.Conn
	for range 16 {
		conns = append(conns, call(t, "127.0.0.1", addr))
	}
	for _, c := range conns {
		if got := asks(c, look(r.read)); got != 200 {
			t.Fatalf("a connection of the proxy = %d", got)
		}
	}
	taken := r.server.requests.take(from("192.0.2.1"), MaxConns-10, nil)
	defer taken.release()
	proxied := func(ip string) int {
		req := httptest.NewRequest(http.MethodGet, "/v1/messages", http.NoBody)
		req.RemoteAddr = "127.0.0.1:1"
		req.Header.Set("Authorization", "Bearer "+r.read)
		req.Header.Set("X-Forwarded-For", ip)
		return r.exchange(req).status
	}
	if a, b := proxied("192.0.2.1"), proxied("192.0.2.2"); a != http.StatusTooManyRequests || b != 200 {
		t.Errorf("the client that has most = %d, another = %d, want 429 and 200", a, b)
	}
}
