package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
)

const bouncedJSON = `{"id":"01939f3e-9c11-7d8a-b0c4-52f1c6a7e901","type":"bounced","provider_type":"Bounce/HardBounce","at":"2026-01-31T12:00:05Z",` +
	`"received_at":"2026-01-31T12:00:09Z","message_id":"` + someID + `","recipient":"ann@example.org","account":"postmark","source":"webhook",` +
	`"bounce":{"class":"hard","reason":"invalid_address","code":"550","enhanced":"5.1.1","text":"no such user"}}`

func TestEventsListPassesItsFiltersOnAndTellsWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{"GET /v1/events": {200, nil, `{"data":[` + bouncedJSON +
		`,{"id":"x","type":"clicked","at":"2026-01-31T12:00:04Z","recipient":"bob@example.org","url":"https://e.example/\u001b[2J","machine":true,"source":"webhook"}` +
		`,{"id":"y","type":"","provider_type":"group_resubscribe","at":"2026-01-31T12:00:03Z","source":"webhook"}],"next_cursor":"NEXT"}`}})
	o := w.run("events", "list", "--type", "bounced,clicked", "--type", "opened", "--message", someID, "--recipient", "ann@example.org", "--account", "postmark",
		"--stream", "bulk", "--since", "2026-01-31T00:00:00Z", "--until", "2026-02-01T00:00:00Z", "--limit", "7", "--cursor", "CUR")
	o.want(t, 0, "", "--cursor NEXT")
	want := []string{
		"AT TYPE RECIPIENT ACCOUNT MESSAGE WHY",
		"2026-01-31 12:00:05Z bounced ann@example.org postmark " + someID + " hard invalid_address 550 5.1.1: no such user",
		"2026-01-31 12:00:04Z clicked bob@example.org - - https://e.example/\ufffd[2J (by a machine)",
		"2026-01-31 12:00:03Z unmapped - - - group_resubscribe",
	}
	if diff := cmp.Diff(want, fields(o.out)); diff != "" {
		t.Errorf("output (-want +got)\n%s", diff)
	}
	query := w.last("GET", "/v1/events").query
	for _, part := range []string{
		"type=bounced", "type=clicked", "type=opened", "message_id=" + someID, "recipient=ann%40example.org", "account=postmark", "stream=bulk",
		"since=2026-01-31T00%3A00%3A00Z", "until=2026-02-01T00%3A00%3A00Z", "limit=7", "cursor=CUR",
	} {
		if !strings.Contains("&"+query+"&", "&"+part+"&") {
			t.Errorf("query %s lacks %s", query, part)
		}
	}
	w.run("events", "list", "--json").want(t, 0, `"class": "hard"`, "")
	w.run("events", "list", "--limit", "0").want(t, 2, "", "1 to 200")
}

// sse serves each connection's events and ends it; later connections are refused with status after.
func sse(t *testing.T, after int, connections ...[]string) (url string, last *atomic.Value) {
	t.Helper()
	var n atomic.Int32
	last = &atomic.Value{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := int(n.Add(1)) - 1
		last.Store(fmt.Sprintf("%s%s %s", last.Load(), r.Header.Get("Last-Event-ID"), r.URL.RawQuery))
		if i >= len(connections) {
			answer{after, nil, `{"title":"Revoked","status":401,"code":"unauthorized"}`}.write(w)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(200)
		_, _ = fmt.Fprintf(w, "id: start%d\n\n: beat\n\n", i)
		for _, id := range connections[i] {
			_, _ = fmt.Fprintf(w, "id: %s\nevent: bounced\ndata: %s\n\n", id, bouncedJSON)
		}
	}))
	t.Cleanup(srv.Close)
	last.Store("")
	return srv.URL, last
}

func TestEventsTailGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	url, asked := sse(t, 401, nil, []string{"P1", "P2"})
	w := &world{t: t, env: []string{"SENDGATE_URL=" + url, "SENDGATE_API_KEY=sg_api"}}
	o := w.run("events", "tail", "--type", "bounced")
	line := "2026-01-31 12:00:05Z  bounced       ann@example.org                 postmark      hard invalid_address 550 5.1.1: no such user\n"
	if o.out != strings.Repeat(line, 2) {
		t.Errorf("output:\n%s\nwant twice\n%s", o.out, line)
	}
	o.want(t, 1, "", "the server ended the stream; connecting again in 1s")
	o.want(t, 1, "", "SENDGATE_API_KEY")
	o.want(t, 1, "", "--after P2")
	if got, want := asked.Load(), " type=bouncedstart0 type=bouncedP2 type=bounced"; got != want {
		t.Errorf("asked for %q, want %q", got, want)
	}
}

func TestEventsTailPrintsJSONLines(t *testing.T) {
	t.Parallel()
	url, asked := sse(t, 401, []string{"P1", "P2"})
	w := &world{t: t, env: []string{"SENDGATE_URL=" + url, "SENDGATE_API_KEY=sg_api"}}
	lines := strings.Split(strings.TrimSpace(w.run("events", "tail", "--json", "--after", "P0").out), "\n")
	if got := asked.Load(); got != "P0 P2 " {
		t.Errorf("asked for %q, want what comes after P0, then after P2", got)
	}
	if len(lines) != 2 {
		t.Fatalf("%d lines, want 2: %q", len(lines), lines)
	}
	for _, line := range lines {
		var got, want api.Event
		mustJSON(t, line, &got)
		mustJSON(t, bouncedJSON, &want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("line (-want +got)\n%s", diff)
		}
	}
}

// TestTailWaitsLongerEachTime runs in a bubble, where the clock is exact.
func TestTailWaitsLongerEachTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var waits []time.Duration
		last := began
		busy := &api.Problem{Status: 503, Code: "draining", RetryAfter: 45 * time.Second}
		end := &api.StreamEnd{LastID: "P", Err: io.EOF}
		ends := []error{errors.New("reset"), end, busy, end, end, end, end, end, end, end}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		calls := 0
		tl := &tail{note: io.Discard, gone: func() bool { return false }, print: func(api.Event) error { return nil }}
		tl.stream = func(_ context.Context, _ string, each func(string, api.Event) error) error {
			waits = append(waits, time.Since(last))
			if calls == 3 { // an event: the waits begin anew
				if err := each("P", api.Event{}); err != nil {
					t.Error(err)
				}
			}
			calls++
			last = time.Now()
			if calls > len(ends) {
				cancel()
				return ctx.Err()
			}
			return ends[calls-1]
		}
		if err := tl.run(ctx); err != nil {
			t.Errorf("run = %v, want nil after an interrupt", err)
		}
		s := time.Second
		want := []time.Duration{0, s, 2 * s, 45 * s, s, 2 * s, 4 * s, 8 * s, 16 * s, 30 * s, 30 * s}
		if diff := cmp.Diff(want, waits); diff != "" {
			t.Errorf("waits (-want +got)\n%s", diff)
		}
	})
}

func TestTailEndsWhenItsOutputDoes(t *testing.T) {
	t.Parallel()
	url, asked := sse(t, 401, []string{"P1", "P2"}, []string{"P3"})
	env := []string{"SENDGATE_URL=" + url, "SENDGATE_API_KEY=sg_api"}
	var errs bytes.Buffer
	code := Main(t.Context(), []string{"events", "tail"}, Streams{Out: &closedPipe{}, Err: &errs, Env: env})
	if code != 0 || errs.Len() > 0 {
		t.Errorf("reader went away: code %d, stderr %q; want 0, nothing", code, errs.String())
	}
	code = Main(t.Context(), []string{"events", "tail"}, Streams{Out: brokenWriter{}, Err: &errs, Env: env})
	if code != 1 || !strings.Contains(errs.String(), "disk full") {
		t.Errorf("disk full: code %d, stderr %q; want 1 and the cause", code, errs.String())
	}
	if got := asked.Load(); got != "  " {
		t.Errorf("asked for %q, want two connections without a position", got)
	}
}

const statsJSON = `{"by":"account","since":"2026-01-30T12:00:00Z","until":"2026-01-31T12:00:00Z","data":[{"key":"ses-eu","recipients":1000,"sent":990,` +
	`"delivered":950,"deferred":3,"bounced":{"hard":5,"policy":2,"soft":1},"complained":4,"suppressed":6,"failed":7,"failed_unknown":2,"unknown":8,"opened":300,"clicked":40,` +
	`"unsubscribed":9,"accept_to_sent_ms":{"p50":85,"p95":1249},"accept_to_delivered_ms":{"p50":2000,"p95":201400}},` +
	`{"key":"","recipients":2,"bounced":{},"accept_to_sent_ms":{},"accept_to_delivered_ms":{}}]}`

func TestEventsStatsIsATable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{"GET /v1/stats": {200, nil, statsJSON}})
	o := w.run("events", "stats", "--by", "account", "--since", "2026-01-30T12:00:00Z", "--limit", "9")
	want := []string{
		"ACCOUNT RECIPIENTS SENT DELIVERED DEFERRED BOUNCED COMPLAINED SUPPRESSED FAILED MAYBE SENT UNKNOWN OPENED CLICKED UNSUBSCRIBED TO SENT TO DELIVERED",
		"ses-eu 1000 990 950 3 5 hard, 1 soft, 2 policy 4 6 7 2 8 300 40 9 85ms / 1.2s 2s / 3m21s",
		"- 2 0 0 0 0 0 0 0 0 0 0 0 0 - -",
		"accepted from 2026-01-30 12:00:00Z to 2026-01-31 12:00:00Z",
	}
	if diff := cmp.Diff(want, fields(o.out)); diff != "" || o.code != 0 {
		t.Errorf("code %d, output (-want +got)\n%s", o.code, diff)
	}
	query := w.last("GET", "/v1/stats").query
	if query != "by=account&limit=9&since=2026-01-30T12%3A00%3A00Z" {
		t.Errorf("query = %s", query)
	}
	w.run("events", "stats", "--by", "weather").want(t, 2, "", "domain")
	w.run("events", "stats", "--limit", "201").want(t, 2, "", "1 to 200")
	w.run("events", "stats", "--json").want(t, 0, `"p95": 1249`, "")
}

// pages answers a POST by the cursor in its body.
func pages(t *testing.T, byCursor map[string]answer) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req api.ReprojectRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil || r.URL.Path != "/admin/v1/events/reproject" || !req.DryRun || req.Account != "mailgun" {
			t.Errorf("%s %+v, %v", r.URL.Path, req, err)
		}
		byCursor[req.Cursor].write(w)
	}))
	t.Cleanup(srv.Close)
	return srv
}

func TestReprojectGoesThroughAllPages(t *testing.T) {
	t.Parallel()
	srv := pages(t, map[string]answer{
		"":   {200, nil, `{"payloads":500,"events":510,"changed":3,"messages":2,"cursor":"C1"}`},
		"C1": {200, nil, `{"payloads":20,"events":21,"changed":1,"messages":1}`},
		"C9": {503, nil, `{"title":"Unavailable","status":503,"code":"database"}`},
		"C8": {200, nil, `{"payloads":20,"events":21,"changed":1,"messages":1,"cursor":"C9"}`},
	})
	w := &world{t: t, env: []string{"SENDGATE_URL=" + srv.URL, "SENDGATE_ADMIN_KEY=sg_admin"}}
	args := []string{"events", "reproject", "--account", "mailgun", "--dry-run"}
	o := w.run(args...)
	if diff := cmp.Diff([]string{"payloads 520", "events 531", "would change 4 events, 3 messages"}, fields(o.out)); diff != "" || o.code != 0 {
		t.Errorf("code %d, output (-want +got)\n%s", o.code, diff)
	}
	var sum api.ReprojectResult
	mustJSON(t, w.run(append(args, "--json")...).out, &sum)
	if diff := cmp.Diff(api.ReprojectResult{Payloads: 520, Events: 531, Changed: 4, Messages: 3}, sum); diff != "" {
		t.Errorf("sum (-want +got)\n%s", diff)
	}
	w.run(append(args, "--cursor", "C8")...).want(t, 1, "", "interrupted after 20 payloads; to continue: add --cursor C9")
}

func TestProgressTellsHowFarItIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := startProgress(&out, func(since time.Duration) string { return "after " + since.String() })
		time.Sleep(11 * time.Second)
		p.stop()
		if got, want := out.String(), "after 5s\nafter 5s\n"; got != want {
			t.Errorf("progress = %q, want %q", got, want)
		}
	})
}

func TestTailRemembersWhereAnInterruptLeftIt(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	tl := &tail{note: io.Discard, gone: func() bool { return false }, print: func(api.Event) error { return nil }}
	tl.stream = func(ctx context.Context, _ string, each func(string, api.Event) error) error {
		err := each("P9", api.Event{})
		cancel()
		return errors.Join(err, ctx.Err())
	}
	if err := tl.run(ctx); err != nil || tl.position != "P9" {
		t.Errorf("run = %v at %q, want nil at P9", err, tl.position)
	}
}
