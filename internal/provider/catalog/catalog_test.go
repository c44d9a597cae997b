package catalog

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

// whole returns a table of a test. It fails the test for each kind that the table lacks: otherwise a new kind would go untested.
func whole[E any](t *testing.T, name string, table map[provider.Kind]E) map[provider.Kind]E {
	t.Helper()
	for _, s := range Specs() {
		if _, ok := table[s.Kind]; !ok {
			t.Errorf("the table %s has no entry for the kind %s: add one", name, s.Kind)
		}
	}
	return table
}

// account is the content of an account.
type account struct {
	settings string
	secrets  map[string]seal.Secret
}

// good has the smallest valid account of each kind.
func good(t *testing.T) map[provider.Kind]account {
	t.Helper()
	one := func(name string) map[string]seal.Secret {
		return map[string]seal.Secret{name: seal.NewSecret("canary-value")}
	}
	return whole(t, "good in catalog_test.go", map[provider.Kind]account{
		"sendgrid": {`{}`, one("api_key")},
		"mailgun":  {`{"domain":"mg.example.com"}`, one("api_key")},
		"postmark": {`{}`, one("server_token")},
		"resend":   {`{}`, one("api_key")},
		"ses": {`{"region":"eu-west-1"}`, map[string]seal.Secret{
			"access_key_id": seal.NewSecret("AKIDcanary"), "secret_access_key": seal.NewSecret("canary-value"),
		}},
		"smtp": {`{"host":"127.0.0.1","port":2525}`, nil},
	})
}

func TestSpecsAreComplete(t *testing.T) {
	t.Parallel()
	for _, s := range Specs() {
		if s.Concurrency < 1 || s.Capabilities.MaxRecipients < 1 || s.Capabilities.MaxBytes < 1 {
			t.Errorf("spec of %s = %+v, want concurrency and caps", s.Kind, s)
		}
		if p := s.Privacy; p.Keeps == "" || p.Erase == "" || s.Kind != "smtp" && (len(p.Sources) == 0 || !strings.HasPrefix(p.Sources[0], "https://") || len(p.Read) != len("2026-01-31")) {
			t.Errorf("spec of %s says of personal data %+v, want what it keeps, how to erase it, and which page of which day says so", s.Kind, p)
		}
		if again, ok := Spec(s.Kind); !ok || !cmp.Equal(again, s) {
			t.Errorf("Spec(%s) = %+v, %v; want that of Specs", s.Kind, again, ok)
		}
	}
}

// The providers document these numbers; a change here changes how much accounts may send.
func TestDocumentedLimits(t *testing.T) {
	t.Parallel()
	want := whole(t, "want in TestDocumentedLimits", map[provider.Kind][]limit.Window{
		"sendgrid": {{N: 100, Per: 5 * time.Minute, Unit: limit.Requests}, {N: 1000, Per: time.Hour, Unit: limit.Requests}},
		"mailgun":  {{N: 2000, Per: time.Hour, Unit: limit.Messages}},
		"postmark": {{N: 10, Per: time.Second, Unit: limit.Requests}, {N: 500, Per: time.Minute, Unit: limit.Requests}},
		"resend":   {{N: 5, Per: time.Second, Unit: limit.Requests}},
		"ses": {
			{N: 14, Per: time.Second, Unit: limit.Requests},
			{N: 200, Per: time.Second, Unit: limit.Recipients},
			{N: 50_000, Per: 24 * time.Hour, Unit: limit.Recipients},
		},
		"smtp": {{N: 1000, Per: time.Minute, Unit: limit.Messages}},
	})
	for _, s := range Specs() {
		got := DocumentedLimits(s.Kind)
		if diff := cmp.Diff(want[s.Kind], got); diff != "" {
			t.Errorf("limits of %s (-want +got):\n%s", s.Kind, diff)
		}
		for _, w := range got {
			if err := w.Validate(); err != nil {
				t.Errorf("limit of %s: %v", s.Kind, err)
			}
			if w.Unit == limit.Recipients && w.N < s.Capabilities.MaxRecipients {
				t.Errorf("limit of %s: %s never admits a message of %d recipients", s.Kind, w, s.Capabilities.MaxRecipients)
			}
		}
	}
	if got := DocumentedLimits("pigeon"); got != nil {
		t.Errorf("limits of an unknown kind = %v, want none", got)
	}
	DocumentedLimits("ses")[0].N = 1
	if got := DocumentedLimits("ses")[0].N; got != 14 {
		t.Errorf("a caller's change shows in the next answer: %d", got)
	}
}

func TestNewBuildsEveryKind(t *testing.T) {
	t.Parallel()
	for kind, a := range good(t) {
		p, can, err := New(kind, []byte(a.settings), a.secrets)
		if err != nil {
			t.Errorf("New(%s): %v", kind, err)
			continue
		}
		spec, _ := Spec(kind)
		if !cmp.Equal(can, spec.Capabilities) {
			t.Errorf("New(%s) capabilities = %+v, want those of the Spec", kind, can)
		}
		if _, ok := p.(provider.EventParser); !ok {
			t.Errorf("%s reads no events: it has not the methods of provider.EventParser", kind)
		}
		if _, ok := p.(provider.Finder); ok != spec.Lookup.Works {
			t.Errorf("%s is a provider.Finder: %t, and Spec.Lookup.Works is %t", kind, ok, spec.Lookup.Works)
		}
		batch := provider.BatchSpec{}
		if b, ok := p.(provider.Batcher); ok {
			batch = b.Batch()
		}
		if batch != spec.Batch {
			t.Errorf("%s takes %+v in one call, and Spec.Batch is %+v", kind, batch, spec.Batch)
		}
		if err := p.Close(); err != nil {
			t.Errorf("Close of %s: %v", kind, err)
		}
	}
}

func TestCapabilitiesFollowTheSettings(t *testing.T) {
	t.Parallel()
	p, can, err := New("smtp", []byte(`{"host":"127.0.0.1","max_bytes":1234,"smtputf8":true}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	if can.MaxBytes != 1234 || !can.SMTPUTF8 {
		t.Errorf("capabilities = %+v, want those of this relay", can)
	}
}

func TestErrorsNameKindAndSettingAndNoSecret(t *testing.T) {
	t.Parallel()
	for kind, a := range good(t) {
		for name, c := range map[string]struct {
			settings string
			secrets  map[string]seal.Secret
			want     string
		}{
			"unknown setting": {strings.Replace(a.settings, "{", `{"colour":"red",`, 1), a.secrets, "colour"},
			"unknown secret":  {a.settings, map[string]seal.Secret{"pin": seal.NewSecret("canary-value")}, "pin"},
			"not an object":   {`"canary-value"`, a.secrets, "settings"},
		} {
			settings := strings.Replace(c.settings, ",}", "}", 1)
			err := Catalog{}.Validate(kind, []byte(settings), c.secrets)
			if err == nil || !strings.HasPrefix(err.Error(), string(kind)) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s of %s: Validate = %v, want an error with the kind and %s", name, kind, err, c.want)
			} else if strings.Contains(err.Error(), "canary") {
				t.Errorf("%s of %s: the error holds a secret: %v", name, kind, err)
			}
		}
		if err := (Catalog{}).Validate(kind, []byte(a.settings), a.secrets); err != nil {
			t.Errorf("Validate(%s) = %v, want nil", kind, err)
		}
		if kind != "smtp" {
			if err := (Catalog{}).Validate(kind, []byte(a.settings), nil); err == nil {
				t.Errorf("Validate(%s) without secrets succeeded", kind)
			}
		}
	}
}

func TestUnknownKindNamesTheKnownOnes(t *testing.T) {
	t.Parallel()
	var known []string
	for _, s := range Specs() {
		known = append(known, string(s.Kind))
	}
	slices.Sort(known)
	_, _, err := New("sengrid", nil, nil)
	if err == nil || !strings.Contains(err.Error(), `"sengrid"`) || !strings.Contains(err.Error(), strings.Join(known, ", ")) {
		t.Errorf("New of an unknown kind = %v, want an error with its name and the known ones", err)
	}
	if _, ok := (Catalog{}).Spec("sengrid"); ok {
		t.Error("Spec knows an unknown kind")
	}
}

// The contract lists the kinds that there are, in the order of the catalog.
func TestTheContractListsEveryKind(t *testing.T) {
	t.Parallel()
	contract, err := os.ReadFile("../../../api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, s := range Specs() {
		kinds = append(kinds, string(s.Kind))
	}
	want := "\n    Kind:\n      description: The kind of provider.\n      type: string\n      enum: [" + strings.Join(kinds, ", ") + "]\n"
	if !strings.Contains(string(contract), want) {
		t.Errorf("api/openapi.yaml lacks this:%s", want)
	}
}

// What the admin API declares as Kinds.
var _ interface {
	Spec(kind provider.Kind) (provider.Spec, bool)
	Validate(kind provider.Kind, settings []byte, secrets map[string]seal.Secret) error
	DocumentedLimits(kind provider.Kind) []limit.Window
} = Catalog{}
