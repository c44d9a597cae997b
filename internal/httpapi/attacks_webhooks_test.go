package httpapi

import (
	"net/http/httptest"
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/provider"
)

// An admin key names a thief's address, so that the provider would send it the webhook password.
func TestARegistrationBringsNoPasswordElsewhere(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		public, url string
		taken       bool
	}{
		{"https://send.example.com", "https://send.example.com", true},
		{"https://send.example.com/mail", "https://SEND.example.com/mail", true},
		{"https://send.example.com", "https://thief.example", false},
		{"https://send.example.com", "https://send.example.com.thief.example", false},
		{"https://send.example.com", "https://send.example.com:8443", false},
		{"https://send.example.com", "https://send.example.com:443", true},
		{"https://send.example.com", "http://127.0.0.1:9", false},
		{"https://send.example.com", "https://send.example.com@thief.example", false},
		{"http://127.0.0.1:8025", "http://127.0.0.1:8025", true},
		{"http://127.0.0.1:8025", "http://127.0.0.1:9", false},
		{"", "https://send.example.com", false}, // nobody knows whose it is
		{"", "http://127.0.0.1:9", false},
	} {
		reg := &fakeRegistrar{made: []provider.Registration{{Done: []string{"webhook made"}}}}
		r := newRig(t, func(o *Options) { o.Registrars, o.PublicURL = reg, tc.public })
		sesAccount(t, r)
		_, err := r.client(r.admin).RegisterWebhooks(t.Context(), "ses", api.AccountWebhooksRequest{URL: tc.url})
		if tc.taken && err != nil || !tc.taken && code(err) != "422 invalid" {
			t.Errorf("at %q, for %q: %v", tc.public, tc.url, err)
		}
		if called := len(reg.urls) > 0; called != tc.taken {
			t.Errorf("at %q, for %q: the provider was told: %v", tc.public, tc.url, called)
		}
	}
}

// Where emulators run beside the service, its own port needs no SENDGATE_PUBLIC_URL.
func TestARegistrationAtTheOwnPortNeedsNoPublicURL(t *testing.T) {
	t.Parallel()
	reg := &fakeRegistrar{made: []provider.Registration{{Done: []string{"webhook made"}}, {Done: []string{"webhook made"}}}}
	r := newRig(t, func(o *Options) { o.Registrars = reg })
	sesAccount(t, r)
	srv := httptest.NewServer(r.server.Handler())
	defer srv.Close()
	for target, want := range map[string]string{srv.URL: "", "http://127.0.0.1:9": "422 invalid"} {
		c, err := api.New(srv.URL, r.admin)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.RegisterWebhooks(t.Context(), "ses", api.AccountWebhooksRequest{URL: target}); err == nil && want != "" || err != nil && code(err) != want {
			t.Errorf("%s: %v, want %q", target, err, want)
		}
	}
}
