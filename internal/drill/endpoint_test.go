//go:build drill

package drill

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

// Webhook endpoints are dead, slow, send endless answers or redirect to internal addresses. A good endpoint still gets every
// event.
func TestD36EndpointsOfCallersAreBroken(t *testing.T) {
	var good, inside atomic.Int64
	urls := map[string]string{
		"good":  serve(t, func(http.ResponseWriter, *http.Request) { good.Add(1) }),
		"slow":  serve(t, func(_ http.ResponseWriter, r *http.Request) { sleep(r.Context(), 20*time.Second) }),
		"huge":  serve(t, func(w http.ResponseWriter, _ *http.Request) { writeMuch(w) }),
		"dead":  "http://" + fixedAddr(t),
		"inner": serve(t, func(http.ResponseWriter, *http.Request) { inside.Add(1) }),
	}
	urls["redirect"] = serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, urls["inner"], http.StatusTemporaryRedirect)
	})
	var allowed []string
	for name, url := range urls {
		if name != "inner" {
			allowed = append(allowed, strings.Replace(strings.TrimPrefix(url, "http://"), ":", "/32:", 1))
		}
	}
	p := plan{settings: []string{"SENDGATE_FORWARD_ALLOW=" + strings.Join(allowed, ",")}}
	drillTest(t, "D36", p, func(t *testing.T, r *rig) {
		client := api.NewWith("http://"+r.replicas[0].api, r.keys["default"], r.http)
		for name, url := range urls {
			if name == "inner" {
				continue
			}
			if _, err := client.CreateWebhookEndpoint(t.Context(), api.WebhookEndpointRequest{URL: &url, Description: &name}); err != nil {
				t.Fatal(err)
			}
		}
		pause(t, *duration)
		r.clients.stop()
		const behind = `SELECT count(*) FROM outbox o JOIN webhook_endpoint e ON e.id = o.endpoint_id WHERE e.description = 'good'`
		began := time.Now()
		must(t, 30*time.Second, "the good endpoint is told of everything", func() bool {
			return r.count(t.Context(), openSQL) == 0 && r.count(t.Context(), behind) == 0
		})
		r.report.figure("good_one_caught_up", time.Since(began), 0)
		r.report.tally("told", good.Load())
		for _, bad := range []string{"slow", "dead", "redirect"} {
			n := r.number(t, `SELECT count(*) FROM delivery d JOIN webhook_endpoint e ON e.id = d.endpoint_id
				WHERE e.description = $1 AND d.outcome = 'delivered'`, bad)
			tried := r.number(t, `SELECT count(*) FROM outbox o JOIN webhook_endpoint e ON e.id = o.endpoint_id WHERE e.description = $1`, bad)
			if n != 0 || tried == 0 {
				t.Errorf("the %s endpoint: delivered %d, waiting %d; want none and some", bad, n, tried)
			}
		}
		if good.Load() == 0 || inside.Load() != 0 {
			t.Errorf("requests to the good endpoint %d, to where the redirect points %d; want some and none", good.Load(), inside.Load())
		}
	})
}

func serve(t *testing.T, h http.HandlerFunc) (url string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.BaseContext = func(net.Listener) context.Context { return t.Context() }
	s.Start()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.URL
}

// writeMuch answers with 64 MB.
func writeMuch(w http.ResponseWriter) {
	block := make([]byte, 1<<20)
	for range 64 {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}
