package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// narrowStore is a store whose look-ups of keys take their time, over few connections.
type narrowStore struct {
	*fakeStore
	conns chan struct{}
}

func (s *narrowStore) use(ctx context.Context) error {
	select {
	case s.conns <- struct{}{}:
	case <-ctx.Done():
		return &mail.Unavailable{Reason: "database", RetryAfter: time.Second, Err: ctx.Err()}
	}
	time.Sleep(50 * time.Millisecond)
	<-s.conns
	return nil
}

func (s *narrowStore) KeyByID(ctx context.Context, id string) (*mail.Key, error) {
	if err := s.use(ctx); err != nil {
		return nil, err
	}
	return s.fakeStore.KeyByID(ctx, id)
}

func (s *narrowStore) KeyIDs(ctx context.Context) ([]string, error) {
	if err := s.use(ctx); err != nil {
		return nil, err
	}
	return s.fakeStore.KeyIDs(ctx)
}

// at sends a request of an address, without holding it to the contract, and gives the status.
func (r *rig) at(ip, key string) int {
	req := httptest.NewRequest(http.MethodGet, "/v1/messages", http.NoBody)
	req.RemoteAddr = ip + ":1"
	req.Header.Set("Authorization", "Bearer "+key)
	rec := httptest.NewRecorder()
	r.server.Handler().ServeHTTP(rec, req)
	return rec.Code
}

const (
	attackers = 256
	attack    = 3 * time.Second
)

// While 256 clients forge keys with a right checksum, good keys are served within a second: those that were used before, and
// those that were not, from anywhere.
func TestForgedKeysHoldNoGoodOneBack(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]func(i int) string{
		"one address":      func(int) string { return "192.0.2.1" },
		"many addresses":   func(i int) string { return fmt.Sprintf("198.51.%d.%d", i/256, i%256) },
		"one IPv6 network": func(i int) string { return fmt.Sprintf("[2001:db8::%x]", i+1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				var store *narrowStore
				r := newRig(t, func(o *Options) {
					store = &narrowStore{o.Store.(*fakeStore), make(chan struct{}, 6)}
					o.Store, o.Now, o.AcceptWait = store, time.Now, 5*time.Second
					o.Log = slog.New(slog.NewTextHandler(&log, nil))
				})
				defer r.server.Close()
				if got := r.at("192.0.2.1", r.read); got != 200 {
					t.Fatalf("before the attack = %d", got)
				}
				var all sync.WaitGroup
				var forged atomic.Int64
				for i := range attackers {
					all.Go(func() {
						for end := time.Now().Add(attack); time.Now().Before(end); {
							_, wrong, _ := NewKey()
							if got := r.at(source(i), wrong); got < 400 {
								t.Errorf("a forged key = %d", got)
							}
							forged.Add(1)
							time.Sleep(100 * time.Millisecond)
						}
					})
				}
				var never [5]string
				for i := range never {
					never[i] = r.store.addKey(nil, mail.ScopeRead)
				}
				for i, fresh := range never {
					time.Sleep(500 * time.Millisecond)
					for what, key := range map[string]string{"used before": r.read, "used never": fresh} {
						for _, ip := range []string{source(0), "203.0.113.9"} {
							began := time.Now()
							if got, took := r.at(ip, key), time.Since(began); got != 200 || took >= time.Second {
								t.Errorf("round %d, key %s, from %s: %d after %s, want 200 within 1 s", i, what, ip, got, took)
							}
						}
					}
				}
				all.Wait()
				asked := r.store.count("KeyByID") + r.store.count("KeyIDs")
				if bound := 6 * int(attack/time.Millisecond) / 50 / 2; asked > bound {
					t.Errorf("the store was asked %d times for %d forged keys, want half of what it can answer, %d", asked, forged.Load(), bound)
				}
				if lines := strings.Count(log.String(), "level=ERROR") + strings.Count(log.String(), "level=WARN"); lines > 2 {
					t.Errorf("lines of warnings and errors = %d, want one or two", lines)
				}
			})
		})
	}
}

// A database that does not answer makes no line of each key that anyone makes up, and no 401 of one that may be good.
func TestForgedKeysFillNoLogWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := newRig(t, func(o *Options) {
		o.Log, o.AcceptWait = slog.New(slog.NewTextHandler(&log, nil)), 10*time.Millisecond
	})
	r.store.failWith(&mail.Unavailable{Reason: "database", RetryAfter: time.Second})
	for range 50 {
		_, wrong, _ := NewKey()
		r.want(r.do("GET", "/v1/messages", wrong, ""), 503, "database")
	}
	if lines := strings.Count(log.String(), "level=ERROR"); lines > 0 {
		t.Errorf("error lines = %d, want none: %s", lines, log.String())
	}
}

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

// asker lets those through whose header names the password.
type asker struct{ fakeParser }

func (*asker) CheckHeader(h http.Header, _ time.Time) error {
	if h.Get("Password") != "right" {
		return &provider.HookError{Status: http.StatusUnauthorized, Reason: "credentials", Guess: true}
	}
	return nil
}

func openParser() *fakeParser {
	return &fakeParser{receive: func(*provider.Hook) (provider.Batch, error) { return provider.Batch{}, nil }}
}

// 256 bodies that do not come hang on /hooks, of an account where nothing can be told by the header. An event from elsewhere is
// taken, and so is one that comes for another account.
func TestSlowBodiesOfOneAddressLeaveHooksOpen(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHooks(&fakeHooks{id: 7, parsers: map[string]provider.EventParser{"open": openParser(), "asks": &asker{*openParser()}}}))
	addr := r.outside(t, MaxConns)
	post := func(account, password string, length int) string {
		return fmt.Sprintf("POST /hooks/%s HTTP/1.1\r\nHost: x\r\nPassword: %s\r\nContent-Length: %d\r\n\r\nx", account, password, length)
	}
	for range hookReads {
		_, _ = io.WriteString(call(t, "127.0.0.1", addr), post("open", "", 1000))
	}
	for range 2000 { // ms
		if r.server.hookReads.takenNow() == hookReads/2 {
			break
		}
		<-time.After(time.Millisecond)
	}
	if got := r.server.hookReads.takenNow(); got != hookReads/2 {
		t.Errorf("places of one address = %d, want half", got)
	}
	for _, source := range []string{"127.0.0.2", "127.0.0.3"} {
		for _, account := range []string{"open", "asks"} {
			if got := asks(call(t, source, addr), post(account, "right", 1)); got != 200 {
				t.Errorf("event for %s from %s = %d, want 200", account, source, got)
			}
		}
	}
}

// Whoever can be refused by his header gets no place to read a body in.
func TestWrongHeaderGetsNoPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHooks(&fakeHooks{id: 7, parsers: map[string]provider.EventParser{"asks": &asker{*openParser()}}}))
	body := &stalled{end: make(chan struct{})}
	defer close(body.end)
	req := httptest.NewRequest(http.MethodPost, "/hooks/asks", io.NopCloser(body))
	req.ContentLength = -1
	rec := httptest.NewRecorder()
	defer r.server.hookReads.take(holder{}, hookReads, nil).release()
	r.server.Handler().ServeHTTP(rec, req) // and does not hang
	if rec.Code != http.StatusUnauthorized {
		t.Errorf("answer = %d, want 401", rec.Code)
	}
}

func TestGuessingPasswordsEndsForTheGuesserOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHooks(&fakeHooks{id: 7, parsers: map[string]provider.EventParser{"asks": &asker{*openParser()}}}))
	at := func(ip, password string) int {
		req := httptest.NewRequest(http.MethodPost, "/hooks/asks", strings.NewReader("x"))
		req.RemoteAddr = ip + ":1"
		req.Header.Set("Password", password)
		return r.exchange(req).status
	}
	got := map[int]int{}
	for range 100 {
		got[at("192.0.2.1", "guess")]++
	}
	if got[401] != badPasswordsPerMinute || got[429] != 100-badPasswordsPerMinute {
		t.Errorf("answers to 100 guesses = %v, want %d times 401, then 429", got, badPasswordsPerMinute)
	}
	if guesser, owner := at("192.0.2.1", "right"), at("192.0.2.2", "right"); guesser != 429 || owner != 200 {
		t.Errorf("the right password of the guesser = %d, of another address = %d, want 429 and 200", guesser, owner)
	}
	r.clock.move(time.Minute)
	if got := at("192.0.2.1", "right"); got != 200 {
		t.Errorf("the right password a minute later = %d, want 200", got)
	}
}

// Three uploads of one tenant stall when most of them has come. Another tenant's is taken, large as it is.
func TestStalledUploadsOfOneTenantLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	for name, announced := range map[string]int64{"announced": 22 << 20, "chunked": -1} {
		for sent, part := range map[string]int{"all but the end": 21 << 20, "the beginning": 1 << 20} {
			t.Run(name+", "+sent, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					defer r.server.Close()
					other := r.store.addKey(func(k *mail.Key) { k.Tenant = 2 }, mail.ScopeSend)
					end := make(chan struct{})
					var all sync.WaitGroup
					for range 3 {
						all.Go(func() {
							r.upload(r.send, &stalled{strings.Repeat(" ", part), end}, announced)
						})
					}
					time.Sleep(patience + time.Second)
					synctest.Wait()
					body := large(22 << 20)
					if got := r.upload(other, strings.NewReader(body), int64(len(body))); got != 422 { // for so long a text
						t.Errorf("upload of another tenant = %d, want that it is read", got)
					}
					if got := r.upload(r.send, strings.NewReader(large(100)), -1); got != 202 {
						t.Errorf("ordinary mail of the same tenant = %d, want 202", got)
					}
					close(end)
					all.Wait()
					if left := r.server.bodies.takenNow(); left != 0 {
						t.Errorf("left of the budget: %d bytes are still taken", left)
					}
				})
			})
		}
	}
}

func (r *rig) upload(key string, body io.Reader, announced int64) int {
	req := httptest.NewRequest(http.MethodPost, "/v1/send", body)
	req.ContentLength = announced
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	r.server.Handler().ServeHTTP(rec, req)
	return rec.Code
}

// A tenant has its share of what is dear. Another finds a place.
func TestOneTenantLeavesPlacesToOthers(t *testing.T) {
	t.Parallel()
	s := newRig(t).server
	for name, p := range map[string]*pool{"stats": s.stats, "imports": s.imports, "replays": s.replays, "tests": s.tests, "streams": s.streams} {
		fill(p, holder{tenant: 1}, nil)
		if p.take(holder{tenant: 2}, 1, nil) == nil {
			t.Errorf("%s: one tenant has all of them", name)
		}
	}
}

// What one address is refused does not hold all the places where refused bodies are heard out.
func TestRefusedBodiesOfOneAddressAreCutOffBeyondItsShare(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	addr := r.outside(t, MaxConns)
	defer r.server.lingering.take(from("127.0.0.1"), lingerers-1, nil).release()
	c := call(t, "127.0.0.1", addr)
	_, _ = io.WriteString(c, "POST /v1/send HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized || !resp.Close {
		t.Errorf("answer = %d, closes %t, want a 401 and the end", resp.StatusCode, resp.Close)
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("the connection is still open")
	}
}

// However many links of one address are made up, those that are valid work: clients behind a proxy may all be one.
func TestMadeUpLinksBlockNoUnsubscribe(t *testing.T) {
	t.Parallel()
	r := linkRig(t)
	for i := range 700 {
		r.do("POST", fmt.Sprintf("/u/x%d", i%7), "", oneClick, "Content-Type", urlencoded)
		if i%100 == 0 {
			r.clock.move(time.Minute / unsubscribesPerMinute)
			r.want(r.do("GET", "/u/good", "", ""), 200, "")
		}
	}
	r.want(r.do("POST", "/u/good", "", oneClick, "Content-Type", urlencoded), 200, "")
	if len(r.store.suppressions) != 1 {
		t.Errorf("suppressions = %v, want one", r.store.suppressions)
	}
}

func TestProxyThatIsNotTrustedIsWarnedOfOnceAnHour(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := newRig(t, func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	})
	for _, peer := range []string{"10.0.0.1:1", "192.0.2.1:1", "192.0.2.1:1"} {
		req := httptest.NewRequest(http.MethodGet, "/v1/messages", http.NoBody)
		req.RemoteAddr = peer
		req.Header.Set("X-Forwarded-For", "203.0.113.9")
		r.exchange(req)
	}
	if got := strings.Count(log.String(), "SENDGATE_TRUSTED_PROXIES"); got != 1 || !strings.Contains(log.String(), "192.0.2.1") {
		t.Errorf("warnings = %d, want one that names the peer: %s", got, log.String())
	}
}
