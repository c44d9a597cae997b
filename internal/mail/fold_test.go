package mail

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

func TestFoldAddressGivesOneFormToOneAddress(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		want    string
		written []string
	}{
		{"ann@example.org", []string{"ann@example.org", "Ann@example.org", "ANN@EXAMPLE.ORG", "ann@Example.Org", "ann@example.org."}},
		{"a.b+c@example.org", []string{"A.B+C@example.org"}},
		{"ann@xn--mnchen-3ya.de", []string{"ann@münchen.de", "ANN@MÜNCHEN.DE", "Ann@XN--MNCHEN-3YA.DE", "ann@mu\u0308nchen.de", "ann@münchen。de"}},
		{"änn@example.org", []string{"änn@example.org", "ÄNN@example.org", "Änn@Example.org", "A\u0308nn@example.org"}},
		{"σοφοσ@example.org", []string{"ΣΟΦΟΣ@example.org", "σοφος@example.org"}},
		{"иван@xn--e1afmkfd.xn--p1ai", []string{"ИВАН@ПРИМЕР.РФ", "иван@пример.рф"}},
		{"ǆ@example.org", []string{"Ǆ@example.org", "ǅ@example.org"}},
		{"ann@host", []string{"Ann@HOST", "ANN@host"}}, // no domain of ours, yet it compares
		{"x400;c=de", []string{"X400;C=DE"}},
		{"", []string{""}},
	} {
		for _, s := range append(tc.written, tc.want) {
			if got := FoldAddress(s); got != tc.want {
				t.Errorf("FoldAddress(%q) = %q, want %q", s, got, tc.want)
			}
		}
	}
}

func TestFoldAddressKeepsApartWhatDiffersInMoreThanCase(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]string{
		{"strasse@example.org", "straße@example.org"},
		{"ilker@example.org", "ılker@example.org"},
		{"ann@example.org", "änn@example.org"},
		{"ann@example.org", "ann@example.com"},
		{"a.nn@example.org", "ann@example.org"},
		{"ann+x@example.org", "ann@example.org"},
		{"ann@straße.de", "ann@strasse.de"},
		{"İ@example.org", "i@example.org"},
	} {
		if FoldAddress(pair[0]) == FoldAddress(pair[1]) {
			t.Errorf("%s and %s are two mailboxes, and both fold to %s", pair[0], pair[1], FoldAddress(pair[0]))
		}
	}
}

// Characters that differ only in case for Unicode get the same folded form, and folding that form changes nothing.
func TestFoldRuneAgreesWithUnicode(t *testing.T) {
	t.Parallel()
	for r := rune(0); r <= unicode.MaxRune; r++ {
		f := foldRune(r)
		if foldRune(f) != f || !strings.EqualFold(string(f), string(r)) {
			t.Errorf("foldRune(%q) = %q", r, f)
		}
		if c := unicode.SimpleFold(r); foldRune(c) != f {
			t.Errorf("foldRune(%q) = %q and foldRune(%q) = %q", r, f, c, foldRune(c))
		}
	}
}

func FuzzFoldAddress(f *testing.F) {
	for _, s := range []string{"ann@example.org", "ÄNN@MÜNCHEN.DE", "a@b@c", "@", "ς@xn--", "\xff@example.org", "K@example.org"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := FoldAddress(s)
		if twice := FoldAddress(once); twice != once {
			t.Errorf("FoldAddress(%q) = %q, and of that %q", s, once, twice)
		}
	})
}

func TestRecipientsThatDifferInCaseAreOne(t *testing.T) {
	t.Parallel()
	d := &Draft{
		From: Mailbox{Email: "shop@example.com"}, Text: "x",
		To:      []Mailbox{{Email: "Ann@Example.org", Name: "Ann"}, {Email: "ann@example.org"}, {Text: "Bob <BOB@münchen.de>"}},
		Cc:      []Mailbox{{Email: "ANN@example.org"}, {Email: "bob@xn--mnchen-3ya.de"}, {Email: "Änn@example.org"}},
		Bcc:     []Mailbox{{Email: "änn@EXAMPLE.org"}, {Email: "cy@example.org"}, {Email: "CY@example.org"}},
		ReplyTo: []Mailbox{{Email: "Shop@example.com"}, {Email: "shop@example.com"}},
	}
	m, err := d.Message(time.Now(), DefaultCaps())
	if err != nil {
		t.Fatal(err)
	}
	emails := func(as []Address) (out []string) {
		for _, a := range as {
			out = append(out, a.Email)
		}
		return out
	}
	got := [][]string{emails(m.To), emails(m.Cc), emails(m.Bcc), emails(m.ReplyTo)}
	want := [][]string{{"Ann@example.org", "BOB@xn--mnchen-3ya.de"}, {"Änn@example.org"}, {"cy@example.org"}, {"Shop@example.com"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("recipients in the first spelling of each (-want +got):\n%s", diff)
	}
}
