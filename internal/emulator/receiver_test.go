package emulator_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

// hookCall is one request to a receiver.
type hookCall struct {
	header http.Header
	body   string
}

// inbox is a receiver of hooks. It answers 200 unless the test sets another answer.
type inbox struct {
	URL string

	mu     sync.Mutex
	calls  []hookCall
	answer func(n int, c hookCall) int // n counts from 1
}

func newInbox(t *testing.T, answer func(n int, c hookCall) int) *inbox {
	t.Helper()
	in := &inbox{answer: answer}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		c := hookCall{r.Header.Clone(), string(body)}
		in.calls = append(in.calls, c)
		status := http.StatusOK
		if in.answer != nil {
			status = in.answer(len(in.calls), c)
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(srv.Close)
	in.URL = srv.URL + "/hooks/x"
	return in
}

func (in *inbox) got() []hookCall {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]hookCall(nil), in.calls...)
}

// wait returns the calls once there are n.
func (in *inbox) wait(t *testing.T, n int) []hookCall {
	t.Helper()
	eventually(t, "the calls", func() bool { return len(in.got()) >= n })
	return in.got()
}

// fast makes events come and come again at once.
func fast(kind string, h emulator.Hook) emulator.Options {
	return emulator.Options{
		Hooks: map[string]emulator.Hook{kind: h}, EventPace: time.Millisecond, DeferFor: time.Millisecond, RetryPace: time.Millisecond,
	}
}

// hooked starts an emulator that posts to a receiver.
func hooked(t *testing.T, kind string, answer func(n int, c hookCall) int) (*server, *inbox) {
	t.Helper()
	in := newInbox(t, answer)
	return start(t, fast(kind, emulator.Hook{"url": in.URL})), in
}

// settled waits until no event is left to send and returns the statistics.
func (b *server) settled(t *testing.T, kind string, want func(emulator.HookStats) bool) emulator.HookStats {
	t.Helper()
	eventually(t, "what was waited for", func() bool {
		s := b.Stats()[kind].Hooks
		return s.Pending == 0 && want(s)
	})
	return b.Stats()[kind].Hooks
}
