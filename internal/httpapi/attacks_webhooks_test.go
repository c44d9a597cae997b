package httpapi

import (
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/provider"
)

// An admin key has the provider call an address of a thief's, and bring along the password that it gives to ours.
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
		{"", "https://send.example.com", false}, // nobody knows whose it is
		{"", "http://127.0.0.1:8025", true},     // where emulators are
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
