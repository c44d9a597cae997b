package catalog

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestConventionalVariablesBecomeAccounts(t *testing.T) {
	t.Parallel()
	accounts, secrets, err := Accounts([]string{
		"PATH=/bin", "SENDGRID_API_KEY=SG.canary-value", "MAILGUN_API_KEY=canary-key", "MAILGUN_DOMAIN=mg.example.com",
		"MAILGUN_API_BASE=https://api.eu.mailgun.net", "POSTMARK_SERVER_TOKEN=canary-token", "RESEND_API_KEY=re_canary", "AWS_REGION=eu-west-1", "SENDGATE_SES=1",
		"SMTP_RELAY_URL=smtp://user:canary-pass@relay.example.com:587?tls=starttls",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		name, field, secret string
		settings            map[string]any
	}{
		{"sendgrid", "api_key", "SG.canary-value", map[string]any{}},
		{"mailgun", "api_key", "canary-key", map[string]any{"domain": "mg.example.com", "base_url": "https://api.eu.mailgun.net"}},
		{"postmark", "server_token", "canary-token", map[string]any{}},
		{"resend", "api_key", "re_canary", map[string]any{}},
		{"ses", "", "", map[string]any{"region": "eu-west-1", "use_default_credentials": true}},
		{"smtp", "password", "canary-pass", map[string]any{"host": "relay.example.com", "port": 587., "tls": "starttls", "username": "user"}},
	}
	made := map[provider.Kind]bool{}
	for _, a := range accounts {
		made[a.Kind] = true
	}
	whole(t, "of Accounts in environ.go (or the variables in environ_test.go)", made)
	if len(accounts) != len(want) {
		t.Fatalf("accounts = %d, want %d, as in the table of this test", len(accounts), len(want))
	}
	for i, w := range want {
		a := accounts[i]
		spec, _ := Spec(a.Kind)
		if a.Name != w.name || string(a.Kind) != w.name || a.Concurrency != spec.Concurrency || a.Capabilities.MaxBytes == 0 {
			t.Errorf("account %d = %+v, want %s with the concurrency and the capabilities of its kind", i, a, w.name)
		}
		if diff := cmp.Diff(DocumentedLimits(a.Kind), a.Limits); diff != "" {
			t.Errorf("limits of %s (-want +got):\n%s", a.Name, diff)
		}
		var settings map[string]any
		if err := json.Unmarshal(a.Settings, &settings); err != nil {
			t.Fatalf("settings of %s: %v", a.Name, err)
		}
		if diff := cmp.Diff(w.settings, settings); diff != "" {
			t.Errorf("settings of %s (-want +got):\n%s", a.Name, diff)
		}
		if strings.Contains(string(a.Settings), "canary") {
			t.Errorf("settings of %s hold a secret", a.Name)
		}
		wantSecrets, wantFields := map[string]seal.Secret{}, []string(nil)
		if w.field != "" {
			wantSecrets[w.field], wantFields = seal.NewSecret(w.secret), []string{w.field}
		}
		if diff := cmp.Diff(wantSecrets, secrets[a.Name]); diff != "" {
			t.Errorf("secrets of %s differ", a.Name)
		}
		if diff := cmp.Diff(wantFields, a.SecretFields); diff != "" {
			t.Errorf("secret fields of %s (-want +got):\n%s", a.Name, diff)
		}
	}
}

func TestOnlyWhatIsSetBecomesAnAccount(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		environ []string
		want    []string
	}{
		"nothing":              {nil, nil},
		"set but empty":        {[]string{"SENDGRID_API_KEY=", "SMTP_RELAY_URL=", "SENDGATE_SES="}, nil},
		"a region alone":       {[]string{"AWS_REGION=eu-west-1"}, nil},
		"SES switched off":     {[]string{"AWS_REGION=eu-west-1", "SENDGATE_SES=0"}, nil},
		"mailgun without base": {[]string{"MAILGUN_API_KEY=k", "MAILGUN_DOMAIN=mg.example.com"}, []string{"mailgun"}},
		"a local relay":        {[]string{"SMTP_RELAY_URL=smtp://127.0.0.1:25"}, []string{"smtp"}},
	} {
		accounts, _, err := Accounts(c.environ)
		if err != nil {
			t.Errorf("%s: Accounts = %v", name, err)
		}
		var got []string
		for _, a := range accounts {
			got = append(got, a.Name)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: accounts (-want +got):\n%s", name, diff)
		}
	}
}

func TestProblemsOfVariablesComeAtOnceWithoutSecrets(t *testing.T) {
	t.Parallel()
	_, _, err := Accounts([]string{
		"SENDGRID_API_KEY=canary with space", "MAILGUN_API_KEY=canary", "POSTMARK_SERVER_TOKEN=canary\n", "SENDGATE_SES=1",
		"SMTP_RELAY_URL=http://u:canary@h",
	})
	if err == nil {
		t.Fatal("Accounts succeeded")
	}
	var got []string
	for line := range strings.Lines(err.Error()) {
		name, _, _ := strings.Cut(line, ":")
		got = append(got, name)
	}
	want := []string{"SENDGRID_API_KEY", "MAILGUN_API_KEY", "POSTMARK_SERVER_TOKEN", "SENDGATE_SES", "SMTP_RELAY_URL"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s\n%v", diff, err)
	}
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("the error holds a secret: %v", err)
	}
	for _, environ := range [][]string{
		{"MAILGUN_DOMAIN=mg.example.com"},
		{"SENDGATE_SES=maybe", "AWS_REGION=eu-west-1"},
		{"SENDGATE_SES=1", "AWS_REGION=nowhere"},
		{"SMTP_RELAY_URL=smtp://h?colour=red"},
		{"MAILGUN_API_KEY=k", "MAILGUN_DOMAIN=a/b"},
	} {
		if _, _, err := Accounts(environ); err == nil {
			t.Errorf("Accounts(%v) succeeded", environ)
		}
	}
}

// A variable whose value ends in a secret must be in SecretVariables, or it can't come from a file.
func TestEveryVariableWithASecretIsListed(t *testing.T) {
	t.Parallel()
	environ := map[string]string{
		envSendGridKey: "SG.canary", envMailgunKey: "canary-mailgun", envMailgunDomain: "mg.example.com", envMailgunBase: "https://api.eu.mailgun.net",
		envPostmarkToken: "canary-postmark", envResendKey: "re_canary", envAWSRegion: "eu-west-1", envSES: "1",
		envRelay: "smtp://user:canary-relay@relay.example.com:587?tls=starttls",
	}
	var lines, want []string
	for name, value := range environ {
		lines = append(lines, name+"="+value)
		if strings.Contains(value, "canary") {
			want = append(want, name)
		}
	}
	_, secrets, err := Accounts(lines)
	if err != nil || len(secrets) < len(want) {
		t.Fatalf("%d accounts with secrets, %v", len(secrets), err)
	}
	for account, fields := range secrets {
		for field, value := range fields {
			if !strings.Contains(value.Reveal(), "canary") {
				t.Errorf("the secret %s of %s is of a variable that this test does not know: add it here and to SecretVariables", field, account)
			}
		}
	}
	got := SecretVariables()
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("SecretVariables (-want +got):\n%s", diff)
	}
}
