package httpapi

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func TestStreamSendsWhatIsThereAfterAPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	e := r.store.happen(mail.Event{Type: mail.EventOpened}, mail.Event{Type: mail.EventBounced, Recipient: "ann@example.org", At: r.clock.now()},
		mail.Event{Type: mail.EventUnmapped, At: r.clock.now()}, mail.Event{Type: mail.EventOpened, Tenant: 2})
	a := r.do("GET", "/v1/events/stream", r.read, "", "Last-Event-ID", "1")
	r.want(a, 200, "")
	data := func(i int) string {
		raw, err := encode(eventView(&e[i]))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	want := "retry: 2000\nid: 4\n\n" + "id: 2\nevent: bounced\ndata: " + data(1) + "\nid: 3\nevent: unmapped\ndata: " + data(2) + "\n"
	if diff := cmp.Diff(want, string(a.body)); diff != "" {
		t.Errorf("stream (-want +got):\n%s", diff)
	}
	if got := string(r.do("GET", "/v1/events/stream", r.read, "").body); got != "retry: 2000\nid: 4\n\n" {
		t.Errorf("stream without a place = %q, want nothing but where it begins", got)
	}
	if got := string(r.do("GET", "/v1/events/stream?last_event_id=1&type=bounced", r.read, "").body); strings.Count(got, "event:") != 1 {
		t.Errorf("stream of one type = %q", got)
	}
	if got := string(r.do("GET", "/v1/events/stream?last_event_id=1", r.read, "", "Last-Event-ID", "3").body); strings.Contains(got, "event:") {
		t.Errorf("the header does not win: %q", got)
	}
	r.want(r.do("GET", "/v1/events/stream?last_event_id=77", r.read, ""), 400, "invalid_event_id")
	r.want(r.do("GET", "/v1/events/stream?since=2026-01-01T00:00:00Z", r.read, ""), 422, "invalid")
	if got := r.server.streams.takenNow(); got != 0 {
		t.Errorf("streams that count as open = %d, want none", got)
	}
}

// follower is the far end of a stream in a bubble of time.
type follower struct {
	http.ResponseWriter
	lines chan string
}

func (f *follower) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		f.lines <- strings.TrimSpace(line)
	}
	return len(b), nil
}

func (f *follower) FlushError() error { return nil }

// follow opens a stream in a bubble and gives its lines, and what ends it.
func (r *rig) follow(t *testing.T, key string, headers ...string) (lines <-chan string, hangUp func(), ended <-chan int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/v1/events/stream", http.NoBody)
	req.Header.Set("Authorization", "Bearer "+key)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	f := &follower{rec, make(chan string, 1000)}
	done := make(chan int, 1)
	go func() {
		r.server.Handler().ServeHTTP(f, req)
		done <- rec.Code
	}()
	synctest.Wait()
	return f.lines, cancel, done
}

func drain(lines <-chan string, prefix string) []string {
	var got []string
	for {
		select {
		case line := <-lines:
			if strings.HasPrefix(line, prefix) {
				got = append(got, line)
			}
		default:
			return got
		}
	}
}

func TestStreamFollows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.Now = time.Now })
		defer r.server.Close()
		lines, hangUp, ended := r.follow(t, r.read)
		drain(lines, "")
		r.store.happen(mail.Event{Type: mail.EventOpened}, mail.Event{Type: mail.EventClicked})
		time.Sleep(streamPoll + time.Millisecond)
		synctest.Wait()
		if diff := cmp.Diff([]string{"event: opened", "event: clicked"}, drain(lines, "event:")); diff != "" {
			t.Errorf("after one poll (-want +got):\n%s", diff)
		}
		before := r.store.count("EventsAfter")
		time.Sleep(2 * heartbeatEvery)
		synctest.Wait()
		polls, most := r.store.count("EventsAfter")-before, int(2*heartbeatEvery/streamPoll)+1
		if beats := drain(lines, ":"); len(beats) != 1 && len(beats) != 2 {
			t.Errorf("comments in %s = %d", 2*heartbeatEvery, len(beats))
		}
		if polls < most-4 || polls > most {
			t.Errorf("polls in %s = %d, want about %d", 2*heartbeatEvery, polls, most)
		}
		hangUp()
		if got := <-ended; got != 200 {
			t.Errorf("status = %d", got)
		}
	})
}

func TestStreamEndsWhenItMust(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*rig, *atomic.Bool){
		"drain": func(_ *rig, draining *atomic.Bool) { draining.Store(true) },
		"revoked key": func(r *rig, _ *atomic.Bool) {
			id, _, _ := ParseKey(r.read)
			_ = r.store.RevokeKey(context.Background(), "test", id)
		},
		"database": func(r *rig, _ *atomic.Bool) { r.store.failWith(&record.Unavailable{Reason: "database"}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var draining atomic.Bool
				r := newRig(t, func(o *Options) { o.Now, o.Draining = time.Now, draining.Load })
				defer r.server.Close()
				_, hangUp, ended := r.follow(t, r.read)
				defer hangUp()
				end(r, &draining)
				time.Sleep(2 * time.Second) // a change of a key binds within that
				synctest.Wait()
				select {
				case got := <-ended:
					if got != 200 {
						t.Errorf("status = %d, want a stream that ended", got)
					}
				default:
					t.Error("the stream goes on")
				}
			})
		})
	}
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.Now = time.Now })
		defer r.server.Close()
		var hangUps []func()
		var ends []<-chan int
		open := func(key string) {
			_, hangUp, ended := r.follow(t, key)
			hangUps, ends = append(hangUps, hangUp), append(ends, ended)
		}
		refused := func(key string, status int) {
			t.Helper()
			_, hangUp, ended := r.follow(t, key)
			hangUp()
			if got := <-ended; got != status {
				t.Errorf("one stream too many = %d, want %d", got, status)
			}
		}
		for range streamsPerTenant {
			open(r.read)
		}
		refused(r.read, 429)
		keyOf := func(tenant int) string {
			return r.store.addKey(func(k *record.Key) { k.Tenant = mail.TenantID(tenant) }, record.ScopeRead)
		}
		for tenant := range maxStreams/streamsPerTenant - 2 {
			key := keyOf(tenant + 10)
			for range streamsPerTenant {
				open(key)
			}
		}
		crowd := keyOf(98)
		for range streamsPerTenant / 2 { // it leaves as much to others as it has
			open(crowd)
		}
		refused(crowd, 503)
		open(keyOf(99))
		for i := range hangUps {
			hangUps[i]()
			<-ends[i]
		}
		if r.server.streams.taken != 0 || len(r.server.streams.held) != 0 {
			t.Errorf("left open: %+v", r.server.streams)
		}
	})
}

// The time limits of requests do not end a stream, and the client follows it: over a real connection.
func TestStreamOutlivesTheLimitsOfRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Now = time.Now })
	ts := httptest.NewUnstartedServer(nil)
	ts.Config = HTTPServer(r.server.Handler())
	ts.Config.ReadTimeout, ts.Config.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond
	ts.Start()
	t.Cleanup(ts.Close)
	c := api.NewWith(ts.URL, r.read, &http.Client{Timeout: 50 * time.Millisecond})
	var got []string
	errEnough := errors.New("enough")
	done := make(chan error, 1)
	go func() {
		done <- c.StreamEvents(t.Context(), api.EventQuery{Types: []string{"opened", "clicked"}}, "0", func(id string, e api.Event) error {
			if got = append(got, id+" "+e.Type); len(got) == 2 {
				return errEnough
			}
			return nil
		})
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C { // three polls take twenty times the limits
		if r.store.count("EventsAfter") >= 3 {
			break
		}
	}
	r.store.happen(mail.Event{Type: mail.EventOpened}, mail.Event{Type: mail.EventBounced}, mail.Event{Type: mail.EventClicked})
	if err := <-done; !errors.Is(err, errEnough) {
		t.Fatalf("stream ended with %v", err)
	}
	if diff := cmp.Diff([]string{"1 opened", "3 clicked"}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestClientTellsWhereABrokenStreamGoesOn(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		switch req.Header.Get("Last-Event-ID") {
		case "a":
			_, _ = io.WriteString(w, "id: b\n\n: beat\nid: c\n\nid: d\nevent: opened\ndata: {\"type\"") // cut off
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "c":
			_, _ = io.WriteString(w, "id: d\ndata: {\"type\":\"opened\"}\n\nid: e\n\n")
		case "e":
			_, _ = io.WriteString(w, "id: f\ndata: {\n\n")
		}
	}))
	ts.Listener = l
	ts.Start()
	t.Cleanup(ts.Close)
	c := api.NewWith(ts.URL, "key", &http.Client{})
	for _, tc := range []struct {
		from, want string
		events     int
		end        error
	}{{"a", "c", 0, io.ErrUnexpectedEOF}, {"c", "e", 1, io.EOF}, {"e", "e", 0, nil}} {
		events := 0
		err := c.StreamEvents(t.Context(), api.EventQuery{}, tc.from, func(string, api.Event) error { events++; return nil })
		var end *api.StreamEnd
		if !errors.As(err, &end) || end.LastID != tc.want || events != tc.events || tc.end != nil && !errors.Is(err, tc.end) {
			t.Errorf("from %s: %d events, then %v; want %d and the place %s", tc.from, events, err, tc.events, tc.want)
		}
	}
}
