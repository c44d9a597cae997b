package httpapi

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sendgate/sendgate/internal/provider"
)

// overTLS serves a handler as the service does with a certificate, and returns its address and what a client needs to trust it.
func overTLS(t *testing.T, h http.Handler) (addr string, trust *tls.Config) {
	t.Helper()
	own := httptest.NewTLSServer(nil) // has a certificate
	t.Cleanup(own.Close)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := HTTPServer(h)
	s.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: own.TLS.Certificates}
	done := make(chan error, 1)
	go func() { done <- s.ServeTLS(Listener(l, MaxConns, nil), "", "") }()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return l.Addr().String(), own.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
}

// http2Client makes requests by HTTP/2 only.
func http2Client(t *testing.T, trust *tls.Config) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: trust, Protocols: &http.Protocols{}}
	tr.Protocols.SetHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func ask2(t *testing.T, c *http.Client, method, url, key string, body io.Reader, headers ...string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	if resp.ProtoMajor != 2 {
		t.Errorf("%s %s by %s, want HTTP/2", method, url, resp.Proto)
	}
	read, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(read)
}

// With a certificate both APIs speak HTTP/2. What holds for a connection and a request holds there too.
func TestBoundsHoldForHTTP2(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHooks(&fakeHooks{id: 7, parsers: map[string]provider.EventParser{"open": openParser()}}), func(o *Options) {
		o.AdminApart, o.AdminNetworks = true, []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
		o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	public, trust := overTLS(t, r.server.Handler())
	admin, trustAdmin := overTLS(t, r.server.AdminHandler())
	c, operator := http2Client(t, trust), http2Client(t, trustAdmin)

	for _, tc := range []struct {
		what, method, url, key string
		headers                []string
		want                   int
		says                   string
	}{
		{"admin from its networks", "GET", admin + "/admin/v1/keys", r.admin, []string{"X-Forwarded-For", "203.0.113.5"}, 200, ""},
		{"admin from elsewhere", "GET", admin + "/admin/v1/keys", r.admin, []string{"X-Forwarded-For", "192.0.2.5"}, 403, "address_not_allowed"},
		{"admin without a key", "GET", admin + "/admin/v1/keys", "", []string{"X-Forwarded-For", "203.0.113.5"}, 401, "unauthorized"},
		{"admin at the public address", "GET", public + "/admin/v1/keys", r.admin, []string{"X-Forwarded-For", "203.0.113.5"}, 404, "not_found"},
		{"mail at the address of admin", "GET", admin + "/v1/messages", r.read, []string{"X-Forwarded-For", "203.0.113.5"}, 404, "not_found"},
		{"a header that is too large", "GET", public + "/v1/messages", r.read, []string{"X-Large", strings.Repeat("x", 40<<10)}, 0, "advertised limit"}, // which the client keeps
		{"a good key", "GET", public + "/v1/messages", r.read, nil, 200, ""},
	} {
		client := c
		if strings.HasPrefix(tc.url, admin) {
			client = operator
		}
		if got, text := ask2(t, client, tc.method, "https://"+tc.url, tc.key, nil, tc.headers...); got != tc.want || !strings.Contains(text, tc.says) {
			t.Errorf("%s = %d %.200s, want %d %s", tc.what, got, text, tc.want, tc.says)
		}
	}

	// The requests of one connection are many, and each counts for its client.
	fill(r.server.requests, from("198.51.100.7"), nil)
	if got, _ := ask2(t, c, "GET", "https://"+public+"/v1/messages", r.read, nil, "X-Forwarded-For", "198.51.100.7"); got != 429 {
		t.Errorf("a client that has its share of requests = %d, want 429", got)
	}
	if got, _ := ask2(t, c, "GET", "https://"+public+"/v1/messages", r.read, nil, "X-Forwarded-For", "198.51.100.8"); got != 200 {
		t.Errorf("another one over the same connection = %d, want 200", got)
	}
}

// A body that does not come over HTTP/2 loses its place as any other, and its request is answered.
func TestStalledBodiesOfHTTP2GiveWay(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHooks(&fakeHooks{id: 7, parsers: map[string]provider.EventParser{"open": openParser()}}))
	addr, trust := overTLS(t, r.server.Handler())
	hanging, end := io.Pipe()
	defer end.Close() //nolint:errcheck // it only ends the request
	status := make(chan int, 1)
	go func() {
		got, _ := ask2(t, http2Client(t, trust), "POST", "https://"+addr+"/hooks/open", "", hanging)
		status <- got
	}()
	_, _ = io.WriteString(end, "x")
	p := r.server.hookReads
	overdue := func() bool { // as if it had waited for longer than our patience
		p.mu.Lock()
		defer p.mu.Unlock()
		for x := range p.slow {
			x.since = x.since.Add(-2 * patience)
		}
		return len(p.slow) == 1
	}
	for range 5000 { // ms
		if p.takenNow() == 1 && overdue() {
			break
		}
		<-time.After(time.Millisecond)
	}
	if p.take(holder{}, hookReads, nil) == nil {
		t.Fatal("the place of a body that does not come is not given to others")
	}
	select {
	case got := <-status:
		if got != 503 {
			t.Errorf("its request = %d, want 503", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("its request is not answered")
	}
}

// Our memory holds the data that a client sends before we read it. The settings that the server announces bound them.
func TestHTTP2HoldsLittleUnreadData(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	addr, trust := overTLS(t, r.server.Handler())
	trust.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: trust}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it was read
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	f := http2.NewFramer(conn, conn)
	_, _ = io.WriteString(conn, http2.ClientPreface)
	_ = f.WriteSettings()
	// A request without :authority is one without a Host.
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":path", "/v1/send"}, {"authorization", "Bearer " + r.send}, {"content-type", "application/json"}, {"content-length", "2"},
	} {
		_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true})
	_ = f.WriteData(1, true, []byte("{}"))

	window, settings, status := 65535, map[http2.SettingID]uint32{}, ""
	dec := hpack.NewDecoder(4096, func(h hpack.HeaderField) {
		if h.Name == ":status" {
			status = h.Value
		}
	})
	for status == "" {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			_ = frame.ForeachSetting(func(s http2.Setting) error {
				settings[s.ID] = s.Val
				return nil
			})
		case *http2.WindowUpdateFrame:
			if frame.StreamID == 0 && status == "" {
				window += int(frame.Increment)
			}
		case *http2.HeadersFrame:
			_, _ = dec.Write(frame.HeaderBlockFragment())
		}
	}
	if status != "400" {
		t.Errorf("a send without a host = %s, want 400", status)
	}
	if stream := settings[http2.SettingInitialWindowSize]; window > http2Unread || stream > http2Unread || stream == 0 {
		t.Errorf("a connection may send %d bytes that nobody reads, a request %d; want at most %d", window, stream, http2Unread)
	}
	if n := settings[http2.SettingMaxConcurrentStreams]; n == 0 || n > 100 {
		t.Errorf("%d requests at a time over one connection, want at most 100", n)
	}
}
