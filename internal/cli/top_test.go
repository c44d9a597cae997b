package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
)

var topNow = time.Date(2026, 1, 31, 12, 0, 30, 0, time.UTC)

// topExample are two replicas with an account that is healthy, one whose breaker is open at one of them, and one that is paused.
func topExample() *topLook {
	due, blocked := topNow.Add(-5*time.Second), topNow.Add(10*time.Second)
	second, day := api.Limit{N: 14, Per: "1s", Unit: "requests"}, api.Limit{N: 50000, Per: "24h", Unit: "recipients"}
	q := &api.Queue{
		Ready: 100_000, Scheduled: 3, Inflight: 4, Unknown: 1, Webhooks: 7, OldestDue: &due, AtLeast: []string{"ready"},
		Replicas: []api.Replica{
			{AcceptedPerSecond: 10.25, Accounts: []api.ReplicaAccount{{Account: "ses-eu", SentPerSecond: 9, Breaker: "closed"}, {Account: "mailgun", Breaker: "half-open"}}},
			{AcceptedPerSecond: 2, Accounts: []api.ReplicaAccount{{Account: "ses-eu", SentPerSecond: 3.5, Breaker: "closed"}, {Account: "mailgun", SentPerSecond: 1, Breaker: "open"}}},
		},
	}
	accounts := []api.Account{
		{Name: "ses-eu", Kind: "ses", State: "active", Limits: []api.Limit{second, day}, Parked: []api.Park{{SenderDomain: "example.com"}}},
		{Name: "mailgun", Kind: "mailgun", State: "active"},
		{Name: "relay", Kind: "smtp", State: "paused"},
	}
	return newLook(q, accounts, []api.WindowState{{Account: "ses-eu", Limit: second, Used: 7, BlockedUntil: &blocked}}, topNow)
}

func TestTopAddsUpTheReplicas(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := topExample().write(&out, 0); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"2026-01-31 12:00:30Z replicas 2 accepted 12.2/s sent 13.5/s ready 100000+ oldest due for 5s scheduled 3 in flight 4 unknown 1 webhooks waiting 7",
		"",
		"ACCOUNT STATE SENT USED LIMIT BREAKER BLOCKED UNTIL KIND",
		"ses-eu active, a sender parked 12.5/s 50% 14 requests per 1s closed 12:00:40Z ses",
		"0% 50000 recipients per 24h -",
		"mailgun active 1.0/s - none open 2/2 - mailgun",
		"relay paused 0/s - none closed - smtp",
	}
	if diff := cmp.Diff(want, fields(out.String())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTopNeverWrapsOnANarrowTerminal(t *testing.T) {
	t.Parallel()
	look := topExample()
	for _, width := range []int{40, 30, 10} {
		screen := draw(look, errors.New("dial tcp 127.0.0.1:8025: connect: connection refused"), topNow, width, 0)
		for line := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(screen, toTop), clearRest), "\r\n") {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, clearLine)); n > width {
				t.Errorf("width %d: %d characters: %q", width, n, line)
			}
		}
	}
	wide, narrow := draw(look, nil, topNow, 200, 0), draw(look, nil, topNow, 40, 0)
	for _, part := range []string{"SENT", "KIND", "14 requests per 1s"} {
		if !strings.Contains(wide, part) {
			t.Errorf("a wide screen lacks %s", part)
		}
	}
	if !strings.Contains(narrow, "12.5/s") || strings.Contains(narrow, "KIND") {
		t.Errorf("40 columns: want the rates and not all columns\n%s", narrow)
	}
	low := draw(look, nil, topNow, 200, 4)
	if strings.Count(low, "\r\n") != 3 || !strings.Contains(low, "(4 more lines)") {
		t.Errorf("four lines:\n%q", low)
	}
	if away := draw(nil, errors.New("refused"), topNow, 80, 24); !strings.Contains(away, "no answer, asking again: refused") {
		t.Errorf("no server from the start: %q", away)
	}
}

func TestTopOnceAndBlocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/queue":    {200, nil, `{"ready":3,"replicas":[{"id":"r","accepted_per_second":1.5,"accounts":[{"account":"ses-eu","sent_per_second":2,"breaker":"closed"}]}]}`},
		"GET /admin/v1/accounts": {200, nil, `{"data":[` + accountJSON + `]}`}, "GET /admin/v1/limits": {200, nil, `{"data":[]}`},
	})
	w.run("top", "--once").want(t, 0, "ready 3", "")
	o := w.run("top", "--once", "--json")
	var look topLook
	mustJSON(t, o.out, &look)
	if look.Accepted != 1.5 || look.Sent != 2 || len(look.Accounts) != 1 || look.Accounts[0].State != "parked" || strings.Count(o.out, "\n") != 1 {
		t.Errorf("look = %+v\n%s", look, o.out)
	}
	w.run("top", "--interval", "1ms").want(t, 2, "", "500ms to 1h")
	newWorld(t, nil).run("top", "--once").want(t, 1, "", "Not found")
}

// A server that goes away is asked again, and one that refuses the key is not.
func TestTopGoesOnAfterAnOutage(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/admin/v1/queue":
			answer{200, nil, `{"data":[]}`}.write(rw)
		case asked.Add(1) == 2:
			answer{503, nil, `{"title":"Database","status":503,"code":"database"}`}.write(rw)
		case asked.Load() == 4:
			cancel()
		default:
			answer{200, nil, `{"ready":` + string('0'+asked.Load()) + `}`}.write(rw)
		}
	}))
	defer srv.Close()
	w := &world{t: t, dir: t.TempDir(), env: []string{"SENDGATE_URL=" + srv.URL, "SENDGATE_ADMIN_KEY=sg_admin"}}
	o := w.runIn(ctx, "top", "--json", "--interval", "500ms")
	var ready []int64
	for line := range strings.Lines(o.out) {
		var look topLook
		if err := json.Unmarshal([]byte(line), &look); err != nil {
			t.Fatal(err)
		}
		ready = append(ready, look.Ready)
	}
	if diff := cmp.Diff([]int64{1, 3}, ready); diff != "" {
		t.Errorf("looks (-want +got)\n%s\n%s", diff, o.err)
	}
	o.want(t, 0, "", `"code":"database"`)
	refused := newWorld(t, map[string]answer{"GET /admin/v1/queue": {401, nil, `{"title":"Unauthorized","status":401,"code":"unauthorized"}`}})
	refused.run("top").want(t, 1, "", "Unauthorized")
}
