package httpapi

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// closed refuses whatever comes, by its header, and says which setting would let it in.
type closed struct{}

func (closed) CheckHeader(http.Header, time.Time) error {
	return &provider.HookError{Status: http.StatusForbidden, Reason: "some_setting", Hint: "some_setting of the account turns this on"}
}

func (c closed) Receive(context.Context, *provider.Hook) (provider.Batch, error) {
	return provider.Batch{}, c.CheckHeader(nil, time.Time{})
}

func (closed) Parse([]byte) []mail.Event { return nil }

// readCount counts what is read of it.
type readCount struct {
	io.Reader
	n int
}

func (c *readCount) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// A receiver that is turned off says by which setting, without reading the body.
func TestAReceiverThatIsOffNamesItsSetting(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHooks(&fakeHooks{id: 7, parsers: map[string]provider.EventParser{"relay": closed{}}}))
	body := &readCount{Reader: strings.NewReader(strings.Repeat("x", 1<<10))}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/hooks/relay", body)
	w := httptest.NewRecorder()
	r.server.Handler().ServeHTTP(w, req)
	if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), `"detail":"some_setting of the account turns this on"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if body.n > 0 {
		t.Errorf("%d bytes of the body were read", body.n)
	}
}
