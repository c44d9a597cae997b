package resend_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/provider/resend"
	"github.com/sendgate/sendgate/internal/seal"
)

const hookURL = "https://send.example.com/hooks/resend"

// endpoints is a fake of the webhook API.
type endpoints struct {
	list  string // what GET /webhooks shows
	calls []string
	sent  struct {
		Endpoint, Status string
		Events           []string
	}
}

func (e *endpoints) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call := r.Method + " " + r.URL.Path
	e.calls = append(e.calls, call)
	if r.Method == http.MethodPost || r.Method == http.MethodPatch {
		_ = json.NewDecoder(r.Body).Decode(&e.sent)
	}
	switch call {
	case "GET /webhooks":
		reply(w, 200, `{"object":"list","has_more":false,"data":[`+e.list+`]}`)
	case "POST /webhooks":
		reply(w, 201, `{"object":"webhook","id":"w-new","signing_secret":"`+secretOf("n")+`"}`)
	case "PATCH /webhooks/w-1":
		reply(w, 200, `{"object":"webhook","id":"w-1"}`)
	case "GET /webhooks/w-1":
		reply(w, 200, `{"object":"webhook","id":"w-1","signing_secret":"`+secretOf("n")+`"}`)
	default:
		reply(w, 404, fault("not_found", call))
	}
}

func TestRegisterMakesOrMendsOurWebhook(t *testing.T) {
	t.Parallel()
	other := `{"id":"w-0","endpoint":"https://other.example.com/","events":["email.sent"]}`
	ours := `{"id":"w-1","endpoint":"` + hookURL + `","events":["email.sent"],"status":"disabled"}`
	for name, tc := range map[string]struct {
		list, have string
		calls      string
		secrets    map[string]string
	}{
		"new":             {other, "", "GET /webhooks, POST /webhooks", map[string]string{"webhook_secret": secretOf("n")}},
		"there, unknown":  {other + "," + ours, "", "GET /webhooks, PATCH /webhooks/w-1, GET /webhooks/w-1", map[string]string{"webhook_secret": secretOf("n")}},
		"there and known": {ours, secretOf("n"), "GET /webhooks, PATCH /webhooks/w-1, GET /webhooks/w-1", nil},
		"another secret": {ours, secretOf("o"), "GET /webhooks, PATCH /webhooks/w-1, GET /webhooks/w-1", map[string]string{
			"webhook_secret": secretOf("n"), "webhook_secret_previous": secretOf("o"),
		}},
	} {
		api := &endpoints{list: tc.list}
		srv := httptest.NewServer(api)
		r, err := newClient(t, srv.URL, func(c *resend.Config) { c.WebhookSecret = seal.NewSecret(tc.have) }).Register(t.Context(), hookURL)
		srv.Close()
		if err != nil || len(r.Done) != 1 || strings.Join(api.calls, ", ") != tc.calls {
			t.Errorf("%s: %+v, %v after %v; want %s", name, r, err, api.calls, tc.calls)
		}
		if api.sent.Endpoint != hookURL || !slices.Contains(api.sent.Events, "email.suppressed") || slices.Contains(api.sent.Events, "email.received") {
			t.Errorf("%s: asked for %+v", name, api.sent)
		}
		if len(r.Secrets) != len(tc.secrets) {
			t.Errorf("%s: %d secrets, want %d", name, len(r.Secrets), len(tc.secrets))
		}
		for field, want := range tc.secrets {
			if r.Secrets[field] != want {
				t.Errorf("%s: %s is not the one expected", name, field)
			}
		}
	}
}
