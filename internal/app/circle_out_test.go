//go:build drill

package app

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/sendgate/sendgate/api"
)

// serveHTTP serves on this machine until the test ends.
func serveHTTP(t *testing.T, h http.Handler) (base string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// sink is a receiver of webhooks as its owner would write it. It refuses the first delivery of every third event.
type sink struct {
	mu      sync.Mutex
	hook    *standardwebhooks.Webhook
	events  map[string]api.Event // taken, by webhook id
	types   map[string]int
	tries   map[string]int
	refused int
	faults  []string
}

func (s *sink) trust(t *testing.T, secret string) {
	t.Helper()
	hook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook, s.events, s.types, s.tries = hook, map[string]api.Event{}, map[string]int{}, map[string]int{}
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || s.hook == nil || s.hook.Verify(body, r.Header) != nil {
		s.faults = append(s.faults, "a request that does not verify")
		http.Error(w, "", http.StatusUnauthorized)
		return
	}
	id := r.Header.Get("Webhook-Id")
	s.tries[id]++
	if len(s.tries)%3 == 0 && s.tries[id] == 1 {
		s.refused++
		http.Error(w, "", http.StatusServiceUnavailable)
		return
	}
	var p struct {
		Type string    `json:"type"`
		Data api.Event `json:"data"`
	}
	if err := json.Unmarshal(body, &p); err != nil || p.Type != "message."+p.Data.Type || p.Data.ID != id {
		s.faults = append(s.faults, "a body that is not its event: "+string(body))
	}
	if _, again := s.events[id]; again {
		s.faults = append(s.faults, "told twice: "+id)
	}
	s.events[id] = p.Data
	s.types[p.Data.Type]++
}

func (s *sink) taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.events)
}

// endpoints are two receivers of webhooks: of all events, and of some types.
type endpoints struct{ all, some *sink }

// newEndpoints serves both, and gives the setting that allows them.
func newEndpoints(t *testing.T) (e endpoints, urls [2]string, allow string) {
	t.Helper()
	e = endpoints{all: &sink{}, some: &sink{}}
	urls = [2]string{serveHTTP(t, e.all), serveHTTP(t, e.some)}
	return e, urls, "SENDGATE_FORWARD_ALLOW=" + target(urls[0]) + "," + target(urls[1])
}

func (e endpoints) register(t *testing.T, r *replica, urls [2]string) {
	t.Helper()
	for i, s := range []*sink{e.all, e.some} {
		request := api.WebhookEndpointRequest{URL: &urls[i]}
		if s == e.some {
			request.Types = &[]string{"bounced", "complained"}
		}
		made, err := r.api.CreateWebhookEndpoint(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		s.trust(t, made.Secret)
	}
}

// check compares the received webhooks with the listed events: each came once, and signed.
func (e endpoints) check(t *testing.T, b *bench, events []api.Event) {
	t.Helper()
	listed, wantSome := map[string]api.Event{}, 0
	for _, x := range events {
		if x.Type == "" { // events without a type go to no endpoint
			continue
		}
		listed[x.ID] = x
		if x.Type == "bounced" || x.Type == "complained" {
			wantSome++
		}
	}
	eventually(t, settleTime, "all is told", func() bool {
		return e.all.taken() >= len(listed) && e.some.taken() >= wantSome && b.count(t.Context(), `SELECT count(*) FROM outbox`) == 0
	})
	if diff := cmp.Diff(listed, e.all.events, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("events told are not those listed (-listed +told):\n%s", diff)
	}
	if len(e.some.events) != wantSome || len(e.some.types) != 2 {
		t.Errorf("told of the types bounced and complained: %v, want %d in all", e.some.types, wantSome)
	}
	if len(e.all.faults)+len(e.some.faults) != 0 || e.all.refused == 0 {
		t.Errorf("faults = %v, %v; refused once %d, want none and some", e.all.faults, e.some.faults, e.all.refused)
	}
}

// target is what SENDGATE_FORWARD_ALLOW wants for a URL.
func target(url string) string {
	return strings.Replace(strings.TrimPrefix(url, "http://"), ":", "/32:", 1)
}

func TestAnEndpointAtAPrivateAddressIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t, "SENDGATE_FORWARD_ALLOW="+target(serveHTTP(t, &sink{}))) // which is another
	url := serveHTTP(t, &sink{})
	for _, u := range []string{url, strings.Replace(url, "http", "https", 1), "https://127.0.0.1/x", "https://[::1]/x", "https://169.254.169.254/x"} {
		_, err := r.api.CreateWebhookEndpoint(t.Context(), api.WebhookEndpointRequest{URL: &u})
		wantProblem(t, "an endpoint at "+u, err, http.StatusUnprocessableEntity)
	}
	if n := b.count(t.Context(), `SELECT count(*) FROM webhook_endpoint`); n != 0 {
		t.Errorf("endpoints stored = %d, want 0", n)
	}
}
