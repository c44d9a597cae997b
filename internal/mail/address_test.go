package mail

import (
	"errors"
	netmail "net/mail"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// codes lists "field code" of each mistake, or gives "" for no error.
func codes(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var bad *Invalid
	if !errors.As(err, &bad) {
		t.Fatalf("error %T, want *Invalid", err)
	}
	var all []string
	for _, f := range bad.Fields {
		if f.Message == "" {
			t.Errorf("field %s has no message", f.Field)
		}
		all = append(all, f.Field+" "+f.Code)
	}
	return strings.Join(all, ", ")
}

func TestParseAddressGivesTheCanonicalForm(t *testing.T) {
	t.Parallel()
	label := strings.Repeat("a", 63)
	tests := map[string]string{
		"ann@example.org":                 "ann@example.org",
		"Ann.B+c@EXAMPLE.Org":             "Ann.B+c@example.org",
		"!#$%&'*+-/=?^_`{|}~@a.co":        "!#$%&'*+-/=?^_`{|}~@a.co",
		"a@exämple.com":                   "a@xn--exmple-cua.com",
		"a@EXÄMPLE.com":                   "a@xn--exmple-cua.com",
		"a@xn--exmple-cua.com":            "a@xn--exmple-cua.com",
		"a@straße.de":                     "a@xn--strae-oqa.de", // IDNA2008 keeps ß
		"a@例え.jp":                         "a@xn--r8jz45g.jp",
		"a@例え。jp":                         "a@xn--r8jz45g.jp",
		"jöhn@example.com":                "jöhn@example.com",
		"a@1.example.co":                  "a@1.example.co",
		"a@" + label + ".com":             "a@" + label + ".com",
		strings.Repeat("l", 64) + "@a.co": strings.Repeat("l", 64) + "@a.co",
	}
	for in, want := range tests {
		t.Run(in, func(t *testing.T) {
			t.Parallel()
			got, err := ParseAddress(in)
			if err != nil {
				t.Fatalf("ParseAddress(%q): %v", in, err)
			}
			if diff := cmp.Diff(Address{Email: want}, got); diff != "" {
				t.Errorf("ParseAddress(%q) (-want +got):\n%s", in, diff)
			}
			if got.NeedsSMTPUTF8() != strings.Contains(got.Local(), "ö") {
				t.Errorf("NeedsSMTPUTF8(%q) = %t", got.Email, got.NeedsSMTPUTF8())
			}
		})
	}
}

func TestParseAddressRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"":                                      "required",
		"ann":                                   "invalid_address",
		"a@b":                                   "domain_not_fqdn",
		"a@":                                    "invalid_domain",
		"@b.com":                                "invalid_local_part",
		"a@b..com":                              "invalid_domain",
		"a@.b.com":                              "invalid_domain",
		"a@b.com.":                              "invalid_domain",
		"a@-b.com":                              "invalid_domain",
		"a@b-.com":                              "invalid_domain",
		"a@b_c.com":                             "invalid_domain",
		"a@b c.com":                             "invalid_domain",
		"a@127.0.0.1":                           "domain_not_fqdn",
		"a@xn--a.com":                           "invalid_domain",
		"a@ab--cd.com":                          "invalid_domain",
		"user@[127.0.0.1]":                      "domain_literal",
		"user@[IPv6:::1]":                       "domain_literal",
		`"foo"@t.com`:                           "quoted_local_part",
		`"foo@x> ORCPT=evil@y"@t.com`:           "bare_address_expected",
		"Ann <a@b.com>":                         "bare_address_expected",
		"<a@b.com>":                             "bare_address_expected",
		"a@b.com,c@d.com":                       "single_address_expected",
		"a@b.com;c@d.com":                       "single_address_expected",
		"a@b@c.com":                             "invalid_address",
		"ann@@example.org":                      "invalid_address",
		"G: a@b.com;":                           "single_address_expected",
		"@relay.com:a@b.com":                    "invalid_address",
		"a(comment)@b.com":                      "invalid_local_part",
		"a@b.com(comment)":                      "invalid_domain",
		" a@b.com":                              "invalid_local_part",
		"a@b.com ":                              "invalid_domain",
		"a b@c.com":                             "invalid_local_part",
		".a@b.com":                              "invalid_local_part",
		"a.@b.com":                              "invalid_local_part",
		"a..b@c.com":                            "invalid_local_part",
		`a\b@c.com`:                             "invalid_local_part",
		"=?utf-8?q?a=40b?=@host.com":            "invalid_local_part",
		"a@b.com\r\nBcc: c@d.com":               "control_char",
		"a\x00@b.com":                           "control_char",
		"a\t@b.com":                             "control_char",
		"a\u0085@b.com":                         "control_char",
		"a\u2028@b.com":                         "control_char",
		"a@ex\u200bample.com":                   "invisible_char",
		"a@ex\u00adample.com":                   "invisible_char",
		"a\u202eb@c.com":                        "invisible_char",
		"a\u200db@c.com":                        "invisible_char",
		"a@b\ufeff.com":                         "invisible_char",
		"a\xff@b.com":                           "invalid_utf8",
		"jo\u0308hn@example.com":                "invalid_local_part", // not in NFC
		"a\u3000b@c.com":                        "invalid_local_part",
		"a@b／c.com":                             "invalid_domain",
		strings.Repeat("l", 65) + "@a.co":       "local_part_too_long",
		"a@" + strings.Repeat("a", 64) + ".com": "label_too_long",
		"a@" + strings.Repeat(strings.Repeat("a", 49)+".", 5) + "comm": "domain_too_long", // 254 bytes
		"a@" + strings.Repeat("a.", 126) + "co":                        "domain_too_long",
		strings.Repeat("a", 1<<20):                                     "address_too_long",
		strings.Repeat("(", 10_000):                                    "address_too_long",
	}
	for in, want := range tests {
		t.Run(in[:min(len(in), 60)], func(t *testing.T) {
			t.Parallel()
			_, err := ParseAddress(in)
			if got := codes(t, err); got != "email "+want {
				t.Errorf("ParseAddress(%.80q) = %q, want %q", in, got, "email "+want)
			}
		})
	}
}

func TestParseAddressCapsAtTheBytesOfAPath(t *testing.T) {
	t.Parallel()
	domain := strings.Repeat(strings.Repeat("a", 62)+".", 3) + "com" // 192 bytes
	if _, err := ParseAddress(strings.Repeat("l", 61) + "@" + domain); err != nil {
		t.Errorf("address of 254 bytes: %v", err)
	}
	_, err := ParseAddress(strings.Repeat("l", 62) + "@" + domain)
	if got := codes(t, err); got != "email address_too_long" {
		t.Errorf("address of 255 bytes = %q, want address_too_long", got)
	}
}

func TestParseMailbox(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		want Address
		err  string
	}{
		"ann@example.org":                          {want: Address{Email: "ann@example.org"}},
		"Ann <ann@example.org>":                    {want: Address{Email: "ann@example.org", Name: "Ann"}},
		"<ann@Example.org>":                        {want: Address{Email: "ann@example.org"}},
		"Ann B. O'Hara  <a@b.co>":                  {want: Address{Email: "a@b.co", Name: "Ann B. O'Hara"}},
		`"Hara, Ann" <a@b.co>`:                     {want: Address{Email: "a@b.co", Name: "Hara, Ann"}},
		`"Ann \"the\" \\" <a@b.co>`:                {want: Address{Email: "a@b.co", Name: `Ann "the" \`}},
		"Änn Ö <a@b.co>":                           {want: Address{Email: "a@b.co", Name: "Änn Ö"}},
		`"<x@y.co>" <a@b.co>`:                      {want: Address{Email: "a@b.co", Name: "<x@y.co>"}},
		"👩\u200d💻 <a@b.co>":                        {want: Address{Email: "a@b.co", Name: "👩\u200d💻"}},
		"Hara, Ann <a@b.co>":                       {err: "name single_address_expected"},
		"x@y.co, Ann <a@b.co>":                     {err: "name single_address_expected"},
		"G: Ann <a@b.co>;":                         {err: "email invalid_address"},
		"Ann <x@y.co> <a@b.co>":                    {err: "name invalid_name"},
		"x@y.co <a@b.co>":                          {err: "name invalid_name"},
		`"Ann" B <a@b.co>`:                         {err: "name invalid_name"},
		`"Ann" "B" <a@b.co>`:                       {err: "name invalid_name"},
		`"Ann\" <a@b.co>`:                          {err: "name invalid_name"},
		"Ann <a@b.co> x":                           {err: "email invalid_address"},
		"Ann <a@b>":                                {err: "email domain_not_fqdn"},
		"Ann <>":                                   {err: "email required"},
		"Ann\u202e <a@b.co>":                       {err: "name invisible_char"},
		"Ann\u200b <a@b.co>":                       {err: "name invisible_char"},
		"Ann\r\nBcc: x@y.co <a@b.co>":              {err: "name single_address_expected"},
		"\"Ann\r\nB\" <a@b.co>":                    {err: "name control_char"},
		`"foo@x> ORCPT=evil@y"@t.com`:              {err: "email bare_address_expected"},
		"<a@b.com\r\nBcc: c@d.com":                 {err: "email control_char"},
		strings.Repeat("n", 256) + " <a@b.co>":     {err: "name name_too_long"},
		strings.Repeat("a ", 200_000) + "<a@b.co>": {err: "email address_too_long"},
	}
	for in, tt := range tests {
		t.Run(in[:min(len(in), 60)], func(t *testing.T) {
			t.Parallel()
			got, err := ParseMailbox(in)
			if c := codes(t, err); c != tt.err {
				t.Fatalf("ParseMailbox(%.80q) error = %q, want %q", in, c, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("ParseMailbox(%.80q) (-want +got):\n%s", in, diff)
			}
		})
	}
}

// The time for Punycode grows with the square of a label's length (RFC 3492 section 6.3). If labels were encoded before they
// are measured, this test would take many minutes.
func TestLongLabelIsRefusedBeforeItIsEncoded(t *testing.T) {
	t.Parallel()
	var label strings.Builder
	for i := range rune(1 << 20) {
		label.WriteRune('\u4e00' + i*7919%20_000)
	}
	if _, f := parseDomain(label.String() + ".com"); f == nil || f.code != "label_too_long" {
		t.Errorf("label of a million characters: %+v, want label_too_long", f)
	}
}

// Decomposed characters count as their composed form.
func TestDecomposedLabelIsMeasuredComposed(t *testing.T) {
	t.Parallel()
	if got, err := ParseDomain(strings.Repeat("e\u0301", 40) + ".com"); err != nil || !strings.HasPrefix(got, "xn--") {
		t.Errorf("ParseDomain of 40 characters in 80 = %q, %v", got, err)
	}
}

func TestParseDomain(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ want, err string }{
		"Example.ORG":               {want: "example.org"},
		"exämple.com":               {want: "xn--exmple-cua.com"},
		"localhost":                 {err: "domain domain_not_fqdn"},
		"example.org.":              {err: "domain invalid_domain"},
		"ex\u200bample.org":         {err: "domain invisible_char"},
		"":                          {err: "domain invalid_domain"},
		strings.Repeat("a.", 1<<19): {err: "domain domain_too_long"},
	}
	for in, tt := range tests {
		t.Run(in[:min(len(in), 40)], func(t *testing.T) {
			t.Parallel()
			got, err := ParseDomain(in)
			if c := codes(t, err); c != tt.err || err == nil && got != tt.want {
				t.Errorf("ParseDomain(%.40q) = %q, %q; want %q, %q", in, got, c, tt.want, tt.err)
			}
		})
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"ann@example.org", "jöhn@exämple.com", "a@例え。jp", `"x"@y.co`, "a@xn--exmple-cua.com", "=?u?q?a?=@b.co", "Ann <a@b.co>",
		"a@b\u200c.ir", "a@\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.com", `"A, B" <a@b.co>`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if m, err := ParseMailbox(s); err == nil {
			again, f := cleanName(m.Name)
			if f != nil || again != m.Name || !utf8.ValidString(m.Name) {
				t.Fatalf("name %q of %q is not canonical", m.Name, s)
			}
		}
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		again, err := ParseAddress(a.Email)
		if err != nil || again != a {
			t.Fatalf("ParseAddress(%q) = %q, which parses to %q, %v", s, a.Email, again.Email, err)
		}
		if len(a.Email) > maxAddress || strings.ContainsAny(a.Email, "<>\" \r\n\x00,;:\\()[]") || !isASCII(a.Domain()) {
			t.Fatalf("ParseAddress(%q) = %q: not a canonical address", s, a.Email)
		}
		std, err := netmail.ParseAddress(a.Email)
		if err != nil || std.Address != a.Email || std.Name != "" {
			t.Fatalf("net/mail reads %q as %v, %v", a.Email, std, err)
		}
	})
}
