package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/sendgate/sendgate/api"
)

// sink is a server that accepts sends as the real one does, and counts who was mailed.
type sink struct {
	t       *testing.T
	url     string
	refuse  func(n int64) int // status for the n-th message, 202 to accept
	queued  atomic.Int64      // what /admin/v1/queue still shows; each look takes a third away
	seen    atomic.Int64
	mu      sync.Mutex
	mailed  map[string]int
	ids     map[string]bool
	account string
}

func newSink(t *testing.T) *sink {
	t.Helper()
	s := &sink{t: t, mailed: map[string]int{}, ids: map[string]bool{}, refuse: func(int64) int { return 202 }}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/send", s.send)
	mux.HandleFunc("POST /v1/send/batch", s.batch)
	mux.HandleFunc("GET /admin/v1/queue", s.queue)
	mux.HandleFunc("GET /v1/messages", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("status") == "failed" && strings.HasPrefix(r.URL.Query().Get("tag"), "load-") {
			_ = json.NewEncoder(w).Encode(api.MessagePage{Data: make([]api.Message, 3)})
		}
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *sink) world(env ...string) *world {
	return &world{t: s.t, dir: s.t.TempDir(), env: append([]string{"SENDGATE_URL=" + s.url, "SENDGATE_API_KEY=k", "SENDGATE_ADMIN_KEY=a"}, env...)}
}

// take accepts one message and returns its status and, for a 202, its id.
func (s *sink) take(m api.SendRequest) (int, string) {
	if status := s.refuse(s.seen.Add(1)); status != 202 {
		return status, ""
	}
	id := uuid.Must(uuid.NewV7()).String()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mailed[m.To[0].Email]++
	s.ids[id] = true
	if m.Account != nil {
		s.account = *m.Account
	}
	if m.Text == "" || m.From.Email == "" || len(m.Tags) != 1 {
		s.t.Errorf("incomplete message %+v", m)
	}
	s.queued.Add(1)
	return 202, id
}

func (s *sink) send(w http.ResponseWriter, r *http.Request) {
	var m api.SendRequest
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil || r.Header.Get("Authorization") != "Bearer k" {
		http.Error(w, "bad", http.StatusBadRequest)
		return
	}
	status, id := s.take(m)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(api.SendResult{ID: id, Status: "queued", Recipients: []api.RecipientStatus{}})
}

func (s *sink) batch(w http.ResponseWriter, r *http.Request) {
	var b api.BatchRequest
	if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
		http.Error(w, "bad", http.StatusBadRequest)
		return
	}
	out := api.BatchResult{}
	for _, m := range b.Messages {
		status, id := s.take(m)
		if status != 202 {
			out.Results = append(out.Results, api.BatchItem{Error: &api.Problem{Status: status, Title: "No"}})
			continue
		}
		out.Results = append(out.Results, api.BatchItem{SendResult: &api.SendResult{ID: id, Status: "queued"}})
	}
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(out)
}

func (s *sink) queue(w http.ResponseWriter, _ *http.Request) {
	left := s.queued.Load() * 2 / 3
	s.queued.Store(left)
	_ = json.NewEncoder(w).Encode(api.Queue{Ready: left / 2, Inflight: left - left/2, Scheduled: 7})
}

func loadJSON(t *testing.T, o outcome) loadResult {
	t.Helper()
	var r loadResult
	if err := json.Unmarshal([]byte(o.out), &r); err != nil {
		t.Fatalf("load --json: %v\n%s%s", err, o.out, o.err)
	}
	return r
}

func TestLoadSendsEachMessageOnce(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
		n    int64
	}{
		{"single", []string{"--messages", "250", "--concurrency", "7"}, 250},
		{"batches with a rest", []string{"--messages", "253", "--concurrency", "3", "--batch", "50", "--account", "ses"}, 253},
		{"paced", []string{"--messages", "20", "--rate", "2000"}, 20},
		{"more connections than messages", []string{"--messages", "2", "--concurrency", "16"}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t)
			w := s.world()
			o := w.run(append([]string{"load", "--json", "--ids", "ids.txt"}, c.args...)...)
			r := loadJSON(t, o)
			if o.code != 0 || r.Accepted != c.n || r.Failed != 0 || len(s.mailed) != int(c.n) || r.LatencyMS.Max <= 0 || r.AcceptedPerSec <= 0 {
				t.Errorf("code %d, %+v, %d recipients; want %d accepted, each recipient once", o.code, r, len(s.mailed), c.n)
			}
			s.checkIDs(w.dir + "/ids.txt")
			if strings.Contains(c.name, "batches") && s.account != "ses" {
				t.Errorf("pinned account = %q, want ses", s.account)
			}
		})
	}
}

// checkIDs compares the id log with the ids that were given out.
func (s *sink) checkIDs(path string) {
	s.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	lines := strings.Fields(string(b))
	for _, id := range lines {
		if !s.ids[id] {
			s.t.Errorf("id log has %s, which was not given out, or twice", id)
		}
		delete(s.ids, id)
	}
	if len(s.ids) > 0 {
		s.t.Errorf("id log lacks %d of the accepted ids", len(s.ids))
	}
}

func TestLoadCountsRefusalsByStatus(t *testing.T) {
	t.Parallel()
	for _, batch := range []string{"1", "10"} {
		s := newSink(t)
		s.refuse = func(n int64) int {
			switch n % 10 {
			case 3:
				return 429
			case 4:
				return 503
			default:
				return 202
			}
		}
		o := s.world().run("load", "--json", "--messages", "100", "--batch", batch, "--concurrency", "1")
		r := loadJSON(t, o)
		if o.code != 1 || r.Accepted != 80 || r.Failed != 20 || r.Errors["429"] != 10 || r.Errors["503"] != 10 {
			t.Errorf("batch %s: code %d, %+v; want 80 accepted, 10 each of 429 and 503", batch, o.code, r)
		}
	}
}

func TestLoadSurvivesConnectionsThatClose(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	var calls atomic.Int64
	inner := http.HandlerFunc(s.send)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch calls.Add(1) {
		case 5: // without an answer
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		case 8: // after the answer
			w.Header().Set("Connection", "close")
			inner(w, r)
		default:
			inner(w, r)
		}
	}))
	defer srv.Close()
	s.url = srv.URL
	o := s.world().run("load", "--json", "--messages", "20", "--concurrency", "1")
	r := loadJSON(t, o)
	if r.Accepted != 19 || r.Errors["connection closed"] != 1 || len(s.mailed) != 19 {
		t.Errorf("%+v, %d recipients; want 19 accepted, one closed connection, nothing tried twice", r, len(s.mailed))
	}
}

func TestLoadInterruptedStillReports(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.refuse = func(n int64) int {
		if n == 10 {
			cancel()
		}
		return 202
	}
	var out, errs bytes.Buffer
	code := Main(ctx, []string{"load", "--json", "--duration", "1h", "--concurrency", "2"}, Streams{Out: &out, Err: &errs, Env: s.world().env})
	r := loadJSON(t, outcome{code, out.String(), errs.String()})
	if code != 1 || !r.Interrupted || r.Accepted != int64(len(s.mailed)) || r.Accepted < 10 || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("code %d, %+v, %d recipients, stderr %s; want what was accepted until then", code, r, len(s.mailed), errs.String())
	}
}

func TestLoadWaitsForTheQueue(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	o := s.world().run("load", "--json", "--messages", "30", "--wait")
	r := loadJSON(t, o)
	if o.code != 0 || r.Drain == nil || r.Drain.Sent != 30 || r.Drain.Left != 0 || r.Drain.FailedSeen != 3 || s.queued.Load() != 0 {
		t.Errorf("code %d, drain %+v, queue %d; want 30 sent, 3 failed, an empty queue", o.code, r.Drain, s.queued.Load())
	}
	o = s.world().run("load", "--messages", "5", "--wait")
	o.want(t, 0, "5 messages left the queue", "")
	o.want(t, 0, "3 failed, 0 unknown, 0 still waiting", "")
}

func TestLoadGivesUpWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/queue": {200, nil, `{"ready":4,"tenants":[],"replicas":[]}`},
		"POST /v1/send":       {202, nil, `{"id":"01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f","status":"queued","recipients":[]}`},
	})
	w.run("load", "--messages", "4", "--wait", "--wait-timeout", "10ms").want(t, 1, "0 messages left the queue", "4 messages were still in the queue")
}

func TestLoadAsksBeforeItMailsFromElsewhere(t *testing.T) {
	t.Parallel()
	for url, refused := range map[string]bool{
		"http://127.0.0.1:1": false, "http://[::1]:1": false, "http://localhost:1": false,
		"https://mail.example.com": true, "http://10.0.0.1:8025": true, "http://127.0.0.1.example.com": true,
	} {
		s := &Streams{Env: []string{"SENDGATE_URL=" + url, "SENDGATE_API_KEY=k", "SENDGATE_ALLOW_HTTP=true"}}
		tg, err := s.target()
		if err != nil {
			t.Fatal(err)
		}
		c := loadCmd{Batch: 1, Concurrency: 1}
		if _, err := c.plan(tg); (err != nil) != refused {
			t.Errorf("plan for %s: %v, want refused=%v", url, err, refused)
		}
		c.IMeanIt = true
		if _, err := c.plan(tg); err != nil {
			t.Errorf("plan for %s with --i-mean-it: %v", url, err)
		}
	}
}

func TestLoadKeepsFewBatchesUnderWay(t *testing.T) {
	t.Parallel()
	s := &Streams{Env: []string{"SENDGATE_URL=http://localhost:1", "SENDGATE_API_KEY=k"}}
	tg, err := s.target()
	if err != nil {
		t.Fatal(err)
	}
	for batch, want := range map[int]int{1: 64, 32: 64, 100: 20, 1000: 2} {
		c := loadCmd{Batch: batch}
		if _, err := c.plan(tg); err != nil || c.Concurrency != want {
			t.Errorf("batch %d: concurrency %d, %v; want %d", batch, c.Concurrency, err, want)
		}
	}
}

func TestLoadRefusesNonsense(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--batch", "0"}, {"--batch", "1001"}, {"--concurrency=-1"}, {"--rate=-1"}, {"--messages=-1"}, {"--messages", "1", "--duration", "1s"},
	} {
		newSink(t).world().run(append([]string{"load"}, args...)...).want(t, 2, "", "--")
	}
}

func TestLoadReportsAServerThatIsDown(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir(), env: []string{"SENDGATE_URL=http://" + nobody, "SENDGATE_API_KEY=k"}}
	o := w.run("load", "--json", "--messages", "3", "--concurrency", "1")
	if r := loadJSON(t, o); o.code != 1 || r.Failed != 3 || r.Errors["connection failed"] != 3 {
		t.Errorf("code %d, %+v; want 3 failed connections", o.code, r)
	}
}

func TestLoadRequestIsWellFormed(t *testing.T) {
	t.Parallel()
	s := &Streams{Env: []string{"SENDGATE_URL=http://localhost:1/base/", "SENDGATE_API_KEY=k"}}
	tg, err := s.target()
	if err != nil {
		t.Fatal(err)
	}
	p, err := (&loadCmd{Batch: 3, Concurrency: 1, Size: 1000, ToDomain: "example.org", From: "a@example.com"}).plan(tg)
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.request(3)
	if err != nil {
		t.Fatal(err)
	}
	r.number(999_999_999_998)
	head, body, _ := strings.Cut(string(r.bytes), "\r\n\r\n")
	if !strings.HasPrefix(head, "POST /base/v1/send/batch HTTP/1.1\r\nHost: localhost:1\r\n") ||
		!strings.Contains(head, fmt.Sprintf("Content-Length: %d", len(body))) {
		t.Errorf("head:\n%s", head)
	}
	var b api.BatchRequest
	if err := json.Unmarshal([]byte(body), &b); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"load-999999999998@example.org", "load-999999999999@example.org", "load-000000000000@example.org"} {
		if got := b.Messages[i].To[0].Email; got != want || len(b.Messages[i].Text) != 1000 {
			t.Errorf("message %d: to %s with %d bytes, want %s with 1000", i, got, len(b.Messages[i].Text), want)
		}
	}
}

func BenchmarkLoadCall(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"id":"01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f","status":"queued","recipients":[]}`)
	}))
	defer srv.Close()
	s := &Streams{Env: []string{"SENDGATE_URL=" + srv.URL, "SENDGATE_API_KEY=k"}}
	tg, err := s.target()
	if err != nil {
		b.Fatal(err)
	}
	p, err := (&loadCmd{Batch: 1, Concurrency: 1, Size: 5120, ToDomain: "example.org", From: "a@example.com"}).plan(tg)
	if err != nil {
		b.Fatal(err)
	}
	r, err := p.request(1)
	if err != nil {
		b.Fatal(err)
	}
	c := &loadConn{server: p.server, timeout: p.cmd.Timeout + 1e9}
	defer c.close()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.number(int64(i))
		if status, _, err := c.call(b.Context(), r.bytes); status != 202 || err != nil {
			b.Fatal(status, err)
		}
	}
}
