package httpapi

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
)

// A tenant that has its share of what a route gives out is refused there, though there is room, and another tenant is served.
func TestEveryDearRouteCountsByTenant(t *testing.T) {
	t.Parallel()
	f, r := withEndpoints(t)
	other := r.store.addKey(func(k *record.Key) { k.Tenant = 2 }, record.ScopeRead, record.ScopeSuppressionsWrite, record.ScopeWebhooksWrite)
	mine := r.store.addKey(nil, record.ScopeRead, record.ScopeSuppressionsWrite, record.ScopeWebhooksWrite)
	f.all = []record.Endpoint{{ID: mail.NewID(), Tenant: mail.DefaultTenant}, {ID: mail.NewID(), Tenant: 2}}
	csv := []string{"Content-Type", "text/csv"}
	for route, c := range map[string]struct {
		pool   *pool
		body   string
		header []string
	}{
		"GET /v1/stats":                          {r.server.stats, "", nil},
		"GET /v1/events/stream":                  {r.server.streams, "", nil},
		"POST /v1/suppressions/import":           {r.server.imports, "email\nann@example.org\n", csv},
		"POST /v1/webhook-endpoints/{id}/test":   {r.server.tests, "", nil},
		"POST /v1/webhook-endpoints/{id}/replay": {r.server.replays, `{"since":"2026-01-31T08:00:00Z"}`, nil},
	} {
		method, path, _ := strings.Cut(route, " ")
		fill(c.pool, holder{tenant: mail.DefaultTenant}, nil)
		for i, key := range []string{mine, other} {
			a := r.do(method, strings.Replace(path, "{id}", f.all[i].ID.String(), 1), key, c.body, c.header...)
			busy := a.status == http.StatusServiceUnavailable || a.status == http.StatusTooManyRequests
			if busy != (i == 0) || !busy && a.status != http.StatusOK {
				t.Errorf("%s by tenant %d = %d %s, want the first refused and the other served", route, i+1, a.status, a.problem.Code)
			}
		}
	}
}

// A tenant that holds its share of the memory for large bodies is refused another one, though there is room. Ordinary mail of
// its own, and large bodies of others, are taken.
func TestLargeBodiesCountByTenant(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	defer r.server.bodies.take(holder{tenant: mail.DefaultTenant}, DefaultBodyBudget/2, nil).release()
	other := r.store.addKey(func(k *record.Key) { k.Tenant = 2 }, record.ScopeSend)
	for _, announced := range []bool{true, false} {
		post := func(key, body string) int {
			n := int64(-1)
			if announced {
				n = int64(len(body))
			}
			return r.upload(key, strings.NewReader(body), n)
		}
		if mine, small, theirs := post(r.send, large(1<<20)), post(r.send, large(100)), post(other, large(1<<20)); mine != 503 || small != 202 || theirs != 202 {
			t.Errorf("announced %v: a large body = %d, a small one = %d, a large one of another tenant = %d; want 503, 202, 202", announced, mine, small, theirs)
		}
	}
}

// Of what nobody announced, as much is read as the budget allows.
func TestUnannouncedBodiesAreHeldToTheBudget(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.MaxBody, o.BodyBudget = 1<<20, 1<<20 })
	held := r.server.bodies.take(holder{}, 500<<10, nil)
	body := large(700 << 10)
	if got := r.upload(r.send, strings.NewReader(body), -1); got != 503 {
		t.Errorf("a chunked body beyond the budget = %d, want 503", got)
	}
	held.release()
	if got := r.upload(r.send, strings.NewReader(body), -1); got != 202 {
		t.Errorf("the same when there is room = %d, want 202", got)
	}
	if left := r.server.bodies.takenNow(); left != 0 {
		t.Errorf("%d bytes of the budget are still taken", left)
	}
	defer r.server.bodies.take(holder{}, 500<<10, nil).release()
	unread := strings.NewReader(body)
	if got := r.upload(r.send, unread, int64(len(body))); got != 503 || unread.Len() != len(body) {
		t.Errorf("an announced body beyond the budget = %d, of which %d bytes were read; want 503 before any is", got, len(body)-unread.Len())
	}
}

// Imports whose files do not come give their places to others.
func TestStalledImportsGiveWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.server.Close()
		key := func(tenant int) string {
			return r.store.addKey(func(k *record.Key) { k.Tenant = mail.TenantID(tenant) }, record.ScopeSuppressionsWrite)
		}
		post := func(key string, body io.Reader) int {
			req := httptest.NewRequest(http.MethodPost, "/v1/suppressions/import", body)
			req.Header.Set("Authorization", "Bearer "+key)
			req.Header.Set("Content-Type", "text/csv")
			rec := httptest.NewRecorder()
			r.server.Handler().ServeHTTP(rec, req)
			return rec.Code
		}
		end := make(chan struct{})
		var all sync.WaitGroup
		for i := range importsAtOnce {
			mine := key(i + 1)
			all.Go(func() { post(mine, &stalled{"email\nann@example.org\n", end}) })
			synctest.Wait() // the keys are looked up one by one
		}
		const file = "email\nbob@example.org\n"
		if got := post(key(9), strings.NewReader(file)); got != 503 {
			t.Errorf("beside as many as there may be = %d, want 503", got)
		}
		time.Sleep(patience + time.Second)
		if got := post(key(9), strings.NewReader(file)); got != 200 {
			t.Errorf("when the others have stalled = %d, want 200", got)
		}
		close(end)
		all.Wait()
	})
}

// An address that holds its share of the memory for bodies of events is refused another one, and others are served.
func TestBodiesOfEventsCountByAddress(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHooks(&fakeHooks{id: 7, parsers: map[string]provider.EventParser{"open": openParser()}}))
	defer r.server.hookBodies.take(from("192.0.2.1"), hookRoom/2, nil).release()
	post := func(ip string, size int) int {
		req := httptest.NewRequest(http.MethodPost, "/hooks/open", strings.NewReader(strings.Repeat("x", size)))
		req.RemoteAddr = ip + ":1"
		rec := httptest.NewRecorder()
		r.server.Handler().ServeHTTP(rec, req)
		return rec.Code
	}
	if mine, small, theirs := post("192.0.2.1", 2*freeBody), post("192.0.2.1", 100), post("192.0.2.2", 2*freeBody); mine != 503 || small != 200 || theirs != 200 {
		t.Errorf("a large body = %d, a small one = %d, a large one from elsewhere = %d; want 503, 200, 200", mine, small, theirs)
	}
}
