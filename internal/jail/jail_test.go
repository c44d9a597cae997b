package jail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ownAddresses gives this machine the addresses, as net.InterfaceAddrs would.
func ownAddresses(addrs ...string) func() ([]net.Addr, error) {
	return func() ([]net.Addr, error) {
		var list []net.Addr
		for _, a := range addrs {
			list = append(list, &net.IPNet{IP: net.ParseIP(a), Mask: net.CIDRMask(24, 32)})
		}
		return list, nil
	}
}

func TestOnlyPublicAddressesMayBeDialled(t *testing.T) {
	t.Parallel()
	o := Options{
		Allow: []Target{{netip.MustParsePrefix("10.1.0.0/16"), 9000}}, Ports: []uint16{8443},
		Deny: []netip.Prefix{netip.MustParsePrefix("9.9.9.0/24")},
	}
	w := warder{Options: o, own: ownAddresses("8.8.4.4")}
	tests := map[string]bool{
		"1.1.1.1:443": true, "1.1.1.1:8443": true, "8.8.8.8:443": true, "[2606:4700:4700::1111]:443": true,
		"[::ffff:1.1.1.1]:443": true, "10.1.2.3:9000": true, "[::ffff:10.1.2.3]:9000": true,
		"11.0.0.1:443": true, "172.15.0.1:443": true, "172.32.0.1:443": true, "100.63.0.1:443": true, "100.128.0.1:443": true,
		"169.253.0.1:443": true, "198.20.0.1:443": true, "223.255.255.1:443": true,

		"1.1.1.1:80": false, "1.1.1.1:25": false, "1.1.1.1:9000": false, "10.1.2.3:443": false, "10.2.0.1:9000": false,
		"9.9.9.9:443": false, "8.8.4.4:443": false, "[::ffff:8.8.4.4]:443": false,
		"0.0.0.0:443": false, "0.1.2.3:443": false, "10.0.0.1:443": false, "100.64.0.1:443": false, "127.0.0.1:443": false,
		"127.255.255.254:443": false, "169.254.169.254:443": false, "172.16.0.1:443": false, "172.31.255.255:443": false,
		"192.0.0.8:443": false, "192.0.2.1:443": false, "192.88.99.1:443": false, "192.168.1.1:443": false, "198.18.0.1:443": false,
		"198.19.255.255:443": false, "198.51.100.1:443": false, "203.0.113.1:443": false, "224.0.0.1:443": false,
		"239.1.1.1:443": false, "240.0.0.1:443": false, "255.255.255.255:443": false,
		"[::]:443": false, "[::1]:443": false, "[::7f00:1]:443": false, "[::ffff:127.0.0.1]:443": false, "[::ffff:10.0.0.1]:443": false,
		"[64:ff9b::7f00:1]:443": false, "[64:ff9b:1::1]:443": false, "[100::1]:443": false, "[2001::1]:443": false,
		"[2001:1ff::1]:443": false, "[2001:db8::1]:443": false, "[2002:7f00:1::]:443": false, "[fc00::1]:443": false, "[fd00:ec2::254]:443": false,
		"[fe80::1]:443": false, "[fe80::1%eth0]:443": false, "[2606:4700::1%eth0]:443": false, "[fec0::1]:443": false, "[ff02::1]:443": false,
		"[3fff::1]:443": false, "[5f00::1]:443": false,
		// what carries an IPv4 address: translated (RFC 2765), compatible, NAT64, 6to4, Teredo, ISATAP
		"[::ffff:0:127.0.0.1]:443": false, "[::ffff:0:10.0.0.1]:443": false, "[::ffff:0:8.8.8.8]:443": false, "[::8.8.8.8]:443": false,
		"[64:ff9b::8.8.8.8]:443": false, "[64:ff9b:1:7f00:0:100::]:443": false, "[2002:808:808::1]:443": false,
		"[2001:0:4136:e378::1]:443": false, "[2001:470::5efe:7f00:1]:443": false, "[2001:470::200:5efe:7f00:1]:443": false,
		// what nobody was given
		"[1::1]:443": false, "[100:0:0:1::1]:443": false, "[400::1]:443": false, "[1fff:ffff::1]:443": false, "[4000::1]:443": false,
		"[8000::1]:443": false, "[e000::1]:443": false, "[f000::1]:443": false, "[fe00::1]:443": false, "[fd12:3456::1]:443": false,
		"[2001:2::1]:443": false, "[2001:3::1]:443": false, "[2001:4:112::1]:443": false, "[2001:20::1]:443": false, "[2001:30::1]:443": false,
		"[2620:4f:8000::1]:443": false, "[3fff:fff::1]:443": false,
		// the neighbours of special networks
		"[2000::1]:443": true, "[2001:200::1]:443": true, "[2001:470::1]:443": true, "[2001:db7::1]:443": true, "[2001:db9::1]:443": true,
		"[2003::1]:443": true, "[2620:4f:7fff::1]:443": true, "[2a00:1450:4001::200e]:443": true, "[3ffe::1]:443": true, "[3fff:1000::1]:443": true,
	}
	for address, want := range tests {
		network := "tcp4"
		if strings.HasPrefix(address, "[") {
			network = "tcp6"
		}
		err := w.control(t.Context(), network, address, nil)
		if want && err != nil || !want && !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v, want allowed: %t", address, err, want)
		}
	}
	for _, network := range []string{"udp4", "unix", "tcp"} {
		if err := w.control(t.Context(), network, "1.1.1.1:443", nil); !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v, want %v", network, err, ErrForbidden)
		}
	}
	w.own = func() ([]net.Addr, error) { return nil, errors.New("no") }
	if err := w.judge(netip.MustParseAddrPort("1.1.1.1:443")); !errors.Is(err, ErrForbidden) {
		t.Errorf("own addresses not known: %v, want %v", err, ErrForbidden)
	}
}

func TestRefusalTellsNoAddress(t *testing.T) {
	t.Parallel()
	w := warder{own: ownAddresses()}
	if err := w.control(t.Context(), "tcp4", "10.20.30.40:443", nil); strings.Contains(err.Error(), "10.20") {
		t.Errorf("%v tells the one who chose the name where it leads", err)
	}
}

// sink counts the requests that reach an address.
type sink struct {
	*httptest.Server
	port uint16
	hits atomic.Int64
}

// newSink serves h, or 204, at 127.0.0.n and the port (0: any).
func newSink(t *testing.T, host string, port uint16, h http.HandlerFunc) *sink {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
	if err != nil {
		t.Skipf("this system does not serve %s: %v", host, err)
	}
	s := &sink{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.hits.Add(1)
		if h == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		h(w, r)
	}))
	_ = s.Listener.Close()
	s.Listener = l
	s.port = netip.MustParseAddrPort(l.Addr().String()).Port()
	t.Cleanup(s.Close)
	return s
}

func started(t *testing.T, host string, port uint16, h http.HandlerFunc) *sink {
	t.Helper()
	s := newSink(t, host, port, h)
	s.Start()
	return s
}

func call(t *testing.T, c *http.Client, target string) (*http.Response, error) {
	t.Helper()
	t.Cleanup(c.CloseIdleConnections)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err == nil {
		t.Cleanup(func() { _ = resp.Body.Close() })
	}
	return resp, err
}

// fetch makes a call and reads its answer.
func fetch(t *testing.T, c *http.Client, target string) (int, []byte, error) {
	t.Helper()
	resp, err := call(t, c, target)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// status makes a call whose answer's body does not matter.
func status(t *testing.T, c *http.Client, target string) (int, error) {
	t.Helper()
	resp, err := call(t, c, target)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func loopback(ports ...uint16) []Target {
	var list []Target
	for _, p := range ports {
		list = append(list, Target{netip.MustParsePrefix("127.0.0.0/8"), p})
	}
	return list
}

func TestLoopbackIsRefusedUnlessAllowed(t *testing.T) {
	t.Parallel()
	s := started(t, "127.0.0.1", 0, nil)
	for _, o := range []Options{{}, {Ports: []uint16{s.port}}, {Allow: loopback(s.port + 1)}, {Allow: []Target{{netip.MustParsePrefix("10.0.0.0/8"), s.port}}}} {
		if _, err := status(t, New(o), s.URL); !errors.Is(err, ErrForbidden) {
			t.Errorf("with %+v: %v, want %v", o, err, ErrForbidden)
		}
	}
	if got, err := status(t, New(Options{Allow: loopback(s.port)}), s.URL); err != nil || got != http.StatusNoContent {
		t.Errorf("allowed: %v, %v", got, err)
	}
	if s.hits.Load() != 1 {
		t.Errorf("%d requests arrived, want 1", s.hits.Load())
	}
}

// TestNames plays the tricks that a name server can play. 127.0.0.2 stands for a public address: it is an exception,
// while everything else on this machine is what has to be kept out of reach.
func TestNames(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		script map[string][][]string
		calls  []bool // whether each call in turn may arrive
	}{
		"an honest name":               {map[string][][]string{"evil.example": {{"127.0.0.2"}}}, []bool{true, true}},
		"a name inside":                {map[string][][]string{"evil.example": {{"127.0.0.1"}}}, []bool{false}},
		"rebinding":                    {map[string][][]string{"evil.example": {{"127.0.0.2"}, {"127.0.0.1"}}}, []bool{true, false, false}},
		"rebinding, the other way":     {map[string][][]string{"evil.example": {{"127.0.0.1"}, {"127.0.0.2"}}}, []bool{false, true}},
		"an alias inside":              {map[string][][]string{"evil.example": {{"internal.corp.example", "127.0.0.1"}}}, []bool{false}},
		"an alias of an honest name":   {map[string][][]string{"evil.example": {{"www.corp.example", "127.0.0.2"}}}, []bool{true}},
		"no address but the machine's": {map[string][][]string{"evil.example": {{"0.0.0.0"}}}, []bool{false}},
		"several addresses inside":     {map[string][][]string{"evil.example": {{"127.0.0.1", "10.0.0.1", "169.254.169.254"}}}, []bool{false}},
		"the first address is inside":  {map[string][][]string{"evil.example": {{"127.0.0.1", "127.0.0.2"}}}, []bool{true}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inside := started(t, "127.0.0.1", 0, nil)
			outside := started(t, "127.0.0.2", inside.port, nil) // where no other program has its ports
			dns, resolver := newNameServer(t, tt.script)
			c := New(Options{
				Allow:    []Target{{netip.MustParsePrefix("127.0.0.2/32"), outside.port}},
				Ports:    []uint16{outside.port},
				Resolver: resolver,
			})
			arrive := int64(0)
			for i, want := range tt.calls {
				_, err := status(t, c, "http://evil.example:"+strconv.Itoa(int(outside.port))+"/")
				if want && err != nil || !want && !errors.Is(err, ErrForbidden) {
					t.Errorf("call %d: %v, want allowed: %t", i, err, want)
				}
				if want {
					arrive++
				}
				c.CloseIdleConnections() // so that the next call looks the name up again
			}
			if inside.hits.Load() != 0 || outside.hits.Load() != arrive {
				t.Errorf("%d calls arrived inside, %d outside, want 0 and %d", inside.hits.Load(), outside.hits.Load(), arrive)
			}
			if got := dns.questions("evil.example"); got != len(tt.calls) {
				t.Errorf("%d look-ups, want %d", got, len(tt.calls))
			}
		})
	}
}

func TestRedirectIsTheAnswer(t *testing.T) {
	t.Parallel()
	inside := started(t, "127.0.0.1", 0, nil)
	for _, to := range []string{"http://169.254.169.254/latest/meta-data/", inside.URL} {
		for _, want := range []int{301, 302, 303, 307, 308} {
			s := started(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, want) })
			got, err := status(t, New(Options{Allow: loopback(s.port, inside.port)}), s.URL)
			if err != nil || got != want {
				t.Errorf("%d to %s: %v, %v, want the redirect itself", want, to, got, err)
			}
		}
	}
	if inside.hits.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestNoCookiesNoProxy(t *testing.T) { //nolint:paralleltest // it sets the environment
	proxy := started(t, "127.0.0.1", 0, nil)
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("HTTPS_PROXY", proxy.URL)
	var cookies atomic.Int64
	s := started(t, "127.0.0.2", 0, func(w http.ResponseWriter, r *http.Request) {
		cookies.Add(int64(len(r.Cookies())))
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
	})
	_, resolver := newNameServer(t, map[string][][]string{"hooks.example": {{"127.0.0.2"}}})
	c := New(Options{Allow: loopback(s.port, proxy.port), Resolver: resolver})
	for range 2 {
		if _, err := status(t, c, "http://hooks.example:"+strconv.Itoa(int(s.port))); err != nil {
			t.Fatal(err)
		}
	}
	if cookies.Load() != 0 || proxy.hits.Load() != 0 || s.hits.Load() != 2 {
		t.Errorf("%d cookies came back, the proxy got %d of %d calls", cookies.Load(), proxy.hits.Load(), s.hits.Load())
	}
}

func TestAnswerIsCapped(t *testing.T) {
	t.Parallel()
	size := MaxAnswer
	s := started(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/endless" {
			for {
				if _, err := w.Write(make([]byte, 8<<10)); err != nil {
					return
				}
			}
		}
		_, _ = w.Write(make([]byte, size))
	})
	c := New(Options{Allow: loopback(s.port)})
	if _, got, err := fetch(t, c, s.URL+"/full"); err != nil || len(got) != MaxAnswer {
		t.Errorf("an answer at the cap: %d bytes, %v", len(got), err)
	}
	_, got, err := fetch(t, c, s.URL+"/endless")
	if _, is := errors.AsType[*http.MaxBytesError](err); !is || len(got) > MaxAnswer {
		t.Errorf("an endless answer: %d bytes, %v, want at most %d and an error", len(got), err, MaxAnswer)
	}
}

func TestHugeHeaderIsRefused(t *testing.T) {
	t.Parallel()
	s := started(t, "127.0.0.1", 0, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("a", 2*maxHeader))
	})
	if _, err := status(t, New(Options{Allow: loopback(s.port)}), s.URL); err == nil {
		t.Error("an answer with a header of 64 kB was taken")
	}
}

func TestCompressedAnswerIsNotUnpacked(t *testing.T) {
	t.Parallel()
	s := started(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "" {
			w.WriteHeader(http.StatusTeapot)
		}
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write([]byte("not gzip at all"))
	})
	code, got, err := fetch(t, New(Options{Allow: loopback(s.port)}), s.URL)
	if err != nil || code != http.StatusOK || string(got) != "not gzip at all" {
		t.Errorf("%d with %q, %v", code, got, err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		serve   func(*tls.Config)
		trusted bool
		want    string // version of HTTP; refused without
	}{
		"HTTP/2":  {func(*tls.Config) {}, true, "HTTP/2.0"},
		"TLS 1.2": {func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, true, "HTTP/2.0"},
		"TLS 1.1": {func(c *tls.Config) {
			c.MinVersion, c.MaxVersion, c.NextProtos = tls.VersionTLS11, tls.VersionTLS11, []string{"http/1.1"}
		}, true, ""},
		"a certificate of nobody":     {func(*tls.Config) {}, false, ""},
		"HTTP/1.1 for those who must": {func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }, true, "HTTP/1.1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })
			s.EnableHTTP2 = true
			s.TLS = &tls.Config{}
			tt.serve(s.TLS)
			s.Config.ErrorLog = nil
			s.StartTLS()
			o := Options{Allow: loopback(s.port), RootCAs: x509.NewCertPool()}
			if tt.trusted {
				o.RootCAs.AddCert(s.Certificate())
			}
			_, got, err := fetch(t, New(o), s.URL)
			switch {
			case tt.want == "" && err == nil:
				t.Error("was called")
			case tt.want != "" && (err != nil || string(got) != tt.want):
				t.Errorf("by %q, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestSilentServerIsGivenUp(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := started(t, "127.0.0.1", 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
		}
		<-release
	})
	t.Cleanup(func() { close(release) })
	c := New(Options{Allow: loopback(s.port), Timeout: 100 * time.Millisecond})
	if _, err := status(t, c, s.URL+"/header"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v, want a time-out", err)
	}
	if code, _, err := fetch(t, c, s.URL+"/body"); code != http.StatusOK || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no end of the body: %d, %v, want a time-out", code, err)
	}
}

func TestTimesOfTheDefault(t *testing.T) {
	t.Parallel()
	if c := New(Options{}); c.Timeout != 15*time.Second || c.Jar != nil {
		t.Errorf("a call may take %s, cookies go to %v", c.Timeout, c.Jar)
	}
}
