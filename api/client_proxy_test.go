package api

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// A proxy of the environment would read the key of a request that goes by http.
func TestClientAsksNoProxyByHTTP(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://proxy.invalid")
	got, err := transport().Proxy(httptest.NewRequest(http.MethodGet, "http://send.example.com/", http.NoBody))
	if got != nil || err != nil {
		t.Errorf("proxy = %v, %v, want none", got, err)
	}
}
