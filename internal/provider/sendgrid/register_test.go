package sendgrid_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
)

func TestRegisterMakesASignedWebhook(t *testing.T) {
	t.Parallel()
	const target = "https://mail.example.com/hooks/sg"
	a := newAPI(t, map[string]string{
		"GET /v3/user/webhooks/event/settings/all":         `{"max_allowed":5,"webhooks":[{},{"id":"x1","url":"https://other.example.com/","enabled":true,"public_key":"theirs"}]}`,
		"POST /v3/user/webhooks/event/settings":            `201 {"id":"w1","url":"` + target + `","enabled":true}`,
		"PATCH /v3/user/webhooks/event/settings/signed/w1": `{"id":"w1","public_key":"` + vectorKey + `"}`,
		"PATCH /v3/user/webhooks/event/settings/signed/":   `{"id":"x1","public_key":"theirs"}`,
	})
	old := newSigner(t).public
	r, err := newClient(t, a.url, withKeys(old)).Register(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	want := provider.Registration{
		Done:     []string{"made an event webhook for " + target, "turned on the signatures of the event webhook"},
		Settings: map[string]any{"webhook_public_keys": []string{vectorKey, old}},
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("registration (-want +got):\n%s", diff)
	}
	if len(a.calls) != 3 {
		t.Fatalf("calls = %v", a.calls)
	}
	var made map[string]any
	if err := json.Unmarshal([]byte(strings.TrimPrefix(a.calls[1], "POST /v3/user/webhooks/event/settings ")), &made); err != nil {
		t.Fatal(err)
	}
	wantMade := map[string]any{"enabled": true, "url": target, "friendly_name": "sendgate"}
	for _, name := range []string{"processed", "deferred", "delivered", "bounce", "dropped", "open", "click", "spam_report", "unsubscribe", "group_unsubscribe", "group_resubscribe"} {
		wantMade[name] = true
	}
	if diff := cmp.Diff(wantMade, made); diff != "" {
		t.Errorf("webhook (-want +got):\n%s", diff)
	}
	if want := `PATCH /v3/user/webhooks/event/settings/signed/w1 {"enabled":true}`; a.calls[2] != want {
		t.Errorf("call = %s, want %s", a.calls[2], want)
	}
}

func TestRegisterIsIdempotent(t *testing.T) {
	t.Parallel()
	const target = "https://mail.example.com/hooks/sg"
	a := newAPI(t, map[string]string{
		"GET /v3/user/webhooks/event/settings/all": `{"webhooks":[{"id":"w1","url":"` + target + `","enabled":true,"open":true,"public_key":"` + vectorKey + `"}]}`,
	})
	r, err := newClient(t, a.url, withKeys(vectorKey)).Register(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	want := provider.Registration{Settings: map[string]any{"webhook_public_keys": []string{vectorKey}}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("registration (-want +got):\n%s", diff)
	}
	if len(a.calls) != 1 {
		t.Errorf("calls = %v, want the list alone", a.calls)
	}
}

func TestRegisterMendsAWebhook(t *testing.T) {
	t.Parallel()
	const target = "https://mail.example.com/hooks/sg"
	a := newAPI(t, map[string]string{
		"GET /v3/user/webhooks/event/settings/all":  `{"webhooks":[{"id":"w1","url":"` + target + `","enabled":true,"open":false,"public_key":"` + vectorKey + `"}]}`,
		"PATCH /v3/user/webhooks/event/settings/w1": `{"id":"w1"}`,
	})
	five := make([]string, 5)
	for i := range five {
		five[i] = newSigner(t).public
	}
	r, err := newClient(t, a.url, withKeys(five...)).Register(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	want := append([]string{vectorKey}, five[:4]...) // the oldest made room
	if diff := cmp.Diff(want, r.Settings["webhook_public_keys"]); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if len(a.calls) != 2 || !strings.Contains(a.calls[1], `"open":true`) {
		t.Errorf("calls = %v", a.calls)
	}
}

func TestRegisterReportsWhatItCannotDo(t *testing.T) {
	t.Parallel()
	const list, create = "GET /v3/user/webhooks/event/settings/all", "POST /v3/user/webhooks/event/settings"
	const none = `{"max_allowed":5,"webhooks":[{}]}`
	for name, c := range map[string]struct {
		answers map[string]string
		want    provider.Class
	}{
		"no scope":   {map[string]string{list: "403 " + fault("access forbidden", "")}, provider.Misconfigured},
		"full":       {map[string]string{list: none, create: "400 " + fault("You have reached the maximum number of webhooks per your current billing plan.", "")}, provider.Rejected},
		"500":        {map[string]string{list: none, create: "500 "}, provider.Transient},
		"no id":      {map[string]string{list: none, create: "201 {}"}, provider.Transient},
		"not signed": {map[string]string{list: none, create: `201 {"id":"w1"}`, "PATCH /v3/user/webhooks/event/settings/signed/w1": `{"id":"w1","public_key":""}`}, provider.Misconfigured},
	} {
		r, err := newClient(t, newAPI(t, c.answers).url).Register(t.Context(), "https://mail.example.com/hooks/sg")
		if perr := providertest.AsError(t, err); perr.Class != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if r.Settings != nil {
			t.Errorf("%s: settings %v", name, r.Settings)
		}
	}
}
