package httpapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func TestWrongKeysAllGetTheSameAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	revoked := r.store.addKey(func(k *record.Key) { k.RevokedAt = r.clock.now() }, record.ScopeRead)
	expired := r.store.addKey(func(k *record.Key) { k.ExpiresAt = r.clock.now() }, record.ScopeRead)
	_, unknown, _ := NewKey()
	other, _, _ := NewKey()
	_, stolen, _ := NewKey()
	wrongSecret := "sg_" + r.read[3:11] + stolen[11:len(stolen)-checkLen]
	wrongSecret += checkOf(wrongSecret)
	headers := map[string]string{
		"none": "", "empty": "Bearer ", "basic": "Basic " + r.read, "bare": r.read, "revoked": "Bearer " + revoked,
		"expired": "Bearer " + expired, "unknown": "Bearer " + unknown, "id alone": "Bearer sg_" + other,
		"wrong secret": "Bearer " + wrongSecret, "wrong check": "Bearer " + r.read[:len(r.read)-1] + "!",
	}
	for name, value := range headers {
		a := r.do("GET", "/v1/messages", "", "", "Authorization", value, "X-Request-Id", "same")
		r.want(a, http.StatusUnauthorized, "unauthorized")
		if a.header.Get("WWW-Authenticate") != `Bearer realm="sendgate"` {
			t.Errorf("%s: WWW-Authenticate = %q", name, a.header.Get("WWW-Authenticate"))
		}
		first := r.do("GET", "/v1/messages", "", "", "X-Request-Id", "same")
		if diff := cmp.Diff(string(first.body), string(a.body)); diff != "" {
			t.Errorf("%s: body differs from that without a key:\n%s", name, diff)
		}
		r.clock.move(time.Minute)
	}
}

func TestKeyInQueryOrTwiceIsNoKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.want(r.do("GET", "/v1/messages?key="+r.read+"&access_token="+r.read, "", ""), 401, "unauthorized")
	req := httptest.NewRequest(http.MethodGet, "/v1/messages", http.NoBody)
	req.Header["Authorization"] = []string{"Bearer " + r.read, "Bearer " + r.send}
	r.want(r.exchange(req), 401, "unauthorized")
}

func TestStoreFailureIsNotAnAuthFailure(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.AcceptWait = 50 * time.Millisecond })
	r.store.failWith(&record.Unavailable{Reason: "database", RetryAfter: time.Second})
	a := r.do("GET", "/v1/messages", r.read, "")
	r.want(a, http.StatusServiceUnavailable, "database")
}

func TestRevokedKeyStopsWithinTwoSeconds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.want(r.do("GET", "/v1/messages", r.read, ""), 200, "")
	r.store.mu.Lock()
	k := r.store.keys[r.read[3:11]]
	k.RevokedAt = r.clock.now()
	r.store.keys[k.ID] = k
	r.store.mu.Unlock()
	r.clock.move(2 * time.Second)
	r.want(r.do("GET", "/v1/messages", r.read, ""), 401, "unauthorized")
}

func TestKeyIsLookedUpOncePerSecond(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, unknown, _ := NewKey()
	for range 5 {
		r.do("GET", "/v1/messages", r.read, "")
		r.do("GET", "/v1/messages", unknown, "")
	}
	if got := r.store.count("KeyByID"); got != 2 {
		t.Errorf("look-ups for one good and one unknown key = %d, want 2", got)
	}
	r.clock.move(keyTTL + keyGrace)
	r.do("GET", "/v1/messages", r.read, "")
	if got := r.store.count("KeyByID"); got != 3 {
		t.Errorf("look-ups after the time to live = %d, want 3", got)
	}
}

func TestWrongKeysAreHeldBackAndGoodOnesNot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	refused := map[int]int{}
	for i := range 100 {
		_, wrong, _ := NewKey()
		a := r.do("GET", "/v1/messages", wrong, "")
		refused[a.status]++
		if a.status == http.StatusTooManyRequests && a.header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
		if i%10 == 9 {
			r.want(r.do("GET", "/v1/messages", r.read, ""), 200, "")
		}
	}
	if refused[http.StatusUnauthorized] != failuresPerMinute || refused[http.StatusTooManyRequests] != 80 {
		t.Errorf("answers to 100 wrong keys = %v, want 20 times 401 and 80 times 429", refused)
	}
	r.clock.move(time.Minute)
	_, wrong, _ := NewKey()
	r.want(r.do("GET", "/v1/messages", wrong, ""), 401, "unauthorized")
}

func TestFailuresCountPerAddressAndPerV6Network(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f := perMinute[holder](func() time.Time { return now }, failuresPerMinute)
	for range failuresPerMinute {
		f.Note(network(netip.MustParseAddr("2001:db8::1")))
		f.Note(network(netip.MustParseAddr("192.0.2.1")))
	}
	for ip, want := range map[string]bool{
		"2001:db8::ffff:1": true, "2001:db8:0:1::1": false, "192.0.2.1": true, "::ffff:192.0.2.1": true, "192.0.2.2": false,
	} {
		if got := f.Note(network(netip.MustParseAddr(ip))) > 0; got != want {
			t.Errorf("held back %s = %v, want %v", ip, got, want)
		}
	}
}

func TestFailuresAndKeysTakeBoundedMemory(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f := perMinute[holder](func() time.Time { return now }, failuresPerMinute)
	k := newKeyring(newFakeStore(now), func() time.Time { return now }, time.Second)
	for i := range limit.TriesKept + 100 {
		f.Note(network(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})))
		k.keep(fmt.Sprint(i), keyEntry{at: now})
		k.keepUnknown(fmt.Sprint(-i), now.Add(keyTTL))
	}
	if f.Clients() > limit.TriesKept || len(k.entries) > keysKept || len(k.unknown) > keysKept {
		t.Errorf("kept %d clients, %d keys and %d unknown ids, want at most %d and %d", f.Clients(), len(k.entries), len(k.unknown), limit.TriesKept, keysKept)
	}
}

func TestClientAddressIsTakenFromTrustedProxiesOnly(t *testing.T) {
	t.Parallel()
	s := &Server{proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	tests := map[string]struct{ peer, forwarded, want string }{
		"direct":             {"192.0.2.7:1", "", "192.0.2.7"},
		"direct, forged":     {"192.0.2.7:1", "203.0.113.9", "192.0.2.7"},
		"one proxy":          {"10.0.0.1:1", "203.0.113.9", "203.0.113.9"},
		"forged behind one":  {"10.0.0.1:1", "198.51.100.1, 203.0.113.9", "203.0.113.9"},
		"two proxies":        {"10.0.0.1:1", "203.0.113.9, 10.0.0.2", "203.0.113.9"},
		"garbage":            {"10.0.0.1:1", "unknown", "10.0.0.1"},
		"proxy itself":       {"10.0.0.1:1", "", "10.0.0.1"},
		"mapped peer":        {"[::ffff:192.0.2.7]:1", "", "192.0.2.7"},
		"no address of peer": {"@", "203.0.113.9", "invalid IP"},
	}
	for name, tt := range tests {
		req := &http.Request{RemoteAddr: tt.peer, Header: http.Header{}}
		if tt.forwarded != "" {
			req.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		if got := s.clientIP(req).String(); got != tt.want {
			t.Errorf("%s: client = %s, want %s", name, got, tt.want)
		}
	}
}

func TestKeyIsHeldToItsRate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	slow := r.store.addKey(func(k *record.Key) { k.RatePerSecond = 2 }, record.ScopeRead)
	for _, want := range []int{200, 200, 429} {
		if a := r.do("GET", "/v1/messages", slow, ""); a.status != want {
			t.Fatalf("answer = %d, want %d", a.status, want)
		}
	}
	a := r.do("GET", "/v1/messages", slow, "")
	r.want(a, 429, "rate_limited")
	if got := a.header.Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After = %q, want 1", got)
	}
	r.want(r.do("GET", "/v1/messages", r.read, ""), 200, "")
	r.clock.move(500 * time.Millisecond)
	r.want(r.do("GET", "/v1/messages", slow, ""), 200, "")
}

func TestPausedTenantCantSendButMayLook(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.store.tenants[0].Paused = true
	r.want(r.do("POST", "/v1/send", r.send, "{}"), 403, "tenant_paused")
	r.want(r.do("POST", "/v1/send/batch", r.send, "{}"), 403, "tenant_paused")
	r.want(r.do("POST", "/v1/messages/"+mail.NewID().String()+"/resend", r.send, ""), 403, "tenant_paused")
	r.want(r.do("POST", "/v1/messages/"+mail.NewID().String()+"/cancel", r.send, ""), 404, "not_found")
	r.want(r.do("GET", "/v1/messages", r.read, ""), 200, "")
}

func TestDrainingServerAcceptsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Draining = func() bool { return true } })
	a := r.do("POST", "/v1/send", r.send, "{}")
	r.want(a, 503, "draining")
	r.want(r.do("GET", "/v1/messages", r.read, ""), 200, "")
	if r.store.count("Accept") != 0 {
		t.Error("a draining server asked the store to accept")
	}
}

func TestKeyUseIsNotedOncePerMinute(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 3 {
		r.do("GET", "/v1/messages", r.read, "")
	}
	r.clock.move(touchEvery)
	r.server.touches.wg.Wait()
	r.do("GET", "/v1/messages", r.read, "")
	r.server.Close()
	if got := r.store.count("TouchKey"); got != 2 {
		t.Errorf("notes of 4 requests in just over a minute = %d, want 2", got)
	}
	r.clock.move(touchEvery)
	r.do("GET", "/v1/messages", r.read, "")
	if got := r.store.count("TouchKey"); got != 2 {
		t.Errorf("notes after Close = %d, want still 2", got)
	}
}
