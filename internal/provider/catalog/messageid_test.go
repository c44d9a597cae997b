package catalog

import (
	"testing"

	"github.com/sendgate/sendgate/internal/provider"
)

func TestMessageIDHeader(t *testing.T) {
	t.Parallel()
	const ours = "0199c0de-0000-7000-8000-000000000001@example.com"
	tried := map[provider.Kind]bool{}
	for _, tc := range []struct {
		kind               provider.Kind
		settings, id, want string
	}{
		{"sendgrid", `{}`, "14c5d75ce93", "<" + ours + ">"},
		{"mailgun", `{}`, ours, "<" + ours + ">"},
		{"postmark", `{}`, "b7bc2f4a", "<" + ours + ">"}, // which is asked with X-PM-KeepID
		{"resend", `{}`, "49a3999c", ""},                 // which says nowhere which one it sets
		{"smtp", `{}`, "4QX1", "<" + ours + ">"},
		{"ses", `{"region":"eu-west-1"}`, "0102018d-aa", "<0102018d-aa@eu-west-1.amazonses.com>"},
		{"ses", `{"region":"us-east-1"}`, "0100018d-aa", "<0100018d-aa@email.amazonses.com>"},
		{"ses", `{"region":"eu-west-1"}`, "", ""}, // its answer was lost
		{"ses", ``, "0102018d-aa", ""},            // the account is gone
	} {
		tried[tc.kind] = true
		got := Catalog{}.MessageIDHeader(tc.kind, func() []byte { return []byte(tc.settings) }, ours, tc.id)
		if got != tc.want {
			t.Errorf("%s %s %q: %q, want %q", tc.kind, tc.settings, tc.id, got, tc.want)
		}
	}
	whole(t, "of TestMessageIDHeader", tried)
}
