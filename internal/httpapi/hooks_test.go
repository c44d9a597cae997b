package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
)

func withHooks(h *fakeHooks) func(*Options) { return func(o *Options) { o.Hooks = h } }

// hook posts to a receiver.
func (r *rig) hook(account, body, sign string, headers ...string) answer {
	r.t.Helper()
	return r.do("POST", "/hooks/"+account, "", body, append(headers, "Content-Type", "text/plain", "Sign", sign)...)
}

func TestHookAnswersAfterTheCommit(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHooks(inputHooks(7)))
	body := "delivered ann@example.org\nopened ann@example.org\nodd"
	r.want(r.hook("made-up", body, madeUp.sign(body), "Token", "once"), 200, "")
	if len(r.store.intakes) != 1 {
		t.Fatalf("intakes = %d, want 1", len(r.store.intakes))
	}
	in := r.store.intakes[0]
	if in.Account != 7 || in.Source != mail.FromWebhook || string(in.Payloads[0].Raw) != body || len(in.Payloads[0].Events) != 3 || in.Once == nil {
		t.Errorf("intake = %+v", in)
	}
	for result, want := range map[string]float64{"stored": 3, "unmapped": 1, "duplicate": 0} {
		if got := counted(t, r.server.metrics.HookEvents.WithLabelValues("made-up", result)); got != want {
			t.Errorf("events %s = %v, want %v", result, got, want)
		}
	}
	r.store.failWith(&record.Unavailable{Reason: "database", RetryAfter: time.Second})
	r.want(r.hook("made-up", body, madeUp.sign(body)), 503, "database")
	r.store.failWith(errors.New("a mistake of ours"))
	r.want(r.hook("made-up", body, madeUp.sign(body)), 500, "internal")
	for result, want := range map[string]float64{"stored": 1, "unavailable": 2, "refused": 0} {
		if got := counted(t, r.server.metrics.HookRequests.WithLabelValues("made-up", result)); got != want {
			t.Errorf("requests %s = %v, want %v", result, got, want)
		}
	}
}

func TestForgedHooksCostNoQueryAndFewLines(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := newRig(t, withHooks(inputHooks(7)), func(o *Options) {
		o.Log = slog.New(slog.NewJSONHandler(&log, nil))
	})
	forge := func(n int) {
		for range n {
			r.want(r.hook("made-up", "complained canary@example.org", "forged"), 401, "refused")
			r.want(r.hook("nobody", "complained canary@example.org", "forged"), 404, "not_found")
		}
	}
	forge(50)
	r.clock.move(59 * time.Second)
	forge(1)
	r.clock.move(time.Second)
	forge(1)
	if got := strings.Count(log.String(), `"hook refused"`); got != 2 {
		t.Errorf("lines about refusals = %d, want one and another after a minute", got)
	}
	if !strings.Contains(log.String(), `"refused_since_last_line":50`) || !strings.Contains(log.String(), `"reason":"signature"`) {
		t.Errorf("lines do not tell how many and why: %s", log.String())
	}
	for _, secret := range []string{"canary", "forged", errQuoting.Error()} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log quotes %q of a request that was not verified", secret)
		}
	}
	if len(r.store.calls) != 0 {
		t.Errorf("store was asked: %v", r.store.calls)
	}
	want := []record.HookTally{{Account: 7, Refused: 52, LastRefused: r.clock.now(), LastRefusal: "signature"}}
	if diff := cmp.Diff(want, r.server.Tallies()); diff != "" {
		t.Errorf("tallies (-want +got):\n%s", diff)
	}
	if got := r.server.Tallies(); len(got) != 0 {
		t.Errorf("second tallies = %v, want none", got)
	}
}

func TestTalliesCountEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHooks(inputHooks(7)))
	for _, body := range []string{"delivered a@example.org\nopened a@example.org", "clicked a@example.org"} {
		r.want(r.hook("made-up", body, madeUp.sign(body)), 200, "")
		r.clock.move(time.Second)
	}
	want := []record.HookTally{{Account: 7, Events: 3, LastEvent: r.clock.now().Add(-time.Second)}}
	if diff := cmp.Diff(want, r.server.Tallies()); diff != "" {
		t.Errorf("tallies (-want +got):\n%s", diff)
	}
}

func TestHookErrorsKeepTheStatusOfTheirProvider(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{401: 401, 403: 403, 406: 406, 413: 413, 503: 503, 0: 403, 200: 403, 999: 403} {
		p := &fakeParser{receive: func(*provider.Hook) (provider.Batch, error) {
			return provider.Batch{}, &provider.HookError{Status: status, Reason: "because"}
		}}
		r := newRig(t, withHooks(&fakeHooks{parsers: map[string]provider.EventParser{"a": p}}))
		a := r.hook("a", "x", "")
		r.want(a, want, "refused")
		if (a.header.Get("Retry-After") != "") != (want == 503) {
			t.Errorf("status %d: Retry-After = %q", status, a.header.Get("Retry-After"))
		}
	}
}

func TestNoteIsNoEvent(t *testing.T) {
	t.Parallel()
	p := &fakeParser{receive: func(*provider.Hook) (provider.Batch, error) {
		return provider.Batch{Note: "subscription confirmed"}, nil
	}}
	r := newRig(t, withHooks(&fakeHooks{parsers: map[string]provider.EventParser{"a": p}}))
	r.want(r.hook("a", "x", ""), 200, "")
	if r.store.count("ReceiveEvents") != 0 || len(r.server.Tallies()) != 0 {
		t.Error("a note was stored or counted as an event")
	}
}

// A receiver that is busy turns requests away when they waited for a while, and sends go on.
func TestHooksAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		p := &fakeParser{receive: func(*provider.Hook) (provider.Batch, error) {
			<-hold
			return provider.Batch{}, nil
		}}
		r := newRig(t, withHooks(&fakeHooks{parsers: map[string]provider.EventParser{"a": p}}))
		defer r.server.Close() // within the bubble
		var mu sync.Mutex
		statuses := map[int]int{}
		var all sync.WaitGroup
		for range hookReads + 10 {
			all.Go(func() {
				a := r.hook("a", "x", "")
				mu.Lock()
				defer mu.Unlock()
				statuses[a.status]++
			})
		}
		synctest.Wait()
		if len(statuses) > 0 {
			t.Errorf("answered at once: %v, want nobody", statuses)
		}
		r.want(r.do("POST", "/v1/send", r.send, sendJSON()), 202, "")
		time.Sleep(hookPatience + time.Millisecond)
		synctest.Wait()
		if statuses[503] != hookReads+10-hookWork/2 {
			t.Errorf("turned away after %s: %v, want all but %d", hookPatience, statuses, hookWork/2)
		}
		close(hold)
		r.want(r.hook("a", "x", ""), 200, "")
		all.Wait()
		if statuses[200] != hookWork/2 {
			t.Errorf("answers = %v, want %d times 200", statuses, hookWork/2)
		}
		if got := counted(t, r.server.metrics.HookRequests.WithLabelValues("a", "busy")); got != hookReads+10-hookWork/2 {
			t.Errorf("busy = %v", got)
		}
	})
}

// To some providers a 404 is final: nobody answers it for an account that another replica has just made.
func TestHookOfAnAccountThatWasMadeElsewhereIsTaken(t *testing.T) {
	t.Parallel()
	h := &fakeHooks{id: 7, parsers: map[string]provider.EventParser{}}
	h.current = func(context.Context) bool {
		h.set("made-up", madeUp)
		return true
	}
	var log bytes.Buffer
	r := newRig(t, withHooks(h), func(o *Options) { o.Log = slog.New(slog.NewJSONHandler(&log, nil)) })
	body := "delivered ann@example.org"
	r.want(r.hook("made-up", body, madeUp.sign(body)), 200, "")
	if len(r.store.intakes) != 1 || r.store.intakes[0].Account != 7 {
		t.Errorf("intakes = %+v, want one of account 7", r.store.intakes)
	}
	r.want(r.hook("nobody", body, madeUp.sign(body)), 404, "not_found")
	h.current = func(context.Context) bool { return false }
	r.want(r.hook("nobody", body, madeUp.sign(body)), 503, "unavailable")
	if strings.Contains(log.String(), "refused") {
		t.Errorf("strangers fill the log: %s", log.String())
	}
}

func TestHooksOfUnknownAccountsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, withHooks(&fakeHooks{
			parsers: map[string]provider.EventParser{"a": &fakeParser{receive: func(*provider.Hook) (provider.Batch, error) { return provider.Batch{}, nil }}},
			current: func(ctx context.Context) bool {
				<-ctx.Done()
				return false
			},
		}))
		defer r.server.Close() // within the bubble
		var mu sync.Mutex
		statuses := map[int]int{}
		var all sync.WaitGroup
		for range hookStrangers/2 + 10 {
			all.Go(func() {
				a := r.hook("b", "x", "")
				mu.Lock()
				defer mu.Unlock()
				statuses[a.status]++
			})
		}
		synctest.Wait()
		if statuses[503] != 10 {
			t.Errorf("turned away at once: %v, want 10", statuses)
		}
		r.want(r.hook("a", "x", ""), 200, "")
		all.Wait()
		if statuses[503] != hookStrangers/2+10 {
			t.Errorf("answers = %v, want 503 only: the accounts could not be read", statuses)
		}
	})
}

func TestHookBodyThatTricklesIsCutOff(t *testing.T) {
	t.Parallel()
	var err error
	done := make(chan struct{})
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		_, err = readCapped(w, r, 10, time.Millisecond)
	}))
	t.Cleanup(ts.Close)
	body, stuck := io.Pipe()
	defer stuck.Close()
	go func() { _, _ = stuck.Write([]byte("x")) }()
	req, reqErr := http.NewRequestWithContext(t.Context(), http.MethodPost, ts.URL, body)
	if reqErr != nil {
		t.Fatal(reqErr)
	}
	go func() {
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-done
	var e *refusal
	if !errors.As(err, &e) || e.status != http.StatusRequestTimeout {
		t.Errorf("error = %v, want 408", err)
	}
}
