//go:build drill

package app

import (
	"encoding/json"
	"net/http"
	"testing"
)

// askWrongly makes requests that are refused, each with canaries where they should not be.
func (g *guarded) askWrongly(t *testing.T) {
	t.Helper()
	good, err := json.Marshal(canaryLetter("ses", "fine"))
	if err != nil {
		t.Fatal(err)
	}
	with := func(field, value string) string {
		var all map[string]json.RawMessage
		if err := json.Unmarshal(good, &all); err != nil {
			t.Fatal(err)
		}
		all[field] = json.RawMessage(value)
		b, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	bodies := []string{
		with("from", `"canarylocal"`), with("to", `["canarylocal a@example.org"]`), with("to", `[{"email":"canarylocal@example.org","name":"Canaryname\r\nBcc: x"}]`),
		with("subject", `"Canarysubject\r\nBcc: canarylocal@example.org"`), with("headers", `{"X-Note":"Canaryheader\nX: y"}`),
		with("headers", `{"X-SMTPAPI":"Canaryheader"}`), with("headers", `{"canaryfield@example.org":"Canaryheader"}`),
		with("metadata", `{"canaryfield@example.org ":"Canarymeta"}`), with("metadata", `{"note":"Canarymeta\u0001"}`),
		with("canaryfield@example.org", `1`), with("html", `7`), with("subject", `["Canarysubject"]`), with("send_at", `"canaryjson"`),
		with("attachments", `[{"filename":"canaryfile\u0000.txt","content":"canarycontent!"}]`), with("attachments", `["canarycontent"]`),
		with("account", `"canaryjson"`), with("stream", `"Canaryjson !"`), with("on_ambiguous", `"canaryjson"`), with("tags", `["canaryjson\u0007"]`),
		string(good[:len(good)-30]), string(good) + "canaryjson", `{"canaryfield@example.org":1,"canaryfield@example.org":2}`,
		`{"text":"canarytext ` + "\xff" + `"}`, `["canaryjson"]`, `{"to":"canarylocal@example.org\ud800"}`,
	}
	for _, body := range bodies {
		g.refused(t, http.MethodPost, "/v1/send", g.keys.api, body)
		g.call(t, http.MethodPost, "/v1/send/batch", g.keys.api, `{"messages":[`+body+`]}`, "canaryquery")
		g.call(t, http.MethodPost, "/admin/v1/route/explain", g.keys.admin, body, "")
	}
	g.call(t, http.MethodPost, "/v1/send", g.keys.api, string(good), "canaryquery-key")
	g.call(t, http.MethodPost, "/v1/send", g.keys.api, with("text", `"Canarytext, another"`), "canaryquery-key")
	g.refused(t, http.MethodPost, "/v1/send?canaryquery=1", g.keys.api, string(good))
	g.refused(t, http.MethodPost, "/v1/suppressions", g.keys.api, `{"email":"canarylocal@@example.org","reason":"canaryjson"}`)
	g.call(t, http.MethodPost, "/v1/suppressions", g.keys.api, `{"email":"canarylocal-suppressed@example.org"}`, "")
	g.call(t, http.MethodDelete, "/v1/suppressions/canarylocal-suppressed@example.org", g.keys.api, "", "")
	for _, path := range []string{
		"/v1/suppressions/canarylocal@example.org", "/v1/messages/canarylocal@example.org", "/canarylocal@example.org",
		"/v1/messages?to=canarylocal@@example.org", "/v1/messages?cursor=canaryquery", "/v1/messages?canaryquery%40example.org=1",
		"/v1/messages?api_key=" + g.keys.api, "/v1/messages?tag=canaryquery%01", "/v1/messages?since=canaryquery",
		"/admin/v1/accounts/canaryquery", "/admin/v1/keys/" + g.keys.api, "/admin/v1/audit?cursor=canaryquery",
	} {
		for _, method := range []string{http.MethodDelete, http.MethodGet, "CANARYQUERY"} {
			for _, key := range []string{g.keys.api, g.keys.admin, wrongSecret, g.keys.api[:40] + "hush-wrong-7Qx"} {
				g.refused(t, method, path, key, "")
			}
		}
	}
}

// configureWrongly makes admin requests that are refused, with secrets where they should not be.
func (g *guarded) configureWrongly(t *testing.T) {
	t.Helper()
	for _, account := range accountNames() {
		for _, body := range []string{
			`{"secrets":{"api_key":7}}`, `{"secrets":"` + wrongSecret + `"}`, `{"secrets":["` + wrongSecret + `"]}`, `{"secrets":{"nope":"` + wrongSecret + `"}}`,
			`{"settings":{"api_key":"` + wrongSecret + `","server_token":"` + wrongSecret + `","password":"` + wrongSecret + `","secret_access_key":"` + wrongSecret + `"}}`,
			`{"settings":{"webhook_password":"` + wrongSecret + `","webhook_signing_key":"` + wrongSecret + `","verp_key":"` + wrongSecret + `"}}`,
			`{"settings":{"webhook_public_keys":["` + wrongSecret + `"],"webhook_header":"` + wrongSecret + `:","sns_topic_arns":["` + wrongSecret + `"],"bounce_domain":"` + wrongSecret + `/"}}`,
			`{"settings":{"sns_base_url":"https://u:` + wrongSecret + `@example.com","sns_ca_pem":"` + wrongSecret + `"}}`,
			`{"settings":{"bounce_domain":"b.example.com","host":"127.0.0.1"},"secrets":{"verp_key":"` + wrongSecret + `"}}`,
			`{"secrets":{"webhook_signing_key":"` + wrongSecret + ` x","webhook_password":"` + wrongSecret + `\n","webhook_token":"` + wrongSecret + `"}}`,
			`{"settings":{"Api_Key":"` + wrongSecret + `","PASSWORD":"` + wrongSecret + `"}}`, `{"settings":{"nope":"` + wrongSecret + `"}}`,
			`{"settings":{"base_url":"https://u:` + wrongSecret + `@example.com"}}`, `{"settings":{"base_url":"https://example.com?k=` + wrongSecret + `"}}`,
			`{"settings":{"base_url":"://` + wrongSecret + `"}}`, `{"settings":{"host":"u:` + wrongSecret + `@example.com"}}`,
			`{"settings":{"concurrency":"` + wrongSecret + `"}}`, `{"settings":"` + wrongSecret + `"}`,
			`{"secrets":{"api_key":"` + wrongSecret + ` x","server_token":"` + wrongSecret + ` x"}}`, `{"secrets":{"api_key":"` + wrongSecret + `\u0001"}}`,
			`{"secrets":{"server_token":"` + wrongSecret + `\n"}}`, `{"secrets":{"secret_access_key":"` + wrongSecret + ` x"}}`,
			`{"settings":{"host":"127.0.0.1","dkim":{"domain":"example.com","selector":"s"}},"secrets":{"dkim_private_key":"` + wrongSecret + `"}}`,
			`{"secrets":{"dkim_private_key":"-----BEGIN PRIVATE KEY-----\n` + wrongSecret + `\n-----END PRIVATE KEY-----"}}`,
			`{"secrets":{"password":"` + wrongSecret,
		} {
			g.refused(t, http.MethodPatch, "/admin/v1/accounts/"+account, g.keys.admin, body)
			g.refused(t, http.MethodPost, "/admin/v1/accounts", g.keys.admin, `{"name":"n-`+account+`","kind":"`+account+`",`+body[1:])
		}
	}
	g.refused(t, http.MethodPost, "/admin/v1/accounts", g.keys.admin, `{"name":"n","kind":"`+"canaryjson"+`","secrets":{"api_key":"`+wrongSecret+`"}}`)
	g.refused(t, http.MethodPost, "/admin/v1/keys", g.keys.admin, `{"name":"n","scopes":["`+wrongSecret+`"],"tenant":"default"}`)
	for _, path := range []string{
		"/admin/v1/accounts/%00/pause", "/admin/v1/accounts/%ff/pause", "/admin/v1/accounts/%00/resume",
	} {
		g.refused(t, http.MethodPost, path, g.keys.admin, "")
	}
	for _, path := range []string{"/admin/v1/accounts/%00", "/admin/v1/accounts/%ff", "/admin/v1/keys/%00", "/admin/v1/keys/%ff", "/admin/v1/rules/%00"} {
		g.refused(t, http.MethodDelete, path, g.keys.admin, "")
	}
}
