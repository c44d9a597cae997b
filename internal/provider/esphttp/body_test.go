package esphttp

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// closedBody is a request body as the AWS SDK has it: it is closed when the header of the answer has come, and its
// WriteTo fails from then on. Here WriteTo waits for that moment, so that the race has one outcome.
type closedBody struct {
	io.Reader
	once   sync.Once
	closed chan struct{}
}

func (b *closedBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

func (b *closedBody) WriteTo(io.Writer) (int64, error) {
	<-b.closed
	return 0, io.EOF
}

func TestAnswerOutlivesTheRequestBody(t *testing.T) {
	t.Parallel()
	looked := make(chan struct{})
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-looked
		_, _ = io.WriteString(w, "taken")
	})
	const size = 64 << 10 // larger than net/http's buffer, or nothing leaves before the look for surplus bytes
	body := &closedBody{Reader: strings.NewReader(strings.Repeat("x", size)), closed: make(chan struct{})}
	ctx, tr := Track(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL, body)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = size
	resp, err := newClient(t, Options{}).HTTP().Do(req)
	if err != nil {
		t.Fatalf("Do: %v", err)
	}
	defer resp.Body.Close()
	_ = body.Close()
	time.AfterFunc(5*time.Millisecond, func() { close(looked) })
	if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "taken" {
		t.Errorf("answer = %q, %v, want it whole", got, err)
	}
	if tr.Status() != http.StatusOK {
		t.Errorf("status = %d", tr.Status())
	}
}

func TestEmptyBodyHasNoLength(t *testing.T) {
	t.Parallel()
	srv := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
			t.Errorf("%s has length %d, encoding %v", r.Method, r.ContentLength, r.TransferEncoding)
		}
	})
	for _, body := range []io.Reader{nil, http.NoBody} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL, body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := newClient(t, Options{}).HTTP().Do(req)
		if err != nil {
			t.Fatalf("Do: %v", err)
		}
		_ = resp.Body.Close()
	}
}
