package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/forward"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func ptr[T any](v T) *T { return &v }

func TestEndpointComesAndGoes(t *testing.T) {
	t.Parallel()
	f, r := withEndpoints(t)
	writer, reader := r.client(r.write), r.client(r.read)
	made, err := writer.CreateWebhookEndpoint(t.Context(), api.WebhookEndpointRequest{
		URL: ptr("https://hooks.example.com/in"), Description: ptr("the shop"),
		Types: ptr([]string{"bounced", "complained", "bounced"}), Streams: ptr([]string{"news", "bulk", "news"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	secret := made.Secret
	if made.Secret = ""; secret != f.secrets[f.all[0].ID][0].Reveal() {
		t.Errorf("the secret %q is not the one that was stored", secret)
	}
	want := &api.WebhookEndpoint{
		ID: f.all[0].ID.String(), URL: "https://hooks.example.com/in", Description: "the shop", Types: []string{"bounced", "complained"},
		Streams: []string{"bulk", "news"}, CreatedAt: r.clock.now(), UpdatedAt: r.clock.now(),
	}
	if diff := cmp.Diff(want, made); diff != "" {
		t.Errorf("made (-want +got):\n%s", diff)
	}
	got, err := reader.WebhookEndpoint(t.Context(), made.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
	all, err := reader.WebhookEndpoints(t.Context())
	if diff := cmp.Diff([]api.WebhookEndpoint{*want}, all); err != nil || diff != "" {
		t.Errorf("list: %v (-want +got):\n%s", err, diff)
	}
	if err := writer.DeleteWebhookEndpoint(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.WebhookEndpoint(t.Context(), made.ID); code(err) != "404 not_found" {
		t.Errorf("deleted: %v, want 404", err)
	}
	if diff := cmp.Diff([]string{r.write[3:11], r.write[3:11]}, f.actors); diff != "" {
		t.Errorf("actors (-want +got):\n%s", diff)
	}
}

func TestEndpointSecretsAreThirtyTwoRandomBytes(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 100 {
		text, ok := strings.CutPrefix(newWebhookSecret().Reveal(), "whsec_")
		key, err := base64.StdEncoding.DecodeString(text)
		if !ok || err != nil || len(key) != 32 || seen[text] {
			t.Fatalf("%q, %v: want whsec_ and the base64 of 32 bytes, never twice the same", text, err)
		}
		seen[text] = true
	}
}

func TestEndpointRefusesNonsense(t *testing.T) {
	t.Parallel()
	f, r := withEndpoints(t)
	long := strings.Repeat("x", 201)
	tests := map[string]string{
		`{}`:                                           "url",
		`{"url":null}`:                                 "url",
		`{"url":""}`:                                   "url",
		`{"url":"hooks.example.com"}`:                  "url",
		`{"url":"http://hooks.example.com/"}`:          "url",
		`{"url":"https://127.0.0.1/"}`:                 "url",
		`{"url":"https://localhost/"}`:                 "url",
		`{"url":"https://169.254.169.254/latest/"}`:    "url",
		`{"url":"https://user:pw@hooks.example.com/"}`: "url",
		`{"url":"https://hooks.example.com:25/"}`:      "url",
		`{"url":"javascript:alert(1)"}`:                "url",
		`{"url":"https://hooks.example.com/` + strings.Repeat("x", 2048) + `"}`:     "url",
		`{"url":"https://hooks.example.com/","description":"` + long + `"}`:         "description",
		`{"url":"https://hooks.example.com/","description":"a\nb"}`:                 "description",
		`{"url":"https://hooks.example.com/","types":["bounced","bounce"]}`:         "types[1]",
		`{"url":"https://hooks.example.com/","types":[""]}`:                         "types[0]",
		`{"url":"https://hooks.example.com/","streams":["Bulk Mail"]}`:              "streams[0]",
		`{"url":"https://hooks.example.com/","streams":[` + list("a", 21) + `]}`:    "streams",
		`{"url":"https://hooks.example.com/","types":[` + list("opened", 21) + `]}`: "types",
		`{"url":"https://hooks.example.com/","secret":"mine"}`:                      "secret",
	}
	for body, field := range tests {
		a := r.do("POST", "/v1/webhook-endpoints", r.write, body)
		r.want(a, 422, "invalid")
		if a.problem.Errors[0].Field != field {
			t.Errorf("%.80s: complains about %q, want %q", body, a.problem.Errors[0].Field, field)
		}
	}
	if len(f.all) > 0 {
		t.Error("a refused endpoint reached the store")
	}
}

func list(v string, n int) string {
	return strings.TrimSuffix(strings.Repeat(`"`+v+`",`, n), ",")
}

func TestPatchChangesWhatIsSet(t *testing.T) {
	t.Parallel()
	f, r := withEndpoints(t)
	start := record.Endpoint{
		ID: mail.NewID(), Tenant: mail.DefaultTenant, URL: "https://a.example.com/", Description: "x",
		Types: []mail.EventType{mail.EventOpened}, Streams: []string{"bulk"}, Disabled: true,
	}
	tests := map[string]func(*record.Endpoint){
		`{}`:                               func(*record.Endpoint) {},
		`{"url":null,"types":null}`:        func(*record.Endpoint) {},
		`{"url":"https://b.example.com/"}`: func(e *record.Endpoint) { e.URL = "https://b.example.com/" },
		`{"description":""}`:               func(e *record.Endpoint) { e.Description = "" },
		`{"types":[],"streams":[]}`:        func(e *record.Endpoint) { e.Types, e.Streams = nil, nil },
		`{"types":["clicked","bounced"]}`:  func(e *record.Endpoint) { e.Types = []mail.EventType{"clicked", "bounced"} },
		`{"disabled":false}`:               func(e *record.Endpoint) { e.Disabled = false },
	}
	for body, change := range tests {
		f.all = []record.Endpoint{start}
		want := start
		change(&want)
		a := r.do("PATCH", "/v1/webhook-endpoints/"+start.ID.String(), r.write, body)
		r.want(a, 200, "")
		if diff := cmp.Diff(want, f.all[0], cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", body, diff)
		}
		if strings.Contains(string(a.body), "whsec") {
			t.Errorf("%s: the answer tells the secret", body)
		}
	}
	f.all = []record.Endpoint{start}
	r.want(r.do("PATCH", "/v1/webhook-endpoints/"+start.ID.String(), r.write, `{"url":"https://10.0.0.1/"}`), 422, "invalid")
	if diff := cmp.Diff(start, f.all[0]); diff != "" {
		t.Errorf("a refused change was stored:\n%s", diff)
	}
}

func TestHeadersOfAnEndpointGoInAndNeverOut(t *testing.T) {
	t.Parallel()
	f, r := withEndpoints(t)
	a := r.do("POST", "/v1/webhook-endpoints", r.write, `{"url":"https://a.example.com/","headers":{"x-api-key":"canary"},"basic_auth":{"username":"u","password":"canary"}}`)
	r.want(a, 201, "")
	made := decoded[api.WebhookEndpoint](t, a)
	if !slices.Equal(made.HeaderNames, []string{"Authorization", "X-Api-Key"}) || strings.Contains(string(a.body), "canary") {
		t.Errorf("answer: %s", a.body)
	}
	id := f.all[0].ID
	headers := func() string { return f.secrets[id][len(f.secrets[id])-1].Reveal() }
	if want := `{"Authorization":"Basic dTpjYW5hcnk=","X-Api-Key":"canary"}`; headers() != want {
		t.Errorf("kept %s, want %s", headers(), want)
	}
	path := "/v1/webhook-endpoints/" + id.String()
	r.want(r.do("PATCH", path, r.write, `{"url":"https://a.example.com/v2","description":"same host"}`), 200, "")
	for _, url := range []string{"https://b.example.com/", "https://a.example.com:8443/"} {
		a := r.do("PATCH", path, r.write, `{"url":"`+url+`"}`)
		r.want(a, 422, "invalid")
		if f.all[0].URL != "https://a.example.com/v2" {
			t.Fatalf("the headers go to %s", f.all[0].URL)
		}
	}
	r.want(r.do("PATCH", path, r.write, `{"url":"https://b.example.com/","headers":{"X-Api-Key":"other"}}`), 200, "")
	if want := `{"X-Api-Key":"other"}`; headers() != want || !slices.Equal(f.all[0].HeaderNames, []string{"X-Api-Key"}) {
		t.Errorf("kept %s, names %v, want %s", headers(), f.all[0].HeaderNames, want)
	}
	r.want(r.do("PATCH", path, r.write, `{"headers":{}}`), 200, "")
	if headers() != "" || len(f.all[0].HeaderNames) != 0 {
		t.Errorf("kept %s, names %v, want none", headers(), f.all[0].HeaderNames)
	}
}

func TestHeadersThatCannotBeSentAreRefused(t *testing.T) {
	t.Parallel()
	f, r := withEndpoints(t)
	for body, field := range map[string]string{
		`"headers":{"Host":"x"}`:                              "headers.Host",
		`"headers":{"webhook-signature":"x"}`:                 "headers.webhook-signature",
		`"headers":{"content-length":"1"}`:                    "headers.content-length",
		`"headers":{"Transfer-Encoding":"chunked"}`:           "headers.Transfer-Encoding",
		`"headers":{"a b":"x"}`:                               "headers",
		`"headers":{"":"x"}`:                                  "headers",
		`"headers":{"a\r\nb":"x"}`:                            "headers",
		`"headers":{"` + strings.Repeat("a", 65) + `":"x"}`:   "headers",
		`"headers":{"A":"x\r\nB: y"}`:                         "headers.A",
		`"headers":{"A":"ü"}`:                                 "headers.A",
		`"headers":{"A":" x"}`:                                "headers.A",
		`"headers":{"A":"` + strings.Repeat("x", 2049) + `"}`: "headers.A",
		`"headers":{"authorization":"x"},"basic_auth":{"username":"u","password":"p"}`:             "headers.authorization",
		`"headers":{"a":"","b":"","c":"","d":"","e":"","f":"","g":"","h":"","i":"","j":"","k":""}`: "headers",
		`"basic_auth":{"username":"a:b","password":"p"}`:                                           "basic_auth.username",
		`"basic_auth":{"username":"","password":"p"}`:                                              "basic_auth.username",
		`"basic_auth":{"username":"u","password":"p\n"}`:                                           "basic_auth.password",
	} {
		a := r.do("POST", "/v1/webhook-endpoints", r.write, `{"url":"https://a.example.com/",`+body+`}`)
		r.want(a, 422, "invalid")
		if len(a.problem.Errors) == 0 || a.problem.Errors[0].Field != field {
			t.Errorf("%.80s: %+v, want a complaint about %q", body, a.problem.Errors, field)
		}
	}
	if len(f.all) > 0 {
		t.Error("a refused endpoint reached the store")
	}
}

func TestRotateTellsTheNewSecretOnce(t *testing.T) {
	t.Parallel()
	f, r := withEndpoints(t)
	f.all = []record.Endpoint{{ID: mail.NewID(), Tenant: mail.DefaultTenant}}
	path := "/v1/webhook-endpoints/" + f.all[0].ID.String() + "/rotate"
	for body, want := range map[string]time.Duration{
		`{}`: 24 * time.Hour, `{"overlap_seconds":0}`: 0, `{"overlap_seconds":60}`: time.Minute, `{"overlap_seconds":604800}`: 7 * 24 * time.Hour,
	} {
		a := r.do("POST", path, r.write, body)
		r.want(a, 200, "")
		stored := f.secrets[f.all[0].ID]
		if got := decoded[api.WebhookEndpoint](t, a).Secret; got != stored[len(stored)-1].Reveal() || f.overlap != want {
			t.Errorf("%s: overlap %s, want %s; secret %q", body, f.overlap, want, got)
		}
	}
	for _, body := range []string{`{"overlap_seconds":-1}`, `{"overlap_seconds":604801}`, `{"overlap_seconds":"60"}`} {
		r.want(r.do("POST", path, r.write, body), 422, "invalid")
	}
}

func TestReplayTakesASpan(t *testing.T) {
	t.Parallel()
	f, r := withEndpoints(t)
	f.all = []record.Endpoint{{ID: mail.NewID(), Tenant: mail.DefaultTenant}}
	c, id, now := r.client(r.write), f.all[0].ID.String(), r.clock.now()
	tests := map[string]struct {
		since, until time.Duration // before now; until 0: absent
		want         string
	}{
		"the last hour":    {time.Hour, 0, ""},
		"an hour":          {3 * time.Hour, 2 * time.Hour, ""},
		"to the future":    {time.Hour, -time.Hour, ""},
		"31 days":          {31 * 24 * time.Hour, 0, ""},
		"more":             {31*24*time.Hour + time.Second, 0, "422 invalid"},
		"nothing":          {time.Hour, time.Hour, "422 invalid"},
		"backwards":        {time.Hour, 2 * time.Hour, "422 invalid"},
		"only the future":  {-time.Hour, -2 * time.Hour, "422 invalid"},
		"from now till no": {0, 0, "422 invalid"},
	}
	for name, tt := range tests {
		q := api.WebhookReplayRequest{Since: now.Add(-tt.since)}
		until := now
		if tt.until != 0 {
			q.Until = ptr(now.Add(-tt.until))
			until = now.Add(-max(tt.until, 0))
		}
		got, err := c.ReplayWebhookEndpoint(t.Context(), id, q)
		if code(err) != tt.want {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if tt.want != "" {
			continue
		}
		if diff := cmp.Diff([2]time.Time{q.Since, until}, f.replayed); diff != "" || got.Queued != 7 {
			t.Errorf("%s: queued %d (-want +got):\n%s", name, got.Queued, diff)
		}
	}
	r.want(r.do("POST", "/v1/webhook-endpoints/"+id+"/replay", r.write, `{}`), 422, "invalid")
}

func TestTestTellsWhatCameOfIt(t *testing.T) {
	t.Parallel()
	f, r := withEndpoints(t)
	f.all = []record.Endpoint{{ID: mail.NewID(), Tenant: mail.DefaultTenant}}
	id := f.all[0].ID.String()
	got, err := r.client(r.write).TestWebhookEndpoint(t.Context(), id)
	want := &api.WebhookDelivery{ID: id, EventID: id, Try: 1, At: r.clock.now(), TookMS: 12, Status: 500, Outcome: "failed", Error: "no"}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestDeliveryLogIsPaged(t *testing.T) {
	t.Parallel()
	f, r := withEndpoints(t)
	f.all = []record.Endpoint{{ID: mail.NewID(), Tenant: mail.DefaultTenant}, {ID: mail.NewID(), Tenant: mail.DefaultTenant}}
	for n := range 5 {
		f.log = append(f.log, record.DeliveryEntry{ID: mail.NewID(), DeliveryResult: record.DeliveryResult{
			Endpoint: f.all[0].ID, Event: mail.NewID(), N: n + 1, At: r.clock.now(), Outcome: record.DeliveryRetry,
		}})
	}
	c, id := r.client(r.read), f.all[0].ID.String()
	var got []int
	cursor := ""
	for {
		page, err := c.WebhookDeliveries(t.Context(), id, cursor, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Data {
			got = append(got, d.Try)
		}
		if page.NextCursor == "" {
			break
		}
		cursor = page.NextCursor
	}
	if diff := cmp.Diff([]int{5, 4, 3, 2, 1}, got); diff != "" {
		t.Errorf("tries (-want +got):\n%s", diff)
	}
	if _, err := c.WebhookDeliveries(t.Context(), f.all[1].ID.String(), cursor, 2); code(err) != "400 invalid_cursor" {
		t.Errorf("the cursor of another endpoint's log: %v", err)
	}
}

func TestEndpointOfAnotherTenantIsNotFound(t *testing.T) {
	t.Parallel()
	f, r := withEndpoints(t)
	f.all = []record.Endpoint{{ID: mail.NewID(), Tenant: 2}}
	key := r.store.addKey(nil, record.ScopeWebhooksWrite, record.ScopeWebhooksRead)
	span := `{"since":"2026-01-31T00:00:00Z"}`
	calls := map[string]string{
		"GET ": "", "PATCH ": `{"disabled":true}`, "DELETE ": "", "POST /rotate": `{}`, "POST /replay": span, "POST /test": "",
		"GET /deliveries": "",
	}
	for call, body := range calls {
		method, rest, _ := strings.Cut(call, " ")
		for _, id := range []string{f.all[0].ID.String(), mail.NewID().String(), "nonsense", "%00"} {
			r.want(r.do(method, "/v1/webhook-endpoints/"+id+rest, key, body), http.StatusNotFound, "not_found")
		}
	}
	r.want(r.do("GET", "/v1/webhook-endpoints", key, ""), 200, "")
	if len(f.actors) > 0 || f.all[0].Disabled {
		t.Error("something was done to it")
	}
}

func TestEndpointsTellOfAnOutage(t *testing.T) {
	t.Parallel()
	f, r := withEndpoints(t)
	f.fail = &record.Unavailable{Reason: "database", RetryAfter: time.Second}
	key := r.store.addKey(nil, record.ScopeWebhooksWrite, record.ScopeWebhooksRead)
	id := "/v1/webhook-endpoints/" + mail.NewID().String()
	for call, body := range map[string]string{
		"GET /v1/webhook-endpoints": "", "POST /v1/webhook-endpoints": `{"url":"https://hooks.example.com/"}`, "GET " + id: "",
		"PATCH " + id: `{}`, "DELETE " + id: "", "POST " + id + "/rotate": `{}`, "POST " + id + "/test": "", "GET " + id + "/deliveries": "",
		"POST " + id + "/replay": `{"since":"2026-01-31T00:00:00Z"}`,
	} {
		method, path, _ := strings.Cut(call, " ")
		r.want(r.do(method, path, key, body), 503, "database")
	}
	f.fail = record.ErrConflict
	r.want(r.do("POST", "/v1/webhook-endpoints", key, `{"url":"https://hooks.example.com/"}`), 409, "too_many_endpoints")
	f.fail = context.DeadlineExceeded
	r.want(r.do("POST", id+"/replay", key, `{"since":"2026-01-31T00:00:00Z"}`), 504, "timeout")
}

// TestWebhookTellsAnEventAsTheAPIDoes holds what is POSTed to endpoints to what GET /v1/events shows, field by field.
func TestWebhookTellsAnEventAsTheAPIDoes(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 31, 8, 30, 0, 123456789, time.FixedZone("", 3600))
	full := mail.Event{
		ID: mail.NewID(), Type: mail.EventBounced, Name: "Bounce/HardBounce", At: at, MessageID: mail.NewID(), Recipient: "ann@example.org",
		Account: "relay", Provider: "smtp", ProviderMessageID: "pm-1", Stream: "bulk", Tags: []string{"order"}, Source: mail.FromWebhook,
		Bounce: &mail.Bounce{Class: mail.Hard, Reason: mail.InvalidAddress, Code: "550", Enhanced: "5.1.1", Text: "<no> such user"},
		URL:    "https://example.org/?a=1&b=2", Machine: true,
		UniqueID: "x", Detail: "x", Tenant: 7, N: 3, Raw: []byte("x"), Position: "x", Origin: mail.NewID(), Part: 1,
	}
	bare := mail.Event{ID: mail.NewID(), Type: mail.EventEndpointDisabled, At: at, Source: mail.FromSystem, N: -1}
	for _, e := range []mail.Event{full, bare} {
		shown, err := encode(eventView(&e))
		if err != nil {
			t.Fatal(err)
		}
		body, err := forward.Body(&e)
		if err != nil {
			t.Fatal(err)
		}
		var told struct {
			Type      string          `json:"type"`
			Timestamp string          `json:"timestamp"`
			Data      json.RawMessage `json:"data"`
		}
		var want, got map[string]any
		for raw, into := range map[string]any{string(shown): &want, string(body): &told} {
			if err := json.Unmarshal([]byte(raw), into); err != nil {
				t.Fatal(err)
			}
		}
		if err := json.Unmarshal(told.Data, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: GET /v1/events (-) and the webhook (+) differ:\n%s", e.Type, diff)
		}
		if told.Timestamp != want["at"] || told.Type != forward.TypeOf(e.Type) {
			t.Errorf("%s: type %q at %s", e.Type, told.Type, told.Timestamp)
		}
	}
}
