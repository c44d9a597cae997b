package httpapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// However many strangers guess, a minute has a bounded number of entries, and whoever came first keeps his own.
func TestFailedLoginsAreCountedByAddressAndBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	try := func(path, from, key string) {
		q := httptest.NewRequest(http.MethodGet, path, nil)
		q.RemoteAddr = from + ":1000"
		if key != "" {
			q.Header.Set("Authorization", "Bearer "+key)
		}
		r.server.Handler().ServeHTTP(httptest.NewRecorder(), q)
	}
	_, forged, _ := NewKey()
	for range 30 { // 20 are answered 401, the others 429
		try("/v1/messages", "192.0.2.1", forged)
	}
	try("/v1/messages", "192.0.2.1", "nonsense")
	try("/u/forged", "192.0.2.1", "")
	try("/v1/messages", "192.0.2.1", "") // no credentials, no failed login
	for i := range 100 {
		try("/v1/messages", fmt.Sprintf("198.51.100.%d", i), forged)
	}
	try("/v1/messages", "192.0.2.1", forged)
	if got := r.server.FailedLogins(false); got != nil {
		t.Errorf("handed out before the minute was over: %v", got)
	}
	got := map[string]record.FailedLogins{}
	for _, f := range r.server.FailedLogins(true) {
		f.Since = time.Time{}
		got[f.From] = f
	}
	if len(got) != loginEntries+1 {
		t.Errorf("%d entries, want %d", len(got), loginEntries+1)
	}
	if f := got["192.0.2.1/32"]; f.Keys != 32 || f.Links != 1 || f.Passwords != 0 {
		t.Errorf("the first = %+v, want 32 keys and a link", f)
	}
	if f := got["others"]; f.Keys != 100-loginEntries+1 {
		t.Errorf("others = %+v, want %d keys", f, 100-loginEntries+1)
	}
	if left := r.server.FailedLogins(true); len(left) != 0 {
		t.Errorf("handed out twice: %v", left)
	}
}
