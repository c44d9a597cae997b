package telemetry

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/hostcheck"
)

// A page whose host name was pointed at this listener can read neither the metrics nor the reason of readiness. Health probes
// still work.
func TestPagesReadNothingOfOperations(t *testing.T) {
	t.Parallel()
	h := Ops(NewRegistry(), func(context.Context) error { return errors.New("pool secret-name") }, hostcheck.Rule{Inside: true, Setting: "SENDGATE_OPS_HOSTS"})
	for _, c := range []struct {
		host, site string
		metrics    int
	}{
		{"sendgate:8026", "", 200},
		{"10.0.0.7:8026", "", 200},
		{"127.0.0.1:8026", "none", 200},
		{"evil.example:8026", "", 403},
		{"127.0.0.1:8026", "cross-site", 403},
	} {
		ask := func(path string) (int, string) {
			r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
			r.Host = c.host
			if c.site != "" {
				r.Header.Set("Sec-Fetch-Site", c.site)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Code, w.Body.String()
		}
		status, body := ask("/metrics")
		if status != c.metrics || status == 403 && !strings.Contains(body, "SENDGATE_OPS_HOSTS") {
			t.Errorf("/metrics asked by %s %s = %d %.100q, want %d", c.host, c.site, status, body, c.metrics)
		}
		if status, body = ask("/readyz"); status != 503 || strings.Contains(body, "secret-name") != (c.metrics == 200) {
			t.Errorf("/readyz asked by %s %s = %d %q", c.host, c.site, status, body)
		}
		if status, _ = ask("/healthz"); status != 200 {
			t.Errorf("/healthz asked by %s = %d", c.host, status)
		}
	}
}
