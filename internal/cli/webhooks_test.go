package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
)

const (
	endpoints    = "/v1/webhook-endpoints"
	endpointBody = `{"id":"` + someID + `","url":"https://shop.example.com/hook","types":["bounced","complained"],"streams":[],"disabled":false,"pending":12,` +
		`"last_success_at":"2026-01-31T12:00:00Z","created_at":"2026-01-30T12:00:00Z","updated_at":"2026-01-30T12:00:00Z"`
	failingEnd = `,"failing_since":"2026-01-31T13:00:00Z"`
	brokenEnd  = `,"disabled_reason":"410 Gone","failing_since":"2026-01-31T13:00:00Z"`
)

func TestWebhooksShowTheirState(t *testing.T) {
	t.Parallel()
	off := strings.Replace(endpointBody, `"disabled":false`, `"disabled":true`, 1)
	w := newWorld(t, map[string]answer{
		"GET " + endpoints:                {200, nil, `{"data":[` + endpointBody + `},` + endpointBody + failingEnd + `},` + off + brokenEnd + `}]}`},
		"GET " + endpoints + "/" + someID: {200, nil, off + brokenEnd + `}`},
	})
	line := func(state string) string {
		return someID + " https://shop.example.com/hook bounced,complained all " + state + " 12 2026-01-31 12:00:00Z"
	}
	want := []string{"ID URL TYPES STREAMS STATE WAITING LAST SUCCESS", line("active"), line("failing"), line("disabled")}
	if diff := cmp.Diff(want, fields(w.run("webhooks", "list").out)); diff != "" {
		t.Errorf("output (-want +got)\n%s", diff)
	}
	o := w.run("webhooks", "show", someID)
	o.want(t, 0, "410 Gone", "")
	o.want(t, 0, "sendgate webhooks set "+someID+" --enable", "")
	w.run("webhooks", "list", "--json").want(t, 0, `"disabled_reason": "410 Gone"`, "")
	w.run("webhooks", "show", "other").want(t, 1, "", "Not found")
}

func TestWebhooksAddPrintsTheSecretOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{"POST " + endpoints: {201, nil, endpointBody + `,"secret":"whsec_b25jZQ=="}`}})
	o := w.run("webhooks", "add", "https://shop.example.com/hook", "--type", "bounced,complained", "--stream", "bulk", "--description", "shop")
	o.want(t, 0, "whsec_b25jZQ==", "Keep the secret now: it is not shown again.")
	o.want(t, 0, "", "sendgate webhooks test "+someID)
	if n := strings.Count(o.out+o.err, "whsec_"); n != 1 {
		t.Errorf("the secret was printed %d times", n)
	}
	want := `{"url":"https://shop.example.com/hook","description":"shop","types":["bounced","complained"],"streams":["bulk"]}`
	if got := w.last("POST", endpoints).body; got != want {
		t.Errorf("POST %s\nwant %s", got, want)
	}
	w.run("webhooks", "add", "https://shop.example.com/hook").want(t, 0, "", "")
	if got := w.last("POST", endpoints).body; got != `{"url":"https://shop.example.com/hook"}` {
		t.Errorf("without flags: POST %s, want the url only", got)
	}
	var e api.WebhookEndpoint
	if o := w.run("webhooks", "add", "https://shop.example.com/hook", "--json"); o.err != "" {
		t.Errorf("--json: stderr %q, want nothing", o.err)
	} else if mustJSON(t, o.out, &e); e.Secret != "whsec_b25jZQ==" {
		t.Errorf("--json: %+v, want the secret", e)
	}
}

func TestWebhooksSetChangesOnlyWhatIsNamed(t *testing.T) {
	t.Parallel()
	path := endpoints + "/" + someID
	w := newWorld(t, map[string]answer{"PATCH " + path: {200, nil, endpointBody + `}`}, "DELETE " + path: {204, nil, ""}})
	for _, c := range []struct{ args, body string }{
		{"--url https://new.example", `{"url":"https://new.example"}`},
		{"--type opened --type clicked", `{"types":["opened","clicked"]}`},
		{"--type all --stream all", `{"types":[],"streams":[]}`},
		{"--enable", `{"disabled":false}`},
		{"--disable --description=", `{"description":"","disabled":true}`},
	} {
		w.run(append([]string{"webhooks", "set", someID}, strings.Fields(c.args)...)...).want(t, 0, "https://shop.example.com/hook", "")
		if got := w.last("PATCH", path).body; got != c.body {
			t.Errorf("%s: PATCH %s, want %s", c.args, got, c.body)
		}
	}
	w.run("webhooks", "set", someID).want(t, 2, "", "nothing to change")
	w.run("webhooks", "set", someID, "--enable", "--disable").want(t, 2, "", "--enable")
	w.run("webhooks", "remove", someID).want(t, 0, "removed", "")
}

func TestWebhooksRotateAndReplay(t *testing.T) {
	t.Parallel()
	path := endpoints + "/" + someID
	w := newWorld(t, map[string]answer{
		"POST " + path + "/rotate": {200, nil, endpointBody + `,"secret":"whsec_bmV3"}`}, "POST " + path + "/replay": {202, nil, `{"queued":42}`},
	})
	for flag, body := range map[string]string{"--overlap=24h": `{"overlap_seconds":86400}`, "--overlap=0s": `{"overlap_seconds":0}`} {
		w.run("webhooks", "rotate", someID, flag).want(t, 0, "whsec_bmV3", "Keep the secret now")
		if got := w.last("POST", path+"/rotate").body; got != body {
			t.Errorf("%s: POST %s, want %s", flag, got, body)
		}
	}
	w.run("webhooks", "rotate", someID, "--overlap", "169h").want(t, 2, "", "0s to 168h")
	w.run("webhooks", "rotate", someID, "--overlap=-1s").want(t, 2, "", "0s to 168h")
	w.run("webhooks", "replay", someID, "--since", "2026-01-31T12:00:00Z", "--until", "2026-01-31T14:00:00Z").want(t, 0, "42", "")
	if got, want := w.last("POST", path+"/replay").body, `{"since":"2026-01-31T12:00:00Z","until":"2026-01-31T14:00:00Z"}`; got != want {
		t.Errorf("POST %s, want %s", got, want)
	}
	w.run("webhooks", "replay", someID).want(t, 2, "", "--since")
}

func TestWebhooksTestFailsWhenTheEndpointDid(t *testing.T) {
	t.Parallel()
	for outcome, code := range map[string]int{"delivered": 0, "retry": 1, "failed": 1} {
		w := newWorld(t, map[string]answer{"POST " + endpoints + "/" + someID + "/test": {
			200, nil,
			`{"id":"d","event_id":"e","try":1,"at":"2026-01-31T12:00:00Z","took_ms":1234,"status":500,"outcome":"` + outcome + `","error":"500 Internal Server Error"}`,
		}})
		o := w.run("webhooks", "test", someID)
		o.want(t, code, "1.2s", "")
		o.want(t, code, outcome, "")
		w.run("webhooks", "test", someID, "--json").want(t, code, `"took_ms": 1234`, "")
	}
}

func TestWebhooksDeliveries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{"GET " + endpoints + "/" + someID + "/deliveries": {200, nil, `{"data":[` +
		`{"id":"1","event_id":"E2","try":2,"at":"2026-01-31T12:00:05Z","took_ms":80,"status":200,"outcome":"delivered"},` +
		`{"id":"2","event_id":"E2","try":1,"at":"2026-01-31T12:00:00Z","took_ms":5000,"outcome":"retry","error":"dial tcp: refused\u001b[2J"}],"next_cursor":"NEXT"}`}})
	o := w.run("webhooks", "deliveries", someID, "--limit", "2", "--cursor", "CUR")
	o.want(t, 0, "", "--cursor NEXT")
	want := []string{
		"AT EVENT TRY OUTCOME STATUS TOOK ERROR", "2026-01-31 12:00:05Z E2 2 delivered 200 80ms -",
		"2026-01-31 12:00:00Z E2 1 retry - 5s dial tcp: refused\ufffd[2J",
	}
	if diff := cmp.Diff(want, fields(o.out)); diff != "" {
		t.Errorf("output (-want +got)\n%s", diff)
	}
	if got := w.last("GET", endpoints+"/"+someID+"/deliveries").query; got != "cursor=CUR&limit=2" {
		t.Errorf("query = %s", got)
	}
	w.run("webhooks", "deliveries", someID, "--limit", "201").want(t, 2, "", "1 to 200")
}

func TestProvidersWebhooksTellsWhetherEventsArrive(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, body, says string }{
		{"new", `"events":0,"refused":0`, "no event has come yet"},
		{"new", `"events":0,"refused":0`, "sendgate providers webhooks ses-eu --url https://..."},
		{"works", `"events":7,"refused":1,"last_event_at":"2026-01-31T12:00:00Z","last_refused_at":"2026-01-31T11:00:00Z"`, "events arrive"},
		{
			"refused", `"events":7,"refused":1,"last_event_at":"2026-01-31T12:00:00Z","last_refused_at":"2026-01-31T13:00:00Z","last_refusal":"signature"`,
			"the last request was refused",
		},
		{"never right", `"events":0,"refused":3,"last_refused_at":"2026-01-31T13:00:00Z","last_refusal":"signature"`, "every request was refused"},
		{"silent", `"events":7,"refused":0,"last_event_at":"2026-01-31T12:00:00Z","last_sent_at":"2026-01-31T14:00:00Z","silent":true`, "no event has come for an hour"},
	} {
		w := newWorld(t, map[string]answer{"GET /admin/v1/accounts/ses-eu/webhooks": {200, nil, `{"account":"ses-eu","path":"/hooks/ses-eu",` + c.body + `}`}})
		w.run("providers", "webhooks", "ses-eu").want(t, 0, c.says, "")
		w.run("providers", "webhooks", "ses-eu", "--json").want(t, 0, `"path": "/hooks/ses-eu"`, "")
	}
}

func TestProvidersWebhooksRegisters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{"POST /admin/v1/accounts/ses-eu/webhooks": {
		200, nil,
		`{"url":"https://send.example.com/hooks/ses-eu","done":["event destination made"],"steps":["aws sns subscribe ..."]}`,
	}})
	o := w.run("providers", "webhooks", "ses-eu", "--url", "https://send.example.com")
	want := []string{"url https://send.example.com/hooks/ses-eu", "done event destination made", "to do aws sns subscribe ..."}
	if diff := cmp.Diff(want, fields(o.out)); diff != "" || o.code != 0 {
		t.Errorf("code %d, output (-want +got)\n%s", o.code, diff)
	}
	call := w.last("POST", "/admin/v1/accounts/ses-eu/webhooks")
	if call.body != `{"url":"https://send.example.com"}` || call.auth != "Bearer sg_admin" {
		t.Errorf("POST %s with %s", call.body, call.auth)
	}
}

func TestWebhookHeadersComeFromFilesAndTheEnvironment(t *testing.T) {
	t.Parallel()
	const body = `{"id":"e","url":"https://a.example.com/","types":[],"streams":[],"disabled":false,"pending":0,"header_names":["Authorization","X-Key"]}`
	w := newWorld(t, map[string]answer{"POST /v1/webhook-endpoints": {201, nil, body}, "PATCH /v1/webhook-endpoints/e": {200, nil, body}})
	w.file("password", "hunter2\n")
	w.file("key", "value\n")
	w.run("webhooks", "add", "https://a.example.com/", "--header", "X-Key=@key", "--basic-auth", "u=@password").want(t, 0, "Authorization,X-Key", "")
	if got, want := w.last("POST", "/v1/webhook-endpoints").body,
		`{"url":"https://a.example.com/","headers":{"X-Key":"value"},"basic_auth":{"username":"u","password":"hunter2"}}`; got != want {
		t.Errorf("POST %s\nwant %s", got, want)
	}
	w.run("webhooks", "set", "e", "--no-headers").want(t, 0, "", "")
	if got := w.last("PATCH", "/v1/webhook-endpoints/e").body; got != `{"headers":{}}` {
		t.Errorf("PATCH %s", got)
	}
	w.run("webhooks", "set", "e", "--header", "X-Key=value").want(t, 2, "", "visible to every user")
	w.run("webhooks", "set", "e", "--header", "=@key").want(t, 2, "", "--header wants a name")
}
