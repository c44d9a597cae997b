package esphttp_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestScrub(t *testing.T) {
	t.Parallel()
	c := esphttp.New(esphttp.Options{Secrets: []seal.Secret{
		seal.NewSecret("SG.abc"), seal.NewSecret("SG.abc.def"), seal.NewSecret("p w/d"), seal.NewSecret(""),
	}})
	for in, want := range map[string]string{
		"":                                     "",
		"plain words":                          "plain words",
		"key SG.abc.def is bad":                "key [secret] is bad",
		"SG.abcSG.abc":                         "[secret][secret]",
		"?k=p+w%2Fd":                           "?k=[secret]",
		"/p%20w%2Fd/":                          "/[secret]/",
		"cCB3L2Q= in basic auth":               "[secret] in basic auth",
		"to ann.smith@example.org: no":         "to a***@example.org: no",
		"<ann@a.test>,bob+x@b.test;'c@c.test'": "<a***@a.test>,b***@b.test;'***@c.test'",
		"žofie@example.org":                    "ž***@example.org",
		`"ann smith"@example.org`:              `"***@example.org`,
		"a***@example.org":                     "a***@example.org",
		"a@ b @c @":                            "a@ b @c @",
		"line\r\nbreak\x00":                    "line  break ",
	} {
		if got := c.Scrub(in); got != want {
			t.Errorf("Scrub(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzScrub(f *testing.F) {
	f.Add("key SG.abc of ann@example.org", "SG.abc")
	f.Add(strings.Repeat("é@x", 400), "é")
	f.Add("\xff@x", "@")
	f.Fuzz(func(t *testing.T, text, secret string) {
		if len(secret) < 4 || strings.ContainsAny(secret, "@*[]") || strings.Contains("[secret]***", secret) {
			return // could stand in the output for other reasons
		}
		got := esphttp.New(esphttp.Options{Secrets: []seal.Secret{seal.NewSecret(secret)}}).Scrub(text)
		if len(got) > provider.MaxDetail || !utf8.ValidString(got) {
			t.Errorf("Scrub(%q) = %q: too long or not UTF-8", text, got)
		}
		if utf8.ValidString(secret) && utf8.ValidString(text) && printable(secret) && printable(text) && strings.Contains(got, secret) {
			t.Errorf("Scrub(%q) = %q holds the secret %q", text, got, secret)
		}
	})
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
