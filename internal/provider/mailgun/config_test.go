package mailgun

import (
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

func key() map[string]seal.Secret {
	return map[string]seal.Secret{"api_key": seal.NewSecret("key-canary")}
}

func TestBaseURLByRegion(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{"domain":"mg.example.com"}`:                                                    "https://api.mailgun.net/v3",
		`{"domain":"mg.example.com","region":"us"}`:                                      "https://api.mailgun.net/v3",
		`{"domain":"mg.example.com","region":"eu"}`:                                      "https://api.eu.mailgun.net/v3",
		`{"domain":"mg.example.com","base_url":"https://api.eu.mailgun.net"}`:            "https://api.eu.mailgun.net/v3",
		`{"domain":"mg.example.com","base_url":"https://api.eu.mailgun.net/v3/"}`:        "https://api.eu.mailgun.net/v3",
		`{"domain":"mg.example.com","base_url":"http://127.0.0.1:8025/mailgun"}`:         "http://127.0.0.1:8025/mailgun/v3",
		`{"domain":"sandbox-1.mailgun.org","base_url":"http://127.0.0.1:8025/mailgun/"}`: "http://127.0.0.1:8025/mailgun/v3",
	} {
		c, err := ParseConfig([]byte(raw), key())
		if err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		if got := c.apiBase(); got != want {
			t.Errorf("%s: base = %s, want %s", raw, got, want)
		}
	}
}

func TestParseConfigRefuses(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		`{}`:                                   "domain",
		`{"domain":"mg.example.com/messages"}`: "domain",
		`{"domain":"mg.example.com/../other.example.com"}`:                         "domain",
		`{"domain":"mg.example.com?x"}`:                                            "domain",
		`{"domain":"mg.example.com%2f"}`:                                           "domain",
		`{"domain":"mg example.com"}`:                                              "domain",
		`{"domain":"mg..example.com"}`:                                             "domain",
		`{"domain":"-mg.example.com"}`:                                             "domain",
		`{"domain":"mgexample"}`:                                                   "domain",
		`{"domain":"mg.exämple.com"}`:                                              "domain",
		`{"domain":"mg.example.com","base_url":"ftp://x"}`:                         "base_url",
		`{"domain":"mg.example.com","region":"asia"}`:                              "region",
		`{"domain":"mg.example.com","region":"eu","base_url":"https://x.example"}`: "region",
		`{"domain":"mg.example.com","subaccount":"a b"}`:                           "subaccount",
		`{"domain":"mg.example.com","concurrency":-1}`:                             "concurrency",
		`{"domain":"mg.example.com","dommain":"x"}`:                                "dommain",
	} {
		if _, err := ParseConfig([]byte(raw), key()); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: err = %v, want one about %s", raw, err, want)
		}
	}
	if _, err := ParseConfig([]byte(`{"domain":"mg.example.com"}`), nil); err == nil {
		t.Error("no key was taken")
	}
	if _, err := ParseConfig([]byte(`{"domain":"mg.example.com"}`), map[string]seal.Secret{"api_key": seal.NewSecret("a\nb")}); err == nil {
		t.Error("a key with a line break was taken")
	}
}

func TestMentionsFindsWholeAddressesOnly(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"ann@example.org":                   true,
		"<ANN@Example.org> is bad":          true,
		"'ann@example.org', and others":     true,
		"bad: ann@example.org.":             true,
		"joann@example.org":                 false,
		"x.ann@example.org":                 false,
		"x+ann@example.org":                 false,
		"ann@example.org.uk":                false,
		"ann@example.orgx":                  false,
		"joann@example.org ann@example.org": true,
		"":                                  false,
	} {
		if got := mentions(text, "ann@example.org"); got != want {
			t.Errorf("mentions(%q) = %t, want %t", text, got, want)
		}
	}
}

// FuzzVerdict checks that the reader of answers never panics, and that only one kind of answer is an acceptance.
func FuzzVerdict(f *testing.F) {
	f.Add(200, `{"id":"<a@b>","message":"Queued"}`)
	f.Add(400, `{"message":"ann@example.org is not a valid address"}`)
	f.Add(429, `{"message":"try again after Mon, 23 Nov 2026 10:00:00 UTC"}`)
	f.Add(200, "Mailgun Magnificent API")
	f.Fuzz(func(t *testing.T, status int, body string) {
		send := &provider.Send{To: []mail.Address{{Email: "ann@example.org"}}}
		receipt, perr := answer{status: status, body: []byte(body)}.verdict(send, mail.ID{}.Time())
		switch {
		case perr == nil && (status/100 != 2 || receipt.ProviderMessageID == "" || strings.ContainsAny(receipt.ProviderMessageID[:1], "<>")):
			t.Errorf("%d %q was accepted as %q", status, body, receipt.ProviderMessageID)
		case perr != nil && (perr.Class == "" || perr.Class == provider.Accepted):
			t.Errorf("%d %q = %q", status, body, perr.Class)
		case perr != nil && status >= 500 && perr.Class != provider.Uncertain:
			t.Errorf("%d %q = %s, want uncertain", status, body, perr.Class)
		}
	})
}
