package httpapi

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sendgate/sendgate/internal/hostcheck"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// answersTo sends bytes over a connection and returns how many answers came before it was closed.
func answersTo(t *testing.T, addr, raw string) int {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it was read to its end
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("the connection was not closed: %v", err)
	}
	return strings.Count(string(got), "HTTP/1.1 ")
}

// What follows a request that has both Content-Length and Transfer-Encoding is never taken for another request, on any route,
// whether its handler reads a body or not.
func TestNothingIsSmuggledBehindTwoLengthsOnAnyRoute(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ops := telemetry.Ops(prometheus.NewRegistry(), func(context.Context) error { return nil }, hostcheck.Rule{Inside: true})
	routes := map[http.Handler][]string{ops: {"GET /healthz", "GET /readyz", "GET /metrics", "POST /nothing"}}
	api := r.server.Handler()
	routes[api] = []string{"GET /nothing", "PUT /v1/send", "OPTIONS /v1/send"}
	err := chi.Walk(api.(chi.Routes), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routes[api] = append(routes[api], method+" "+strings.NewReplacer("{", "", "}", "").Replace(route))
		return nil
	})
	if err != nil || len(routes[api]) < 40 {
		t.Fatalf("%d routes: %v", len(routes[api]), err)
	}
	for handler, all := range routes {
		s := httptest.NewUnstartedServer(nil)
		s.Config = HTTPServer(handler)
		s.Start()
		t.Cleanup(s.Close)
		for _, route := range all {
			for _, key := range []string{"", r.send, r.admin} {
				head := fmt.Sprintf("%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n", route)
				if key != "" {
					head += "Authorization: Bearer " + key + "\r\n"
				}
				raw := head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
				if strings.Contains(route, "/events/stream") && key == r.send {
					continue // it does not end
				}
				if n := answersTo(t, s.Listener.Addr().String(), raw); n != 1 {
					t.Errorf("%s: %d answers, want that of the first request only", route, n)
				}
			}
		}
	}
}
