package providertest

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

// impostors are successful answers of a proxy, a firewall or the login page of a network.
func impostors() map[string]string {
	return map[string]string{
		"nothing":         "",
		"spaces":          " \n",
		"a page":          "<!DOCTYPE html><html><body><h1>Sign in to the network</h1></body></html>",
		"words":           "OK",
		"a JSON string":   `"OK"`,
		"null":            "null",
		"an empty object": "{}",
		"an empty array":  "[]",
		"other JSON":      `{"status":"ok","incident_id":"4711-12","support_id":"1"}`,
	}
}

// withoutID makes one send and changes the answer of Accept: its id is empty, of another type, or cut off.
func withoutID(t *testing.T, s Suite) map[string]http.Handler {
	t.Helper()
	whole := httptest.NewRecorder()
	_, p := start(t, s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Accept.ServeHTTP(whole, r)
		maps.Copy(w.Header(), whole.Header())
		w.WriteHeader(whole.Code)
		_, _ = w.Write(whole.Body.Bytes())
	}))
	receipt, err := s.send(t.Context(), t, p, PlainSend())
	if err != nil || receipt.ProviderMessageID == "" {
		t.Fatalf("Send = %+v, %v, want an id", receipt, err)
	}
	header := whole.Header().Clone()
	maps.DeleteFunc(header, func(_ string, values []string) bool {
		return strings.Contains(strings.Join(values, " "), receipt.ProviderMessageID)
	})
	body := whole.Body.String()
	value := regexp.MustCompile(`"[^"]*` + regexp.QuoteMeta(receipt.ProviderMessageID) + `[^"]*"`).FindString(body)
	if value == "" && len(header) == len(whole.Header()) {
		t.Fatalf("neither a header nor a JSON string of Accept's answer holds the id %s: %s", receipt.ProviderMessageID, body)
	}
	answers := map[string]http.Handler{"its own answer without the id": fixed(whole.Code, header, strings.ReplaceAll(body, value, `""`))}
	if value != "" {
		answers["half of its own answer"] = fixed(whole.Code, header, body[:strings.Index(body, value)+2])
		for _, other := range []string{"null", "7", "{}", "[]"} {
			answers["its own answer with the id "+other] = fixed(whole.Code, header, strings.ReplaceAll(body, value, other))
		}
	}
	return answers
}

// impostorsAreNotBelieved checks that a success without the provider's own id is not an acceptance. It is also no proof that
// nothing was sent: the impostor may have passed the message on.
func impostorsAreNotBelieved(t *testing.T, s Suite) {
	t.Helper()
	answers := withoutID(t, s)
	for _, status := range []int{200, 201, 202, 203, 206} {
		for name, body := range impostors() {
			for _, kind := range []string{"text/html; charset=utf-8", "application/json"} {
				answers[fmt.Sprintf("status %d with %s as %s", status, name, kind)] = fixed(status, http.Header{"Content-Type": {kind}}, body)
			}
		}
	}
	srv, p := start(t, s, s.Accept)
	for name, answer := range answers {
		srv.answer(answer)
		_, err := s.send(t.Context(), t, p, PlainSend())
		if err == nil || AsError(t, err).Class != provider.Uncertain {
			t.Errorf("%s: %v, want uncertain", name, err)
		}
		srv.takeOne(t)
	}
}

// foreignWord marks answers of services that are not a provider, such as those that a base_url in a private network leads to.
const foreignWord = "iNtErNaL-7Qx"

// foreign are the answers of such services, by content type.
func foreign() map[string]string {
	return map[string]string{
		"text/plain":       foreignWord,
		"text/html":        "<html><title>" + foreignWord + "</title></html>",
		"application/xml":  "<Error><Code>" + foreignWord + "</Code><Message>" + foreignWord + "</Message></Error>",
		"application/yaml": "key: " + foreignWord,
		"application/json": `{"AccessKeyId":"` + foreignWord + `","Token":"` + foreignWord + `","error":"` + foreignWord + `","detail":["` + foreignWord + `"]}`,
		"text/json":        `["` + foreignWord + `"]`,
		"a/string":         `"` + foreignWord + `"`,
		"a/number":         `{"errors":"` + foreignWord + `","id":["` + foreignWord + `"],"MessageID":{"` + foreignWord + `":1}}`,
		"a/syntax":         foreignWord + `{"errors":[`,
	}
}

// foreignAnswersAreNotTold checks that a part of an answer is reported only if it has the provider's form. Reports about a call
// are for readers of mail logs. A person who may choose the address must not read the answers of other services through them.
func foreignAnswersAreNotTold(t *testing.T, s Suite) {
	t.Helper()
	srv, p := start(t, s, s.Accept)
	for _, status := range []int{200, 202, 204, 301, 400, 401, 403, 404, 413, 422, 429, 500, 503} {
		for kind, body := range foreign() {
			srv.answer(fixed(status, http.Header{"Content-Type": {kind}, "X-Secret": {foreignWord}}, body))
			receipt, err := s.send(t.Context(), t, p, PlainSend())
			told := fmt.Sprintf("%+v", receipt)
			if err != nil {
				told += fmt.Sprintf("%+v %s", *AsError(t, err), err)
			}
			if strings.Contains(strings.ToLower(told), strings.ToLower(foreignWord)) {
				t.Errorf("status %d with %s is told: %s", status, kind, told)
			}
		}
	}
}

// redirectsAreNotFollowed checks that no message and no credential is sent to the target of a redirect.
func redirectsAreNotFollowed(t *testing.T, s Suite) {
	t.Helper()
	srv, p := start(t, s, s.Accept)
	for _, status := range []int{300, 301, 302, 303, 307, 308} {
		srv.answer(fixed(status, http.Header{"Location": {srv.URL + "/elsewhere"}}, "<html>Moved</html>"))
		_, err := s.send(t.Context(), t, p, PlainSend())
		CheckClass(t, err, esphttp.ByStatus(status))
		srv.takeOne(t)
	}
}
