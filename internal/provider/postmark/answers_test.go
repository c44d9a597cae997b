package postmark

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestEveryCodeHasAReason(t *testing.T) {
	t.Parallel()
	for _, c := range codes() {
		if c.why == "" || c.class == provider.Accepted || !slices.Contains(provider.Classes(), c.class) {
			t.Errorf("row %d %q is incomplete", c.number, c.text)
		}
	}
}

func TestNamedFindsWholeAddressesOnly(t *testing.T) {
	t.Parallel()
	s := &provider.Send{To: []mail.Address{
		{Email: "Bob@x.test"}, {Email: "brien@x.test"}, {Email: "o'brien@x.test"}, {Email: "bob@x.test.example"}, {Email: "j.bob@x.test"},
	}}
	for text, want := range map[string][]string{
		"":                                       nil,
		"bob@x.test":                             {"Bob@x.test"},
		"Invalid 'To' address: 'BOB@X.TEST'.":    {"Bob@x.test"},
		"about o'brien@x.test, nobody else":      {"o'brien@x.test"},
		"o'brien@x.test and brien@x.test":        {"brien@x.test", "o'brien@x.test"},
		"bob@x.test.example.":                    {"bob@x.test.example"},
		"j.bob@x.test":                           {"j.bob@x.test"},
		"xbob@x.test bob@x.testing bob@x.test-1": nil,
		"<bob@x.test>":                           {"Bob@x.test"},
		"from brien@x.test. Found inactive addresses: bob@x.test.\nInactive recipients are like j.bob@x.test": {"Bob@x.test"},
	} {
		if diff := cmp.Diff(want, named(text, s), cmp.Transformer("nil", func(in []string) []string { return append([]string{}, in...) })); diff != "" {
			t.Errorf("named(%q) (-want +got):\n%s", text, diff)
		}
	}
}

// FuzzVerdict checks that no answer makes a panic, an acceptance out of anything but a 200, or a refusal of somebody we did
// not send to.
func FuzzVerdict(f *testing.F) {
	f.Add(200, "", `{"MessageID":"0a129aee","ErrorCode":0,"Message":"OK"}`)
	f.Add(200, "", `{"MessageID":"0a129aee","ErrorCode":0,"Message":"Message OK, but will not deliver to these inactive addresses: ann@example.org. Inactive recipients are"}`)
	f.Add(200, "0", `not json`)
	f.Add(422, "406", `{"ErrorCode":406,"Message":"Found inactive addresses: ann@example.org, bob@example.org."}`)
	f.Add(422, "", `{"ErrorCode":300,"Message":"Invalid 'To' address: 'bob@example.org'."}`)
	f.Add(403, "", `<html>`)
	f.Add(500, "101", `{"ErrorCode":101}`)
	c, err := New(Config{ServerToken: seal.NewSecret("token")})
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(1_790_000_000, 0)
	f.Fuzz(func(t *testing.T, status int, code, body string) {
		s := providertest.Samples()[2].Send
		a := answer{Status: status, Header: http.Header{}, Body: []byte(body)}
		a.Header.Set("X-PM-ApiErrorCode", code)
		r, err := c.judge(a, s, now)
		refused := r.Refused
		if err == nil {
			if status != http.StatusOK || len(r.Detail) > provider.MaxDetail || len(r.ProviderMessageID) > provider.MaxDetail {
				t.Fatalf("status %d was accepted as %+v", status, r)
			}
		} else {
			perr := providertest.AsError(t, err)
			refused = perr.Refused
			if !slices.Contains(provider.Classes(), perr.Class) || perr.Class == provider.Accepted || perr.RetryAfter < 0 || len(perr.Detail) > provider.MaxDetail {
				t.Fatalf("verdict = %+v", perr)
			}
			if (perr.Class == provider.BadRecipient) != (len(refused) > 0) {
				t.Fatalf("class %s with %d refused", perr.Class, len(refused))
			}
		}
		for _, refusal := range refused {
			if !slices.ContainsFunc(s.Envelope(), func(a mail.Address) bool { return a.Email == refusal.Email }) {
				t.Fatalf("refused somebody else: %q", refusal.Email)
			}
		}
	})
}
