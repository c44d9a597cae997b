package httpapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
)

// fakeRegistrar answers the nth call with the nth registration, or with an error.
type fakeRegistrar struct {
	mu   sync.Mutex
	urls []string
	made []provider.Registration
	err  error
}

func (f *fakeRegistrar) Registrar(account string) (provider.Registrar, bool) {
	return f, account == "ses"
}

func (f *fakeRegistrar) Register(_ context.Context, url string) (provider.Registration, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.urls = append(f.urls, url)
	if f.err != nil {
		return provider.Registration{}, f.err
	}
	return f.made[min(len(f.urls), len(f.made))-1], nil
}

func sesAccount(t *testing.T, r *rig) {
	t.Helper()
	_, err := r.client(r.admin).CreateAccount(t.Context(), api.AccountRequest{
		Name: "ses", Kind: "ses", Settings: []byte(`{"region":"eu-west-1","number":12345678901234567890}`), Secrets: map[string]string{"api_key": "good"},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAccountWebhooksShowHealth(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	sesAccount(t, r)
	now := r.clock.now()
	r.store.health = []record.HookHealth{{Account: "other", Events: 9}, {
		Account: "ses", LastEvent: now.Add(-2 * time.Hour), LastRefused: now, LastRefusal: "signature", Events: 3, Refused: 4, LastSent: now.Add(-time.Hour),
	}}
	got, err := r.client(r.admin).AccountWebhooks(t.Context(), "ses")
	if err != nil {
		t.Fatal(err)
	}
	event, sent := now.Add(-2*time.Hour), now.Add(-time.Hour)
	want := &api.AccountWebhooks{
		Account: "ses", Path: "/hooks/ses", LastEventAt: &event, Events: 3, Refused: 4, LastRefusedAt: &now, LastRefusal: "signature",
		LastSentAt: &sent, Silent: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("webhooks (-want +got):\n%s", diff)
	}
	if _, err := r.client(r.admin).AccountWebhooks(t.Context(), "nobody"); code(err) != "404 not_found" {
		t.Errorf("unknown account = %v", err)
	}
}

func TestSilentAccounts(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, tc := range []struct {
		name                 string
		created, event, sent time.Time
		want                 bool
	}{
		{"never sent", ago(99 * time.Hour), time.Time{}, time.Time{}, false},
		{"sends and hears", ago(99 * time.Hour), ago(time.Second), ago(0), false},
		{"idle since it heard", ago(99 * time.Hour), ago(5 * time.Hour), ago(5*time.Hour + time.Second), false},
		{"event before the note of its call", ago(99 * time.Hour), ago(5 * time.Hour), ago(5*time.Hour - time.Second), false},
		{"new and just sent", ago(time.Minute), time.Time{}, ago(0), false},
		{"sends for an hour and never heard", ago(99 * time.Hour), time.Time{}, ago(0), true},
		{"sent an hour ago and never heard", ago(2 * time.Hour), time.Time{}, ago(time.Hour), true},
		{"sends on, but hears no more", ago(99 * time.Hour), ago(61 * time.Minute), ago(0), true},
		{"hears no more for a while", ago(99 * time.Hour), ago(30 * time.Minute), ago(0), false},
	} {
		h := record.HookHealth{LastEvent: tc.event, LastSent: tc.sent}
		if got := silent(&h, tc.created, now); got != tc.want {
			t.Errorf("%s: silent = %t, want %t", tc.name, got, tc.want)
		}
	}
}

func TestRegistrationIsStoredAndFinished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := &fakeRegistrar{made: []provider.Registration{
			{Again: true, Done: []string{"password made"}, Secrets: map[string]string{"webhook_key": "fresh"}},
			{Done: []string{"webhook made"}, Steps: []string{"look at it"}, Settings: map[string]any{"webhook_public_keys": []string{"k"}}},
		}}
		hooks := inputHooks(1)
		hooks.set("ses", &fakeParser{secret: "old"})
		r := newRig(t, withHooks(hooks), func(o *Options) {
			o.Registrars, o.Now, o.PublicURL = reg, time.Now, "https://send.example.com/base"
		})
		defer r.server.Close()
		sesAccount(t, r)
		go func() { // the engine reads the new configuration a while later
			time.Sleep(2 * time.Second)
			hooks.set("ses", &fakeParser{secret: "new"})
		}()
		got, err := r.client(r.admin).RegisterWebhooks(t.Context(), "ses", api.AccountWebhooksRequest{URL: "https://send.example.com/base/"})
		if err != nil {
			t.Fatal(err)
		}
		want := &api.AccountWebhooksResult{
			URL: "https://send.example.com/base/hooks/ses", Done: []string{"password made", "webhook made"}, Steps: []string{"look at it"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{want.URL, want.URL}, reg.urls); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		a := r.store.config.Account("ses")
		if got := string(a.Settings); got != `{"number":12345678901234567890,"region":"eu-west-1","webhook_public_keys":["k"]}` {
			t.Errorf("settings = %s", got)
		}
		if r.store.secrets["ses"]["webhook_key"].Reveal() != "fresh" || r.store.secrets["ses"]["api_key"].Reveal() != "good" {
			t.Error("the secrets are not the old ones and the new one")
		}
	})
}

func TestRegistrationFailures(t *testing.T) {
	t.Parallel()
	again := []provider.Registration{{Again: true, Secrets: map[string]string{"webhook_key": "fresh"}}}
	for name, tc := range map[string]struct {
		reg     *fakeRegistrar
		account string
		status  string
	}{
		"no API":              {&fakeRegistrar{}, "other", "409 no_registration"},
		"no account":          {&fakeRegistrar{}, "nobody", "404 not_found"},
		"provider refuses":    {&fakeRegistrar{err: &provider.Error{Class: provider.Misconfigured, Status: 401, Detail: "bad key"}}, "ses", "502 provider_refused"},
		"our mistake":         {&fakeRegistrar{err: errors.New("oops")}, "ses", "500 internal"},
		"never in force":      {&fakeRegistrar{made: again}, "ses", "503 unavailable"},
		"settings not usable": {&fakeRegistrar{made: []provider.Registration{{Settings: map[string]any{"region": ""}}}}, "ses", "422 invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(o *Options) { o.Registrars, o.Now, o.PublicURL = tc.reg, time.Now, "http://127.0.0.1:8025" })
				defer r.server.Close()
				sesAccount(t, r)
				if _, err := r.client(r.admin).CreateAccount(t.Context(), api.AccountRequest{Name: "other", Kind: "ses", Settings: []byte(`{"region":"x"}`), Secrets: map[string]string{"api_key": "good"}}); err != nil {
					t.Fatal(err)
				}
				_, err := r.client(r.admin).RegisterWebhooks(t.Context(), tc.account, api.AccountWebhooksRequest{URL: "http://127.0.0.1:8025"})
				if code(err) != tc.status {
					t.Errorf("error = %v, want %s", err, tc.status)
				}
				if tc.status == "502 provider_refused" && !strings.Contains(err.Error(), "bad key") {
					t.Errorf("the provider's words are lost: %v", err)
				}
			})
		})
	}
}

func TestRegistrationTakesAGoodURL(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"https://send.example.com": "https://send.example.com", "https://send.example.com/": "https://send.example.com",
		"https://h:8443/x": "https://h:8443/x", "http://localhost:1": "http://localhost:1", "http://[::1]:1/": "http://[::1]:1",
		"http://send.example.com": "", "ftp://h": "", "": "", "https://": "", "https://u:p@h": "", "https://h/?x": "", "https://h/#x": "",
		"https:h": "", "https://h/\x00": "", "https://" + strings.Repeat("h", maxURL): "", "http://127.0.0.1.example.com": "",
	} {
		got, err := hookBase(raw)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("hookBase(%q) = %q, %v, want %q", raw, got, err, want)
		}
	}
}

func TestReprojectGoesPageByPage(t *testing.T) {
	t.Parallel()
	hooks := inputHooks(1)
	hooks.set("ses", madeUp)
	r := newRig(t, withHooks(hooks))
	sesAccount(t, r)
	for i := range 5 {
		account := "ses"
		if i == 3 {
			account = "gone" // no adapter reads it any more
		}
		r.store.raw = append(r.store.raw, record.RawEvent{Origin: mail.NewID(), Account: account, Raw: fmt.Appendf(nil, "bounced a%d@example.org\nopened a@example.org", i)})
	}
	c := r.client(r.admin)
	var sum api.ReprojectResult
	in := api.ReprojectRequest{Limit: 2}
	for range 4 {
		page, err := c.Reproject(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		sum.Payloads, sum.Events, sum.Changed = sum.Payloads+page.Payloads, sum.Events+page.Events, sum.Changed+page.Changed
		if in.Cursor = page.Cursor; in.Cursor == "" {
			break
		}
	}
	if diff := cmp.Diff(api.ReprojectResult{Payloads: 5, Events: 8, Changed: 4}, sum); diff != "" {
		t.Errorf("sum of pages (-want +got):\n%s", diff)
	}
	if got := r.store.reprojected[3]; got.Origin != r.store.raw[4].Origin || got.Events[0].Recipient != "a4@example.org" {
		t.Errorf("last payload = %+v", got)
	}
	first, err := c.Reproject(t.Context(), api.ReprojectRequest{Limit: 1, DryRun: true, Account: "ses"})
	if err != nil || r.store.dryRuns != 1 || first.Payloads != 1 {
		t.Errorf("dry run = %+v, %v", first, err)
	}
	if _, err := c.Reproject(t.Context(), api.ReprojectRequest{Limit: 1, Cursor: first.Cursor}); code(err) != "400 invalid_cursor" {
		t.Errorf("cursor of another account = %v", err)
	}
	for body, status := range map[string]int{
		`{"limit":1001}`: 422, `{"limit":-1}`: 422, `{"account":"sess"}`: 422, `{"cursor":"x"}`: 400, `{"since":"now"}`: 422,
	} {
		if a := r.do("POST", "/admin/v1/events/reproject", r.admin, body); a.status != status {
			t.Errorf("%s = %d %s, want %d", body, a.status, a.body, status)
		}
	}
	if got, err := c.Reproject(t.Context(), api.ReprojectRequest{Since: time.Now().Add(time.Hour)}); err != nil || got.Payloads != 0 {
		t.Errorf("since later = %+v, %v", got, err)
	}
}
