package postmark_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/postmark"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/seal"
)

const hookURL = "https://mail.example.com/hooks/pm"

func TestRegisterMakesAPasswordFirst(t *testing.T) {
	t.Parallel()
	a := newAPI(t, nil)
	var passwords []string
	for range 2 {
		r, err := newClient(t, a.url).Register(t.Context(), hookURL)
		if err != nil || !r.Again || len(r.Done) != 1 || r.Settings != nil {
			t.Fatalf("Register = %+v, %v", r, err)
		}
		passwords = append(passwords, r.Secrets["webhook_password"])
		if strings.Contains(r.Done[0], passwords[0]) {
			t.Error("the password is shown")
		}
		if _, err := postmark.ParseConfig(nil, map[string]seal.Secret{
			"server_token": seal.NewSecret(testToken), "webhook_password": seal.NewSecret(r.Secrets["webhook_password"]),
		}); err != nil {
			t.Errorf("the config does not take the password: %v", err)
		}
	}
	if len(passwords[0]) != 43 || passwords[0] == passwords[1] {
		t.Errorf("passwords of %d bytes, equal %t", len(passwords[0]), passwords[0] == passwords[1])
	}
	if len(a.calls) > 0 {
		t.Errorf("calls = %v, want none", a.calls)
	}
}

func TestRegisterEachStream(t *testing.T) {
	t.Parallel()
	a := newAPI(t, map[string]string{
		"GET /webhooks?MessageStream=broadcasts": `{"Webhooks":[{"ID":1,"Url":"https://other.example.com/"},{"ID":1234567,"Url":"` + hookURL + `","MessageStream":"broadcasts"}]}`,
		"GET /webhooks?MessageStream=outbound":   `{"Webhooks":[]}`,
		"PUT /webhooks/1234567":                  `{"ID":1234567}`,
		"POST /webhooks":                         `{"ID":1234568}`,
	})
	r, err := newClient(t, a.url, withBroadcasts, withPassword).Register(t.Context(), hookURL)
	if err != nil {
		t.Fatal(err)
	}
	want := provider.Registration{Done: []string{
		"brought the webhook of the stream broadcasts up to date", "made a webhook for the stream outbound",
	}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("registration (-want +got):\n%s", diff)
	}
	triggers := members{
		"Open": members{"Enabled": true, "PostFirstOpenOnly": false}, "Click": members{"Enabled": true}, "Delivery": members{"Enabled": true},
		"Bounce": members{"Enabled": true, "IncludeContent": false}, "SpamComplaint": members{"Enabled": true, "IncludeContent": false},
		"SubscriptionChange": members{"Enabled": true},
	}
	body := members{"Url": hookURL, "HttpAuth": members{"Username": "sendgate", "Password": testPassword}, "HttpHeaders": []any{}, "Triggers": triggers}
	checkCall(t, a.calls[1], "PUT /webhooks/1234567", body)
	body["MessageStream"] = "outbound"
	checkCall(t, a.calls[3], "POST /webhooks", body)
}

func TestRegisterWithAHeader(t *testing.T) {
	t.Parallel()
	a := newAPI(t, map[string]string{"GET /webhooks?MessageStream=outbound": `{"Webhooks":[]}`, "POST /webhooks": `{"ID":1}`})
	r, err := newClient(t, a.url, withHeader).Register(t.Context(), hookURL)
	if err != nil || r.Again {
		t.Fatalf("Register = %+v, %v", r, err)
	}
	if want := `"HttpHeaders":[{"Name":"X-Sendgate-Token","Value":"` + testHookCode + `"}]`; !strings.Contains(a.calls[1], want) || strings.Contains(a.calls[1], "HttpAuth") {
		t.Errorf("call = %s, want %s", a.calls[1], want)
	}
}

func TestRegisterReportsWhatItCannotDo(t *testing.T) {
	t.Parallel()
	const list, create = "GET /webhooks?MessageStream=outbound", "POST /webhooks"
	for name, c := range map[string]struct {
		answers map[string]string
		want    provider.Class
	}{
		"token":        {map[string]string{list: "401 " + fault(10, "Bad token")}, provider.Misconfigured},
		"not answered": {map[string]string{list: `{"Webhooks":[]}`, create: "422 " + fault(1364, "The URL did not answer 200 to "+testPassword)}, provider.Misconfigured},
		"500":          {map[string]string{list: `{"Webhooks":[]}`, create: "500 "}, provider.Transient},
	} {
		_, err := newClient(t, newAPI(t, c.answers).url, withPassword).Register(t.Context(), hookURL)
		if perr := providertest.AsError(t, err); perr.Class != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if strings.Contains(err.Error(), testPassword) {
			t.Errorf("%s: the error shows the password", name)
		}
	}
}

func checkCall(t *testing.T, call, target string, want members) {
	t.Helper()
	body, ok := strings.CutPrefix(call, target+" ")
	var got members
	if err := json.Unmarshal([]byte(body), &got); !ok || err != nil {
		t.Fatalf("call = %s, want %s (%v)", call, target, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", target, diff)
	}
}
