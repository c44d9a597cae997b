//go:build drill

package app

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// sample is one message of the test.
type sample struct{ account, outcome, manner, id string }

func (s sample) email() string { return s.outcome + "+" + s.manner + "-" + s.account + "@example.org" }

// samples has every outcome at every account in the plain manner, and a quarter of them in each of the other manners: each
// account and each outcome in each way.
func samples() []sample {
	// The word is in the addresses, where the faults find it. "Early" events come before the answer to the call, which is slow.
	manners := []string{"plain", "twice", "newid", "shuffle", "late", "early"}
	var all []sample
	for a, account := range accountNames() {
		for o, outcome := range outcomes() {
			for m, manner := range manners {
				if manner == "plain" || (a+o+m)%4 == 0 {
					all = append(all, sample{account: account, outcome: outcome, manner: manner})
				}
			}
		}
	}
	return all
}

// Each event of a provider, in whatever manner it came, shows once in the message, the list, the stream, the webhooks and the
// statistics.
func TestEventsComeBackOnceWhateverTheWay(t *testing.T) {
	t.Parallel()
	b, settings := newCircle(t)
	told, urls, allow := newEndpoints(t)
	r := b.start(t, append(settings, allow)...)
	told.register(t, r, urls)
	b.faults(t, everyAccount([]emulator.Fault{
		{Mode: "hook_duplicate", Match: "*+twice*"},
		{Mode: "hook_duplicate", Match: "*+newid*"},
		{Mode: "hook_new_id", Match: "*+newid*"},
		{Mode: "hook_shuffle", Match: "*+shuffle*"},
		{Mode: "hook_delay", Match: "*+late*", Latency: emulator.Duration(400 * time.Millisecond)},
		{Mode: "slow", Match: "*+early*", Latency: emulator.Duration(600 * time.Millisecond)},
	}))
	heard := listen(t, b, r, 37)
	all := samples()
	requests := make([]api.SendRequest, len(all))
	want := b.told()
	for i, s := range all {
		requests[i] = letterTo(s.account, s.email())
		copies := 1
		if s.manner == "twice" || s.manner == "newid" {
			copies = 2
		}
		want[s.account] += int64(copies * tellings(t, s.account, s.outcome))
	}
	for i, id := range submit(t, r.api, requests) {
		all[i].id = id
	}
	b.awaitTold(t, want)
	b.settle(t, settleTime)
	for _, s := range all {
		checkEnd(t, message(t, r.api, s.id), s)
	}
	events := allEvents(t, r.api)
	checkStreamed(t, heard, events)
	told.check(t, b, events)
	checkStats(t, r.api, all)
}

// toldBeforeAnswer reports whether an event of a message came before the answer to its call was recorded, as it may on a busy
// machine.
func toldBeforeAnswer(m *api.Message) bool {
	last := m.Attempts[len(m.Attempts)-1]
	if last.TookMS == nil {
		return false
	}
	answered := last.StartedAt.Add(time.Duration(*last.TookMS+1) * time.Millisecond)
	return slices.ContainsFunc(m.Events, func(e api.Event) bool { return e.Source == "webhook" && e.At.Before(answered) })
}

// checkEnd fails the test if a message does not have the expected end.
func checkEnd(t *testing.T, m *api.Message, s sample) {
	t.Helper()
	got := end{Status: m.Status}
	if m.Recipients[0].Status != m.Status {
		t.Errorf("%s: recipient %s, message %s", s.email(), m.Recipients[0].Status, m.Status)
	}
	if x := m.Recipients[0].Bounce; x != nil {
		got.Class, got.Reason = x.Class, x.Reason
	}
	want := endOf(t, s.account, s.outcome)
	early := s.manner == "early" || toldBeforeAnswer(m)
	if early {
		want.Events = slices.DeleteFunc(want.Events, func(e string) bool { return e == "accepted response" })
	}
	for _, e := range m.Events {
		if e.Type == "" || early && e.Type+" "+e.Source == "accepted response" {
			continue // it is not reported if a weightier event came before
		}
		got.Events = append(got.Events, e.Type+" "+e.Source)
		if e.Recipient != s.email() || e.Account != s.account || e.MessageID != m.ID {
			t.Errorf("%s: event %s is of %s by %s", s.email(), e.Type, e.Recipient, e.Account)
		}
		if x := m.Recipients[0].Bounce; e.Type == "rejected" && x == nil { // known from our own call, and only from its event
			got.Class, got.Reason = e.Bounce.Class, e.Bounce.Reason
		}
	}
	if !slices.IsSortedFunc(m.Events, func(a, b api.Event) int { return a.At.Compare(b.At) }) {
		t.Errorf("%s: the timeline is not in order of time", s.email())
	}
	if slices.Contains(want.Events, "accepted response") { // whose time is that of our own record
		slices.Sort(got.Events)
		slices.Sort(want.Events)
	}
	if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s by %s (-want +got):\n%s", s.email(), s.account, diff)
	}
}

// allEvents reads every page of GET /v1/events.
func allEvents(t *testing.T, c *api.Client) []api.Event {
	t.Helper()
	var all []api.Event
	q := api.EventQuery{Limit: 100}
	for {
		page, err := c.Events(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Data...)
		if page.NextCursor == "" {
			return all
		}
		q.Cursor = page.NextCursor
	}
}

// audience reads the stream of events. It disconnects at times and continues from the last id.
type audience struct {
	mu     sync.Mutex
	events []api.Event
	parts  int
}

var errEnough = errors.New("enough for this connection")

// listen takes as many events per connection as given, until the test ends.
func listen(t *testing.T, b *bench, r *replica, each int) *audience {
	t.Helper()
	l := &audience{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	last := position(t, b, r)
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			n := 0
			err := r.api.StreamEvents(ctx, api.EventQuery{}, last, func(id string, e api.Event) error {
				l.mu.Lock()
				l.events = append(l.events, e)
				l.mu.Unlock()
				last = id
				if n++; n == each {
					return errEnough
				}
				return nil
			})
			var ended *api.StreamEnd
			switch {
			case errors.As(err, &ended): // a busy database: the client comes again
				last = ended.LastID
			case ctx.Err() == nil && !errors.Is(err, errEnough):
				t.Errorf("the stream can't be read: %v", err)
				return
			}
			l.mu.Lock()
			l.parts++
			l.mu.Unlock()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

// position is the end of the stream as it is now; a stream sends it first.
func position(t *testing.T, b *bench, r *replica) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/v1/events/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+b.keys.api)
	resp, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			return id
		}
	}
	t.Fatalf("the stream has no position: status %d, %v", resp.StatusCode, lines.Err())
	return ""
}

func (l *audience) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

// checkStreamed compares the stream with the list: the same events, each once.
func checkStreamed(t *testing.T, l *audience, listed []api.Event) {
	t.Helper()
	eventually(t, settleTime, "the stream tells as much as the list", func() bool { return l.count() >= len(listed) })
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.parts < 3 {
		t.Errorf("connections of the stream = %d: it was never resumed", l.parts)
	}
	byID := func(a, b api.Event) int { return cmp.Compare(a.ID, b.ID) }
	streamed := slices.SortedFunc(slices.Values(l.events), byID)
	listed = slices.SortedFunc(slices.Values(listed), byID)
	if diff := gocmp.Diff(listed, streamed); diff != "" {
		t.Errorf("the stream is not the list (-list +stream):\n%s", diff)
	}
}

// checkStats counts the samples as the statistics must.
func checkStats(t *testing.T, c *api.Client, all []sample) {
	t.Helper()
	want := map[string]*api.Stat{}
	for _, s := range all {
		w := want[s.account]
		if w == nil {
			w = &api.Stat{Key: s.account, Bounced: map[string]int64{"hard": 0, "soft": 0, "policy": 0}}
			want[s.account] = w
		}
		w.Recipients++
		e := endOf(t, s.account, s.outcome)
		for counter, holds := range map[*int64]bool{
			&w.Sent:       slices.ContainsFunc(e.Events, func(e string) bool { return e != "rejected response" }),
			&w.Delivered:  e.Status == "delivered" || e.Status == "complained",
			&w.Deferred:   e.Status == "deferred",
			&w.Complained: e.Status == "complained",
			&w.Suppressed: e.Status == "suppressed",
			&w.Failed:     e.Status == "failed",
			&w.Opened:     slices.Contains(e.Events, "opened webhook"),
			&w.Clicked:    slices.Contains(e.Events, "clicked webhook"),
		} {
			if holds {
				*counter++
			}
		}
		if e.Status == "bounced" {
			w.Bounced[e.Class]++
		}
	}
	got, err := c.Stats(t.Context(), api.StatsQuery{By: "account"})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range got.Data {
		if q := line.AcceptToSentMS; q.P50 <= 0 || q.P95 < q.P50 {
			t.Errorf("%s: accept to sent = %+v", line.Key, q)
		}
		line.AcceptToSentMS, line.AcceptToDeliveredMS = api.Quantiles{}, api.Quantiles{}
		if diff := gocmp.Diff(want[line.Key], &line); diff != "" {
			t.Errorf("statistics of %s (-want +got):\n%s", line.Key, diff)
		}
	}
	if len(got.Data) != len(want) {
		t.Errorf("statistics tell of %d accounts, want %d", len(got.Data), len(want))
	}
}
