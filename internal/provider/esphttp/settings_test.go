package esphttp_test

import (
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestDecodeSettingsIsStrict(t *testing.T) {
	t.Parallel()
	for in, ok := range map[string]bool{
		"": true, " \n": true, "null": true, "{}": true, `{"name":"a"}`: true,
		`{"nam":"a"}`: false, `{"name":1}`: false, `{"name":"a"}{}`: false, `{"name":"a"} x`: false, `[]`: false, `{`: false,
	} {
		var v struct {
			Name string `json:"name"`
		}
		if err := esphttp.DecodeSettings([]byte(in), &v); (err == nil) != ok {
			t.Errorf("DecodeSettings(%q) = %v, want ok %t", in, err, ok)
		}
	}
}

func TestCheckBaseURL(t *testing.T) {
	t.Parallel()
	for in, ok := range map[string]bool{
		"https://api.example.com": true, "http://127.0.0.1:8025/sendgrid": true,
		"": false, "api.example.com": false, "ftp://x": false, "https://": false, "https://a@x": false, "https://x?": false,
		"https://x?q=1": false, "https://x#f": false, "https://x:port": false, "http://[::1": false,
	} {
		if err := esphttp.CheckBaseURL(in); (err == nil) != ok {
			t.Errorf("CheckBaseURL(%q) = %v, want ok %t", in, err, ok)
		}
	}
}

func TestCheckCredentialNeverShowsIt(t *testing.T) {
	t.Parallel()
	for in, ok := range map[string]bool{"SG.abc-_9": true, "": false, "se cret": false, "secret\n": false, "sécret": false} {
		err := esphttp.CheckCredential("api_key", seal.NewSecret(in))
		if (err == nil) != ok {
			t.Errorf("CheckCredential(%q) = %v, want ok %t", in, err, ok)
		}
		if err != nil && in != "" && strings.Contains(err.Error(), in) {
			t.Errorf("CheckCredential shows the credential: %v", err)
		}
	}
}

func TestOnlySecretsRefusesTheUnknown(t *testing.T) {
	t.Parallel()
	s := map[string]seal.Secret{"api_key": seal.NewSecret("x")}
	if err := esphttp.OnlySecrets(s, "api_key", "other"); err != nil {
		t.Errorf("OnlySecrets = %v", err)
	}
	if err := esphttp.OnlySecrets(s, "server_token"); err == nil {
		t.Error("OnlySecrets took an unknown secret")
	}
}
