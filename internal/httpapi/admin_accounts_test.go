package httpapi

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// account adds an account with a good credential.
func (r *rig) account(name string) {
	r.t.Helper()
	_, err := r.client(r.admin).CreateAccount(r.t.Context(), api.AccountRequest{
		Name: name, Kind: "ses", Settings: json.RawMessage(`{"region":"eu-west-1"}`),
		Secrets: map[string]string{"api_key": "good"},
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestAccountIsCreatedWithTheDefaultsOfItsKind(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.do("POST", "/admin/v1/accounts", r.admin,
		`{"name":"ses-eu","kind":"ses","settings":{"region": "eu-west-1"},"secrets":{"api_key":"good"}}`)
	r.want(a, 201, "")
	if got := a.header.Get("Location"); got != "/admin/v1/accounts/ses-eu" {
		t.Errorf("Location = %q", got)
	}
	if strings.Contains(string(a.body), "good") {
		t.Error("the answer holds the secret")
	}
	want := api.Account{
		Name: "ses-eu", Kind: "ses", Settings: json.RawMessage(`{"region":"eu-west-1"}`), Secrets: []string{"api_key"},
		Concurrency: 8, Limits: []api.Limit{{N: 100, Per: "5m", Unit: "requests"}}, State: "active",
		CreatedAt: r.clock.now(), UpdatedAt: r.clock.now(),
	}
	got := decoded[api.Account](t, a)
	if !strings.Contains(string(got.Capabilities), `"max_recipients":50`) {
		t.Errorf("capabilities = %s, want those of the kind", got.Capabilities)
	}
	got.Capabilities = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("account (-want +got):\n%s", diff)
	}
	if got := r.store.secrets["ses-eu"]["api_key"].Reveal(); got != "good" {
		t.Errorf("stored secret = %q", got)
	}
}

func TestAccountRefusesNonsense(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.account("taken")
	const good = `"kind":"ses","settings":{"region":"x"},"secrets":{"api_key":"good"}`
	tests := map[string]string{ // body: field of the first complaint
		`{"name":"Ses",` + good + `}`:                                                                                     "name",
		`{"name":"1ses",` + good + `}`:                                                                                    "name",
		`{"name":"` + strings.Repeat("a", 41) + `",` + good + `}`:                                                         "name",
		`{` + good + `}`:                                                                                                  "name",
		`{"name":"a","kind":"fax"}`:                                                                                       "kind",
		`{"name":"a","kind":"ses","settings":{}}`:                                                                         "settings",
		`{"name":"a","kind":"ses","settings":[]}`:                                                                         "settings",
		`{"name":"a","kind":"ses","settings":null}`:                                                                       "settings",
		`{"name":"a","kind":"ses","settings":{"region":"x","api_key":"good"}}`:                                            "settings.api_key",
		`{"name":"a","kind":"ses","settings":{"region":"x"},"secrets":{"api_key":"bad"}}`:                                 "settings",
		`{"name":"a","kind":"ses","settings":{"region":"x"},"secrets":{"api_kee":"good"}}`:                                "secrets.api_kee",
		`{"name":"a","kind":"ses","settings":{"region":"x"},"secrets":{"api_key":""}}`:                                    "secrets.api_key",
		`{"name":"a","concurrency":0,` + good + `}`:                                                                       "concurrency",
		`{"name":"a","concurrency":1001,` + good + `}`:                                                                    "concurrency",
		`{"name":"a","limits":[{"n":0,"per":"1s","unit":"requests"}],` + good + `}`:                                       "limits[0]",
		`{"name":"a","limits":[{"n":1,"per":"1","unit":"requests"}],` + good + `}`:                                        "limits[0].per",
		`{"name":"a","limits":[{"n":1,"per":"0s","unit":"requests"}],` + good + `}`:                                       "limits[0]",
		`{"name":"a","limits":[{"n":1,"per":"-1s","unit":"requests"}],` + good + `}`:                                      "limits[0]",
		`{"name":"a","limits":[{"n":1,"per":"1s","unit":"mails"}],` + good + `}`:                                          "limits[0]",
		`{"name":"a","limits":[{"n":1,"per":"60s","unit":"requests"},{"n":2,"per":"1m","unit":"requests"}],` + good + `}`: "limits[1]",
		`{"name":"a","concurency":5,` + good + `}`:                                                                        "concurency",
	}
	for body, field := range tests {
		a := r.do("POST", "/admin/v1/accounts", r.admin, body)
		r.want(a, 422, "invalid")
		if got := a.problem.Errors[0].Field; got != field {
			t.Errorf("%s: complains about %q, want %q", body, got, field)
		}
	}
	a := r.do("POST", "/admin/v1/accounts", r.admin, `{"name":"taken",`+good+`}`)
	r.want(a, 409, "name_taken")
	if len(r.store.config.Accounts) != 1 {
		t.Errorf("accounts = %d, want the first alone", len(r.store.config.Accounts))
	}
}

func TestPatchKeepsWhatIsAbsentAndEndsParks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.account("a")
	r.store.config.Account("a").Parked = []route.Park{{Reason: "401", Since: r.clock.now()}}
	c := r.client(r.admin)
	if a, err := c.Account(t.Context(), "a"); err != nil || a.State != "parked" || len(a.Parked) != 1 {
		t.Fatalf("account = %+v, %v, want parked", a, err)
	}
	ten := 10
	a, err := c.PatchAccount(t.Context(), "a", api.AccountRequest{Concurrency: &ten})
	if err != nil || a.Concurrency != 10 || string(a.Settings) != `{"region":"eu-west-1"}` || a.State != "active" {
		t.Errorf("after a patch of concurrency: %+v, %v", a, err)
	}
	a, err = c.PatchAccount(t.Context(), "a", api.AccountRequest{Secrets: map[string]string{"webhook_key": "0123456789abcdef"}})
	if err != nil || cmp.Diff([]string{"api_key", "webhook_key"}, a.Secrets) != "" || a.Concurrency != 10 {
		t.Errorf("after a patch of a secret: %+v, %v", a, err)
	}
	a, err = c.PatchAccount(t.Context(), "a", api.AccountRequest{Settings: json.RawMessage(`{"region":"us-east-1"}`)})
	if err != nil || string(a.Settings) != `{"region":"us-east-1"}` || len(a.Secrets) != 2 {
		t.Errorf("after a patch of settings: %+v, %v", a, err)
	}
}

func TestPatchIsValidatedWithTheStoredSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.account("a")
	for body, field := range map[string]string{
		`{"secrets":{"api_key":"bad"}}`: "settings",
		`{"settings":{}}`:               "settings",
		`{"settings":null}`:             "settings",
		`{"name":"b"}`:                  "name",
		`{"kind":"smtp"}`:               "kind",
		`{"limits":[]}`:                 "limits",
		`{"concurrency":-1}`:            "concurrency",
	} {
		a := r.do("PATCH", "/admin/v1/accounts/a", r.admin, body)
		r.want(a, 422, "invalid")
		if got := a.problem.Errors[0].Field; got != field {
			t.Errorf("%s: complains about %q, want %q", body, got, field)
		}
	}
	if r.store.count("UpdateAccount") != 0 {
		t.Error("a refused patch reached the store")
	}
	r.want(r.do("PATCH", "/admin/v1/accounts/none", r.admin, `{"concurrency":2}`), 404, "not_found")
}

func TestAccountStates(t *testing.T) {
	t.Parallel()
	whole, sender := route.Park{Reason: "401"}, route.Park{SenderDomain: "example.com", Reason: "not verified"}
	tests := map[string]struct {
		account route.Account
		want    string
	}{
		"plain":         {route.Account{}, "active"},
		"sender parked": {route.Account{Parked: []route.Park{sender}}, "active"},
		"parked":        {route.Account{Parked: []route.Park{sender, whole}}, "parked"},
		"paused":        {route.Account{Paused: true, Parked: []route.Park{whole}}, "paused"},
		"draining":      {route.Account{Draining: true, Paused: true}, "draining"},
	}
	for name, tt := range tests {
		if got := accountState(&tt.account); got != tt.want {
			t.Errorf("%s: state = %s, want %s", name, got, tt.want)
		}
	}
}

func TestAccountIsPausedResumedAndDrained(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.account("a")
	c := r.client(r.admin)
	if a, err := c.PauseAccount(t.Context(), "a"); err != nil || a.State != "paused" {
		t.Errorf("pause = %+v, %v", a, err)
	}
	if a, err := c.ResumeAccount(t.Context(), "a"); err != nil || a.State != "active" {
		t.Errorf("resume = %+v, %v", a, err)
	}
	a := r.do("DELETE", "/admin/v1/accounts/a", r.admin, "")
	r.want(a, 202, "")
	if got := decoded[api.Account](t, a).State; got != "draining" {
		t.Errorf("state after delete = %s, want draining", got)
	}
	for _, err := range []error{
		c.DeleteAccount(t.Context(), "none"),
		second(c.PauseAccount(t.Context(), "none")), second(c.ResumeAccount(t.Context(), "none")),
		second(c.Account(t.Context(), "none")), second(c.AccountLimits(t.Context(), "none")),
		second(c.SetLimits(t.Context(), "none", nil)),
	} {
		if code(err) != "404 not_found" {
			t.Errorf("call on an account that does not exist = %v, want 404", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestAccountLimitsAreReplaced(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.account("a")
	c := r.client(r.admin)
	limits := []api.Limit{{N: 14, Per: "1s", Unit: "requests"}, {N: 50000, Per: "24h", Unit: "recipients"}}
	got, err := c.SetLimits(t.Context(), "a", limits)
	want := &api.AccountLimits{Limits: limits, Documented: []api.Limit{{N: 100, Per: "5m", Unit: "requests"}}}
	if err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("SetLimits = %v, %v", cmp.Diff(want, got), err)
	}
	if got, err := c.AccountLimits(t.Context(), "a"); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("AccountLimits = %v, %v", cmp.Diff(want, got), err)
	}
	if got, err := c.SetLimits(t.Context(), "a", nil); err != nil || len(got.Limits) != 0 {
		t.Errorf("SetLimits to none = %+v, %v", got, err)
	}
	r.want(r.do("PUT", "/admin/v1/accounts/a/limits", r.admin, `{}`), 422, "invalid")
	r.want(r.do("PUT", "/admin/v1/accounts/a/limits", r.admin, `{"limits":[{"n":1,"per":"1s1us","unit":"requests"}]}`), 422, "invalid")
}

func TestPeriodsAreWrittenShort(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		time.Second: "1s", 5 * time.Minute: "5m", 24 * time.Hour: "24h", 90 * time.Second: "1m30s", 10 * time.Minute: "10m",
		100 * time.Minute: "1h40m", 1500 * time.Millisecond: "1.5s", time.Hour + time.Second: "1h0m1s",
	} {
		if got := per(d); got != want {
			t.Errorf("per(%d) = %s, want %s", d, got, want)
		}
		if back, err := time.ParseDuration(per(d)); err != nil || back != d {
			t.Errorf("per(%d) reads back as %d, %v", d, back, err)
		}
	}
}

func TestAdminCallsSayWhenTheStoreIsDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.want(r.do("GET", "/admin/v1/queue", r.admin, ""), 200, "") // the key is known now
	r.store.failWith(&record.Unavailable{Reason: "database", RetryAfter: time.Second})
	for route := range scopeOf() {
		method, path, _ := strings.Cut(route, " ")
		if method != "GET" || !strings.HasPrefix(path, "/admin") {
			continue
		}
		a := r.do(method, strings.NewReplacer("{id}", mail.NewID().String(), "{", "", "}", "", "/series", "/series?measure=sent").Replace(path), r.admin, "")
		r.want(a, 503, "database")
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s: 503 without Retry-After", route)
		}
	}
}
