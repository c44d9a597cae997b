package providertest

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

// start makes a server that answers with h, and an adapter that calls it.
func start(t *testing.T, s Suite, h http.Handler) (*server, provider.Provider) {
	t.Helper()
	srv := newServer(t, h)
	return srv, s.open(t, srv.URL)
}

func (s Suite) open(t *testing.T, url string) provider.Provider {
	t.Helper()
	p := s.New(t, url)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return p
}

// send makes one call and checks what holds for every error.
func (s Suite) send(ctx context.Context, t *testing.T, p provider.Provider, work *provider.Send) (provider.Receipt, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := p.Send(ctx, work)
	CheckNoSecret(t, err, s.Secrets)
	if err != nil {
		checkDetail(t, AsError(t, err).Detail)
	}
	return r, err
}

func accepts(t *testing.T, s Suite) {
	t.Helper()
	srv, p := start(t, s, s.Accept)
	for _, sm := range Samples() {
		if _, err := s.send(t.Context(), t, p, sm.Send); err != nil {
			t.Errorf("Send %s: %v", sm.Name, err)
		}
		got := srv.take()
		if len(got) != 1 {
			t.Fatalf("Send %s: %d requests, want 1", sm.Name, len(got))
		}
		if id, want := s.ExtractID(got[0].Request, got[0].body), sm.Send.Message.ID.String(); id != want {
			t.Errorf("Send %s carried the message id %q, want %q", sm.Name, id, want)
		}
		for key := range got[0].Header {
			if s.KeyHeader == "" && strings.Contains(strings.ToLower(key), "idempotency-key") {
				t.Errorf("Send %s: header %s left, which makes net/http replay a POST", sm.Name, key)
			}
		}
	}
}

// repeatsAreTheSame makes each sample's call twice, as the engine does after a lost answer. The provider recognises the repeat
// only if nothing differs.
func repeatsAreTheSame(t *testing.T, s Suite) {
	t.Helper()
	if s.KeyHeader == "" {
		return
	}
	srv, p := start(t, s, s.Accept)
	for _, sm := range Samples() {
		again := *sm.Send
		again.Attempt++
		for _, work := range []*provider.Send{sm.Send, &again} {
			if _, err := s.send(t.Context(), t, p, work); err != nil {
				t.Fatalf("Send %s: %v", sm.Name, err)
			}
		}
		got := srv.take()
		if len(got) != 2 {
			t.Fatalf("Send %s: %d requests, want 2", sm.Name, len(got))
		}
		first, second := got[0].Header.Get(s.KeyHeader), got[1].Header.Get(s.KeyHeader)
		if !strings.HasPrefix(first, sm.Send.Key) || second != first {
			t.Errorf("Send %s: keys of the call and its repeat = %q, %q, want %q twice", sm.Name, first, second, sm.Send.Key)
		}
		if string(got[0].body) != string(got[1].body) {
			t.Errorf("Send %s: the body of the repeat differs", sm.Name)
		}
	}
}

func goldenRequests(t *testing.T, s Suite) {
	t.Helper()
	render := s.Normalise
	if render == nil {
		render = Render
	}
	srv, p := start(t, s, s.Accept)
	for _, sm := range Samples() {
		if _, err := s.send(t.Context(), t, p, sm.Send); err != nil {
			t.Fatalf("Send %s: %v", sm.Name, err)
		}
		for _, r := range srv.take() {
			Golden(t, "request_"+sm.Name+".txt", render(t, r.Request, r.body))
		}
	}
}

// everyStatus checks the class of every HTTP status, and that each call makes one request.
func everyStatus(t *testing.T, s Suite) {
	t.Helper()
	srv, p := start(t, s, s.Accept)
	for status := 200; status < 600; status++ {
		body, header := "{}", http.Header(nil)
		if s.Answer != nil {
			body, header = s.Answer(status)
		}
		want, ok := s.WantByStatus[status]
		if !ok {
			want = esphttp.ByStatus(status)
		}
		srv.answer(fixed(status, header, body))
		_, err := s.send(t.Context(), t, p, PlainSend())
		got := provider.Accepted
		if err != nil {
			perr := AsError(t, err)
			got = perr.Class
			if perr.Status != status {
				t.Errorf("status %d is reported as %d", status, perr.Status)
			}
		}
		if got != want {
			t.Errorf("class of status %d = %s (%v), want %s", status, got, err, want)
		}
		if n := len(srv.take()); n != 1 {
			t.Errorf("status %d was asked for %d times, want once", status, n)
		}
	}
}

// documentedCodes checks the error or receipt of each documented answer.
func documentedCodes(t *testing.T, s Suite) {
	t.Helper()
	for _, c := range s.Codes {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			srv, p := start(t, s, fixed(c.Status, c.Header, c.Body))
			work := c.Send
			if work == nil {
				work = PlainSend()
			}
			r, err := s.send(t.Context(), t, p, work)
			srv.takeOne(t)
			if c.Want.Class == provider.Accepted {
				if err != nil {
					t.Fatalf("Send = %v, want an acceptance", err)
				}
				CheckReceipt(t, r, c.Receipt)
			} else {
				want := c.Want
				want.Status = c.Status
				CheckError(t, err, want)
			}
			if c.Check != nil {
				var perr *provider.Error
				if err != nil {
					perr = AsError(t, err)
				}
				c.Check(t, r, perr)
			}
		})
	}
}

func cancelBeforeWrite(t *testing.T, s Suite) {
	t.Helper()
	srv, p := start(t, s, s.Accept)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.send(ctx, t, p, PlainSend())
	CheckClass(t, err, provider.Transient)
	if n := len(srv.take()); n != 0 {
		t.Errorf("requests after a cancel before the write = %d, want 0", n)
	}
}

func refusedConnection(t *testing.T, s Suite) {
	t.Helper()
	srv := newServer(t, s.Accept)
	p := s.open(t, srv.URL)
	srv.Close()
	_, err := s.send(t.Context(), t, p, PlainSend())
	CheckClass(t, err, provider.Transient)
}

// hanging does not answer until the caller is gone. It signals when the request has arrived.
func hanging(arrived chan<- struct{}) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})
}

func cancelAfterWrite(t *testing.T, s Suite) {
	t.Helper()
	arrived := make(chan struct{}, 8)
	srv, p := start(t, s, hanging(arrived))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-arrived
		cancel()
	}()
	_, err := s.send(ctx, t, p, PlainSend())
	CheckClass(t, err, provider.Uncertain)
	srv.takeOne(t)
}

func deadlineAfterWrite(t *testing.T, s Suite) {
	t.Helper()
	arrived := make(chan struct{}, 8)
	srv, p := start(t, s, hanging(arrived))
	ctx := &pulledDeadline{Context: t.Context(), done: make(chan struct{})}
	go func() {
		<-arrived
		close(ctx.done)
	}()
	_, err := s.send(ctx, t, p, PlainSend())
	CheckClass(t, err, provider.Uncertain)
	srv.takeOne(t)
}

// pulledDeadline passes its deadline when done is closed, so that the test needs no clock.
type pulledDeadline struct {
	context.Context
	done chan struct{}
}

// Done implements context.Context.
func (c *pulledDeadline) Done() <-chan struct{} { return c.done }

// Err implements context.Context.
func (c *pulledDeadline) Err() error {
	select {
	case <-c.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// droppedConnection drops a fresh connection, and a used one: on a used one net/http may replay the request.
func droppedConnection(t *testing.T, s Suite) {
	t.Helper()
	for name, reset := range map[string]bool{"reset": true, "close": false} {
		for use, used := range map[string]bool{"fresh": false, "used": true} {
			t.Run(name+" "+use, func(t *testing.T) {
				t.Parallel()
				srv, p := start(t, s, s.Accept)
				if used {
					if _, err := s.send(t.Context(), t, p, PlainSend()); err != nil {
						t.Fatalf("first Send: %v", err)
					}
					srv.takeOne(t)
				}
				srv.answer(drop(reset))
				_, err := s.send(t.Context(), t, p, PlainSend())
				CheckClass(t, err, provider.Uncertain)
				srv.takeOne(t)
			})
		}
	}
}

// truncatedAnswer checks that half an answer never counts as "nothing was sent".
func truncatedAnswer(t *testing.T, s Suite) {
	t.Helper()
	srv, p := start(t, s, cut(http.StatusOK))
	for _, status := range []int{http.StatusOK, http.StatusAccepted, http.StatusInternalServerError} {
		srv.answer(cut(status))
		_, err := s.send(t.Context(), t, p, PlainSend())
		srv.takeOne(t)
		if err == nil && status < 300 {
			continue
		}
		CheckClass(t, err, provider.Uncertain)
	}
}

// parallelSends checks that parallel sends do not mix their contents.
func parallelSends(t *testing.T, s Suite) {
	t.Helper()
	const n = 100
	srv, p := start(t, s, s.Accept)
	Parallel(t, p, n)
	requests := srv.take()
	if len(requests) != n {
		t.Errorf("requests = %d, want %d", len(requests), n)
	}
	received := map[string]string{}
	for _, r := range requests {
		text := r.body
		if s.Decode != nil {
			text = s.Decode(r.Request, r.body)
		}
		received[s.ExtractID(r.Request, r.body)] += string(text)
	}
	CheckUnmixed(t, received, n)
}

// secretsStayOut makes the provider quote the credentials where it explains an error.
func secretsStayOut(t *testing.T, s Suite) {
	t.Helper()
	const begin = "bad key"
	body := s.Fault(begin + " " + strings.Join(s.Secrets, " and ") + " of ann.smith@example.org")
	srv, p := start(t, s, s.Accept)
	told := false
	for _, status := range []int{400, 401, 403, 422, 429, 500, 503} {
		srv.answer(fixed(status, nil, body))
		_, err := s.send(t.Context(), t, p, PlainSend()) // looks for the secrets
		if err == nil {
			t.Fatalf("status %d was taken for an acceptance", status)
		}
		if strings.Contains(err.Error(), "ann.smith") {
			t.Errorf("status %d: error holds a whole address: %v", status, err)
		}
		told = told || strings.Contains(AsError(t, err).Detail, begin)
	}
	if !told {
		t.Errorf("no error tells what this body explains, so nothing was checked: Suite.Fault must have the form that the adapter reads: %s", body)
	}
}

// endlessAnswer offers far more than any cap and counts what was read. The sockets buffer no more than a few MB.
func endlessAnswer(t *testing.T, s Suite) {
	t.Helper()
	const offer, most = 128 << 20, 48 << 20
	var taken atomic.Int64
	chunk := []byte(strings.Repeat("x", 64<<10))
	for _, status := range []int{http.StatusOK, http.StatusBadRequest} {
		done := make(chan struct{})
		taken.Store(0)
		_, p := start(t, s, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			defer close(done)
			w.WriteHeader(status)
			for taken.Load() < offer {
				n, err := w.Write(chunk)
				taken.Add(int64(n))
				if err != nil {
					return
				}
			}
		}))
		_, _ = s.send(t.Context(), t, p, PlainSend())
		<-done
		if n := taken.Load(); n > most {
			t.Errorf("status %d: %d bytes of the answer were taken, want a cap", status, n)
		}
	}
}
