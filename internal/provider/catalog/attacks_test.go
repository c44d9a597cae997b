package catalog

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/seal"
)

// with is a JSON object with further members.
func with(t *testing.T, object string, more map[string]any) string {
	t.Helper()
	fields := map[string]any{}
	if object != "" {
		if err := json.Unmarshal([]byte(object), &fields); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range more {
		fields[name] = value
	}
	merged, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return string(merged)
}

// No kind takes an address that leads inside, or a way that others can read, unless a setting says so.
func TestEveryKindHoldsItsAddresses(t *testing.T) {
	t.Parallel()
	refused := []string{
		"http://api.example.com", "https://169.254.169.254/latest", "https://10.0.0.1", "https://[fd00:ec2::254]", "https://[::ffff:169.254.169.254]",
		"https://user:pw@api.example.com", "https://api.example.com?x=1", "ftp://api.example.com", "api.example.com",
	}
	for kind, a := range good(t) {
		spec, _ := Spec(kind)
		if _, ok := spec.Settings["base_url"]; !ok && kind != "smtp" { // a relay has a host instead
			t.Errorf("%s has no setting base_url", kind)
		}
		for setting := range spec.Settings {
			if !strings.HasSuffix(setting, "base_url") {
				continue
			}
			for base, ok := range map[string]bool{"https://api.example.com": true, "http://127.0.0.1:8025/x": true} {
				if err := (Catalog{}).Validate(kind, []byte(with(t, a.settings, map[string]any{setting: base})), a.secrets); (err == nil) != ok {
					t.Errorf("%s with %s %s: %v", kind, setting, base, err)
				}
			}
			for _, base := range refused {
				err := (Catalog{}).Validate(kind, []byte(with(t, a.settings, map[string]any{setting: base})), a.secrets)
				if err == nil || !strings.Contains(err.Error(), setting) {
					t.Errorf("%s with %s %s: %v, want it refused by its name", kind, setting, base, err)
				}
			}
			for widening, base := range map[string]string{"allow_plaintext": "http://api.example.com", "allow_private": "https://10.0.0.1"} {
				if err := (Catalog{}).Validate(kind, []byte(with(t, a.settings, map[string]any{setting: base, widening: true})), a.secrets); err != nil {
					t.Errorf("%s with %s %s and %s: %v", kind, setting, base, widening, err)
				}
			}
		}
	}
}

// Every kind refuses a request by its header where it can, before the body is read, whether its account takes events or not.
func TestEveryKindJudgesTheHeaderFirst(t *testing.T) {
	t.Parallel()
	public := "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g=="
	type intake struct {
		settings map[string]any
		secrets  map[string]string
		guess    bool
	}
	receives := whole(t, "receives in attacks_test.go", map[provider.Kind]intake{
		"sendgrid": {map[string]any{"webhook_public_keys": []string{public}}, nil, false},
		"resend":   {nil, map[string]string{"webhook_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, false},
		"postmark": {nil, map[string]string{"webhook_password": "sixteen-letters."}, true},
		"ses":      {map[string]any{"sns_topic_arns": []string{"arn:aws:sns:eu-west-1:123456789012:events"}}, nil, false},
		"smtp":     {map[string]any{"bounce_domain": "bounces.example.com"}, map[string]string{"verp_key": strings.Repeat("v", 32)}, false},
		"mailgun":  {nil, nil, false}, // whose signature is in the body: only an account without a key can be told from the header
	})
	for kind, a := range good(t) {
		for name, configured := range map[string]bool{"takes events": true, "takes none": false} {
			settings, secrets := a.settings, map[string]seal.Secret{}
			for k, v := range a.secrets {
				secrets[k] = v
			}
			if configured {
				settings = with(t, settings, receives[kind].settings)
				for k, v := range receives[kind].secrets {
					secrets[k] = seal.NewSecret(v)
				}
			}
			p, _, err := New(kind, []byte(settings), secrets)
			if err != nil {
				t.Errorf("%s that %s: %v", kind, name, err)
				continue
			}
			checker, ok := p.(provider.HeaderChecker)
			if !ok {
				t.Errorf("%s checks no header", kind)
				continue
			}
			for what, h := range map[string]http.Header{
				"nothing": {}, "made-up names": {"X-Signature": {"x"}, "Authorization": {"Basic eDp4"}},
				"half a signature": {"Svix-Id": {"x"}, "Svix-Timestamp": {"1"}, "X-Twilio-Email-Event-Webhook-Timestamp": {"1"}, "X-Amz-Sns-Topic-Arn": {"x"}},
			} {
				refused, ok := errors.AsType[*provider.HookError](checker.CheckHeader(h, time.Unix(1, 0)))
				if !ok || refused.Guess != (configured && receives[kind].guess) || (refused.Reason == "unconfigured") == (configured && kind != "mailgun") {
					t.Errorf("%s that %s, with %s: %+v", kind, name, what, refused)
				}
			}
			_ = p.Close()
		}
	}
}

// JSON that is not in the form that a provider documents may be of another service, which base_url leads to: its words are not
// told. Mailgun's form is a message alone, so only its other members are another's.
func TestJSONOfOthersIsNotTold(t *testing.T) {
	t.Parallel()
	bodies := []string{
		`{"message":"canary"}`, `{"Message":"canary"}`, `{"error":"canary"}`, `{"error":{"message":"canary"}}`, `{"errors":"canary"}`, `{"errors":["canary"]}`,
		`{"errors":[{"detail":"canary"}]}`, `{"detail":"canary","status":"canary"}`, `["canary"]`, `"canary"`, `{"kind":"Status","message":"canary","reason":"canary"}`,
	}
	for kind, a := range good(t) {
		if kind == "smtp" {
			continue
		}
		for _, status := range []int{200, 202, 400, 401, 403, 404, 409, 413, 422, 429, 500, 503} {
			for _, body := range bodies {
				if kind == "mailgun" && strings.Contains(strings.ToLower(body), `"message"`) {
					continue
				}
				srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(status)
					_, _ = io.WriteString(w, body)
				}))
				p, _, err := New(kind, []byte(with(t, a.settings, map[string]any{"base_url": srv.URL})), a.secrets)
				if err != nil {
					t.Fatal(err)
				}
				receipt, err := p.Send(t.Context(), providertest.PlainSend())
				told := receipt.Detail
				if perr, ok := errors.AsType[*provider.Error](err); ok {
					told += perr.Error() + perr.Detail + perr.Code
				}
				if strings.Contains(strings.ReplaceAll(told, "canary-value", ""), "canary") {
					t.Errorf("%s, %d %s: told %q", kind, status, body, told)
				}
				_ = p.Close()
				srv.Close()
			}
		}
	}
}
