package httpapi

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// Three uploads of one tenant stall when most of them has come. Another tenant's is taken, large as it is.
func TestStalledUploadsOfOneTenantLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	blank, body := strings.Repeat(" ", 21<<20), large(22<<20)
	for name, announced := range map[string]int64{"announced": 22 << 20, "chunked": -1} {
		for sent, part := range map[string]int{"all but the end": 21 << 20, "the beginning": 1 << 20} {
			t.Run(name+", "+sent, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					defer r.server.Close()
					other := r.store.addKey(func(k *record.Key) { k.Tenant = 2 }, record.ScopeSend)
					end := make(chan struct{})
					var all sync.WaitGroup
					for range 3 {
						all.Go(func() {
							r.upload(r.send, &stalled{blank[:part], end}, announced)
						})
					}
					time.Sleep(patience + time.Second)
					synctest.Wait()
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
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is still open: %v", err)
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
