package catalog

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

// good holds the least that makes an account of each kind.
func good() map[provider.Kind]struct {
	settings string
	secrets  map[string]seal.Secret
} {
	type account = struct {
		settings string
		secrets  map[string]seal.Secret
	}
	one := func(name string) map[string]seal.Secret {
		return map[string]seal.Secret{name: seal.NewSecret("canary-value")}
	}
	return map[provider.Kind]account{
		"sendgrid": {`{}`, one("api_key")},
		"mailgun":  {`{"domain":"mg.example.com"}`, one("api_key")},
		"postmark": {`{}`, one("server_token")},
		"resend":   {`{}`, one("api_key")},
		"ses": {`{"region":"eu-west-1"}`, map[string]seal.Secret{
			"access_key_id": seal.NewSecret("AKIDcanary"), "secret_access_key": seal.NewSecret("canary-value"),
		}},
		"smtp": {`{"host":"127.0.0.1","port":2525}`, nil},
	}
}

func TestEveryKindIsThere(t *testing.T) {
	t.Parallel()
	var got []provider.Kind
	for _, s := range Specs() {
		got = append(got, s.Kind)
		if s.Concurrency < 1 || s.Capabilities.MaxRecipients < 1 || s.Capabilities.MaxBytes < 1 {
			t.Errorf("spec of %s = %+v, want concurrency and caps", s.Kind, s)
		}
		if again, ok := Spec(s.Kind); !ok || !cmp.Equal(again, s) {
			t.Errorf("Spec(%s) = %+v, %v; want that of Specs", s.Kind, again, ok)
		}
	}
	if diff := cmp.Diff([]provider.Kind{"sendgrid", "mailgun", "postmark", "resend", "ses", "smtp"}, got); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
}

// The numbers were given to this project; a change here is a change of what accounts may send.
func TestDocumentedLimits(t *testing.T) {
	t.Parallel()
	want := map[provider.Kind][]limit.Window{
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
	}
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
	for kind, a := range good() {
		p, can, err := New(kind, []byte(a.settings), a.secrets)
		if err != nil {
			t.Errorf("New(%s): %v", kind, err)
			continue
		}
		if spec, _ := Spec(kind); !cmp.Equal(can, spec.Capabilities) {
			t.Errorf("New(%s) capabilities = %+v, want those of the Spec", kind, can)
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
	for kind, a := range good() {
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
	_, _, err := New("sengrid", nil, nil)
	if err == nil || !strings.Contains(err.Error(), `"sengrid"`) || !strings.Contains(err.Error(), "mailgun, postmark, resend, sendgrid, ses, smtp") {
		t.Errorf("New of an unknown kind = %v, want an error with its name and the known ones", err)
	}
	if _, ok := (Catalog{}).Spec("sengrid"); ok {
		t.Error("Spec knows an unknown kind")
	}
}

// The contract lists the kinds that there are.
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
