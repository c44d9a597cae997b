package cli

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
)

const someID = "01939f3e-7a2c-7cc1-8f2e-3b1a5c9d0e4f"

func accepted() answer {
	return answer{202, nil, `{"id":"` + someID + `","status":"queued","recipients":[{"email":"ann@example.org","status":"queued"}]}`}
}

func TestSendBuildsTheMessageFromFlags(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{"POST /v1/send": accepted()})
	w.file("body.html", "<p>Hi</p>")
	w.file("a.txt", "attached")
	o := w.run("send", "--from", "Shop, Inc <shop@example.com>", "--to", "ann@example.org", "--to", "Bob <bob@example.org>", "--cc", "c@example.org",
		"--bcc", "d@example.org", "--reply-to", "help@example.com", "--subject", "a, b", "--text", "@@home", "--html", "@body.html", "--file", "a.txt",
		"--header", "X-Order: 42", "--tag", "x,y", "--meta", "k=v=w", "--stream", "bulk", "--account", "ses", "--on-ambiguous", "never",
		"--send-at", "2030-01-31T12:00:00Z", "--idempotency-key", "once")
	o.want(t, 0, someID, "")
	o.want(t, 0, "sendgate messages show "+someID, "")
	call := w.last("POST", "/v1/send")
	var got, want map[string]any
	mustJSON(t, call.body, &got)
	mustJSON(t, `{"from":{"email":"Shop, Inc <shop@example.com>"},"to":[{"email":"ann@example.org"},{"email":"bob@example.org","name":"Bob"}],
		"cc":[{"email":"c@example.org"}],"bcc":[{"email":"d@example.org"}],"reply_to":[{"email":"help@example.com"}],"subject":"a, b","text":"@home",
		"html":"<p>Hi</p>","headers":{"X-Order":"42"},"attachments":[{"filename":"a.txt","content_type":"text/plain; charset=utf-8","content":"YXR0YWNoZWQ="}],
		"tags":["x,y"],"metadata":{"k":"v=w"},"stream":"bulk","send_at":"2030-01-31T12:00:00Z","on_ambiguous":"never","account":"ses"}`, &want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("body (-want +got)\n%s", diff)
	}
	if call.auth != "Bearer sg_api" || call.header.Get("Idempotency-Key") != "once" {
		t.Errorf("authorization %q, idempotency key %q", call.auth, call.header.Get("Idempotency-Key"))
	}
}

func mustJSON(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

func TestSendTakesJSONFromStandardInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{"POST /v1/send": accepted()})
	w.stdin = `{"from":"shop@example.com","to":"ann@example.org","text":"Hi"}`
	o := w.run("send", "-", "--json")
	o.want(t, 0, `"id": "`+someID+`"`, "")
	if got := w.last("POST", "/v1/send").body; got != w.stdin {
		t.Errorf("body = %s, want standard input as it is", got)
	}
	w.run("send", "-", "--subject", "x").want(t, 2, "", "leave out the flags for the message")
	w.run("send", "body.json").want(t, 2, "", "unexpected argument")
	w.stdin = "{"
	w.run("send", "-").want(t, 2, "", "not JSON")
}

func TestSendWaitFollowsTheMessage(t *testing.T) {
	t.Parallel()
	message := func(status string) answer {
		return answer{200, nil, `{"id":"` + someID + `","status":"` + status + `","from":{"email":"a@example.com"}}`}
	}
	args := []string{"send", "--from", "a@example.com", "--to", "b@example.org", "--text", "x", "--wait", "--timeout"}
	for status, code := range map[string]int{"sent": 0, "delivered": 0, "bounced": 1, "failed": 1, "queued": 1, "unknown": 1} {
		w := newWorld(t, map[string]answer{"POST /v1/send": accepted(), "GET /v1/messages/" + someID: message(status)})
		says, timeout := "ended as "+status, "1m"
		switch {
		case code == 0:
			says = ""
		case open(status):
			says, timeout = "result is not known yet", "50ms"
		}
		w.run(append(slices.Clone(args), timeout)...).want(t, code, "", says)
	}
}

func TestShowExplainsEachAttempt(t *testing.T) {
	t.Parallel()
	m := api.Message{
		ID: someID, Status: "sent", Subject: "evil\x1b[2J\u202esubject", From: api.Address{Email: "shop@example.com", Name: "Shop"},
		Recipients: []api.Recipient{{Email: "ann@example.org", Kind: "to", Status: "sent", Detail: "queued as 4711"}},
		Attempts: []api.Attempt{
			{
				N: 1, Account: "sendgrid", Provider: "sendgrid", Class: "throttled", Status: 429, Code: "429", Error: "too many requests", VerdictSource: "response",
				Decision: json.RawMessage(`{"config":7,"rule":3,"pool":"bulk","chosen":"sendgrid","candidates":[{"account":"sendgrid","weight":70},` +
					`{"account":"ses","weight":30,"reason":"no slot before 12:00:01"},{"account":"smtp","weight":1}]}`),
			},
			{
				N: 2, Account: "ses", Provider: "ses", ProviderMessageID: "0100-x",
				Decision: json.RawMessage(`{"config":8,"pinned":true,"chosen":"ses","spilled":true,"candidates":[{"account":"ses","weight":0}]}`),
			},
		},
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, map[string]answer{"GET /v1/messages/" + someID: {200, nil, string(raw)}})
	o := w.run("messages", "show", someID)
	for _, line := range []string{
		"Shop <shop@example.com>", "ann@example.org  sent  queued as 4711", "throttled", "answer: 429 (429) too many requests",
		"why: rule 3, pool bulk, chose sendgrid (configuration 7)", "- sendgrid, weight 70: chosen", "- ses, weight 30: no slot before 12:00:01",
		"- smtp, weight 1: could have taken it", "in progress", "id 0100-x", "why: pinned by the message, chose ses, because the first choice had no free slot",
	} {
		o.want(t, 0, line, "")
	}
	if strings.ContainsAny(o.out, "\x1b\u202e") {
		t.Errorf("control characters reached the terminal: %q", o.out)
	}
	w.run("messages", "show", someID, "--json").want(t, 0, `"chosen": "ses"`, "")
	w.run("messages", "show", "other").want(t, 1, "", "Not found")
}

func TestListPassesItsFiltersOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{"GET /v1/messages": {200, nil, `{"data":[{"id":"` + someID + `","status":"failed","subject":"` +
		strings.Repeat("x", 80) + `","from":{"email":"a@example.com"},"recipients":[{"email":"b@example.org"},{"email":"c@example.org"}]}],"next_cursor":"NEXT"}`}})
	o := w.run("messages", "list", "--status", "failed", "--to", "b@example.org", "--from", "a@example.com", "--tag", "t", "--stream", "s", "--account", "ses",
		"--since", "2026-01-31T00:00:00Z", "--until", "2026-02-01T00:00:00Z", "--limit", "7", "--cursor", "CUR")
	o.want(t, 0, "b@example.org +1", "--cursor NEXT")
	want := "account=ses&cursor=CUR&from=a%40example.com&limit=7&since=2026-01-31T00%3A00%3A00Z&status=failed&stream=s&tag=t&to=b%40example.org&until=2026-02-01T00%3A00%3A00Z"
	if got := w.last("GET", "/v1/messages").query; got != want {
		t.Errorf("query = %s\nwant    %s", got, want)
	}
}

func TestCancelAndResendShowTheMessage(t *testing.T) {
	t.Parallel()
	body := answer{200, nil, `{"id":"` + someID + `","status":"cancelled","from":{"email":"a@example.com"}}`}
	w := newWorld(t, map[string]answer{
		"POST /v1/messages/" + someID + "/cancel": body,
		"POST /v1/messages/" + someID + "/resend": {409, nil, `{"title":"Not failed","status":409,"code":"not_failed","detail":"Only a message that failed can be sent again."}`},
	})
	w.run("messages", "cancel", someID).want(t, 0, "cancelled", "")
	w.run("messages", "resend", someID).want(t, 1, "", "Only a message that failed")
	w.run("messages", "resend", someID, "--force").want(t, 1, "", "Only a message that failed")
	if got := w.last("POST", "/v1/messages/"+someID+"/resend").query; got != "force=true" {
		t.Errorf("--force asks with the query %q", got)
	}
}

func TestShowTellsAttemptsAndEventsInTheOrderOfTime(t *testing.T) {
	t.Parallel()
	at := func(clock string) time.Time {
		parsed, err := time.Parse(time.RFC3339Nano, "2026-01-31T"+clock+"Z")
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	m := &api.Message{
		ID: someID, Status: "bounced",
		Attempts: []api.Attempt{
			{N: 1, Account: "ses", Class: "uncertain", StartedAt: at("12:00:00.2")}, {N: 2, Account: "sendgrid", Class: "accepted", StartedAt: at("12:05:00.9")},
		},
		Events: []api.Event{
			{Type: "bounced", At: at("12:05:03.9"), Source: "webhook"},
			{Type: "accepted", At: at("12:05:00"), Source: "webhook"},
			{Type: "delivered", At: at("12:05:03.1"), Source: "webhook"},
			{Type: "deferred", At: at("12:00:09"), Source: "lookup"},
		},
	}
	var out bytes.Buffer
	for _, moment := range timeline(m) {
		moment.show(&out)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		words := strings.Fields(line)
		got = append(got, words[0]+" "+words[1])
	}
	want := []string{"attempt 1", "event deferred", "attempt 2", "event accepted", "event delivered", "event bounced"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("timeline (-want +got)\n%s", diff)
	}
	if m.Events[0].Type != "bounced" {
		t.Error("the events of the message itself were sorted")
	}
}

func TestShowTellsWhyARecipientWasNotReached(t *testing.T) {
	t.Parallel()
	bounce := `{"class":"hard","reason":"invalid_address","code":"550","enhanced":"5.1.1","text":"no such user"}`
	w := newWorld(t, map[string]answer{"GET /v1/messages/" + someID: {200, nil, `{"id":"` + someID + `","status":"bounced","from":{"email":"a@example.com"},` +
		`"recipients":[{"email":"ann@example.org","kind":"to","status":"bounced","detail":"no such user","bounce":` + bounce + `},` +
		`{"email":"bob@example.org","kind":"cc","status":"suppressed","detail":"asked by phone"}],` +
		`"events":[{"id":"e","type":"bounced","at":"2026-01-31T12:00:05Z","recipient":"ann@example.org","account":"ses","source":"lookup","bounce":` + bounce + `}]}`}})
	o := w.run("messages", "show", someID)
	for _, line := range []string{
		"to ann@example.org bounced hard invalid_address 550 5.1.1: no such user", "cc bob@example.org suppressed asked by phone",
		"event bounced ann@example.org 2026-01-31 12:00:05Z by ses from lookup", "hard invalid_address 550 5.1.1: no such user",
	} {
		if !slices.Contains(fields(o.out), line) {
			t.Errorf("no line %q in\n%s", line, o.out)
		}
	}
}
