package httpapi

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-chi/chi/v5"
)

func TestPathParamHoldsNothingThatPostgresRefuses(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/a%00b": "", "/%ff": "", "/a%2f%00": "", "/%0a": "", "/ann%40example.org": "ann@example.org", "/a%2fb": "a/b", "/a%252f": "a%2f",
	} {
		got := "not routed"
		r := chi.NewRouter()
		r.Get("/{name}", func(_ http.ResponseWriter, r *http.Request) { got = pathParam(r, "name") })
		r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if got != want {
			t.Errorf("pathParam of %s = %q, want %q", path, got, want)
		}
	}
}
