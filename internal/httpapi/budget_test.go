package httpapi

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// large is a valid send with a text of so many bytes.
func large(n int) string {
	return `{"from":"shop@example.com","to":"ann@example.org","subject":"s","text":"` + strings.Repeat("x", n) + `"}`
}

// begin sends all of a request but its last byte, and returns what sends that and waits for the status.
func begin(t *testing.T, url, key, body string) (finish func() int) {
	t.Helper()
	reader, writer := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/send", reader)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = int64(len(body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+key)
	status := make(chan int, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			status <- 0
			return
		}
		_ = resp.Body.Close()
		status <- resp.StatusCode
	}()
	if _, err := io.WriteString(writer, body[:len(body)-1]); err != nil {
		t.Fatal(err)
	}
	return func() int {
		_, _ = io.WriteString(writer, body[len(body)-1:]) // nobody reads it when the answer came before
		_ = writer.Close()
		return <-status
	}
}

func TestLargeBodiesBeyondTheBudgetAreRefusedAndSmallOnesAreNot(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.MaxBody, o.BodyBudget = 1<<20, 1<<20 })
	s := httptest.NewServer(r.server.Handler())
	t.Cleanup(s.Close)

	first := begin(t, s.URL, r.send, large(700<<10))
	r.awaitHeld(t, 600<<10)
	if got := begin(t, s.URL, r.send, large(700<<10))(); got != http.StatusServiceUnavailable {
		t.Errorf("a second large body beside the first = %d, want 503", got)
	}
	if got := begin(t, s.URL, r.send, large(1000))(); got != http.StatusAccepted {
		t.Errorf("a small body beside a large one = %d, want 202", got)
	}
	if got := first(); got != http.StatusAccepted {
		t.Errorf("the first large body = %d, want 202", got)
	}
	r.awaitHeld(t, 0)
	if got := begin(t, s.URL, r.send, large(700<<10))(); got != http.StatusAccepted {
		t.Errorf("a large body after the others = %d, want 202: what they held was not given back", got)
	}
}

// Whatever a request ends in, it gives back what it held.
func TestBodiesThatAreRefusedGiveTheBudgetBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.MaxBody, o.BodyBudget = 1<<20, 1<<20 })
	for range 3 {
		for _, body := range []string{large(900 << 10)[:800<<10], "[" + large(900<<10) + "]", large(2 << 20)} {
			r.do(http.MethodPost, "/v1/send", r.send, body)
		}
	}
	if got := r.do(http.MethodPost, "/v1/send", r.send, large(900<<10)); got.status != http.StatusAccepted {
		t.Errorf("a large body after many that were refused = %d, want 202", got.status)
	}
}

func (p *pool) takenNow() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// awaitHeld waits until at least so much of the budget is taken; with 0 until none of it is.
func (r *rig) awaitHeld(t *testing.T, least int64) {
	t.Helper()
	for range 10_000 { // ms
		<-time.After(time.Millisecond)
		if taken := r.server.bodies.takenNow(); least == 0 && taken == 0 || least > 0 && taken >= least {
			return
		}
	}
	t.Fatalf("not within 10 s: %d bytes of the budget are taken", least)
}
