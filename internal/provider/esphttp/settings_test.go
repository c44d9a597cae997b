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
	plain, private := esphttp.Reach{AllowPlaintext: true}, esphttp.Reach{AllowPrivate: true}
	both := esphttp.Reach{AllowPlaintext: true, AllowPrivate: true}
	for _, c := range []struct {
		url   string
		reach esphttp.Reach
		ok    bool
	}{
		{"https://api.example.com", esphttp.Reach{}, true},
		{"https://api.example.com:8443/v3", esphttp.Reach{}, true},
		{"https://1.1.1.1/", esphttp.Reach{}, true},
		{"http://127.0.0.1:8025/sendgrid", esphttp.Reach{}, true},
		{"https://127.0.0.2/", esphttp.Reach{}, true},
		{"http://localhost:8025/sendgrid", esphttp.Reach{}, true},
		{"http://[::1]:8025/sendgrid", esphttp.Reach{}, true},
		{"", esphttp.Reach{}, false},
		{"api.example.com", esphttp.Reach{}, false},
		{"ftp://x", both, false},
		{"https://", both, false},
		{"https://a@x", both, false},
		{"https://x?", both, false},
		{"https://x?q=1", both, false},
		{"https://x#f", both, false},
		{"https://x:port", both, false},
		{"https://x:0", both, false},
		{"https://x:65979", both, false},
		{"http://[::1", both, false},

		{"http://api.example.com", esphttp.Reach{}, false},
		{"http://api.example.com", private, false},
		{"http://api.example.com", plain, true},
		{"http://10.0.0.1", plain, false},
		{"http://10.0.0.1", private, false},
		{"http://10.0.0.1:8080", both, true},
		{"https://10.0.0.1", esphttp.Reach{}, false},
		{"https://10.0.0.1", private, true},
		{"https://emulator:8443", esphttp.Reach{}, false}, // a name of our own domain
		{"https://emulator:8443", private, true},
		{"https://192.168.1.1", esphttp.Reach{}, false},
		{"https://172.31.255.255", esphttp.Reach{}, false},
		{"https://100.64.0.1", esphttp.Reach{}, false},
		{"https://169.254.169.254/latest/meta-data", esphttp.Reach{}, false},
		{"http://169.254.169.254/latest/meta-data", plain, false},
		{"https://[fd00:ec2::254]", esphttp.Reach{}, false},
		{"https://[fe80::1]", esphttp.Reach{}, false},
		{"https://[::ffff:10.0.0.1]", esphttp.Reach{}, false},
		{"https://[::ffff:169.254.169.254]", esphttp.Reach{}, false},
		{"https://[64:ff9b::a9fe:a9fe]", esphttp.Reach{}, false},
		{"https://[2002:a9fe:a9fe::]", esphttp.Reach{}, false},
		{"https://0.0.0.0", esphttp.Reach{}, false},
		{"https://[::]", esphttp.Reach{}, false},
		{"https://127.1", esphttp.Reach{}, false},
		{"https://2130706433", esphttp.Reach{}, false},
		{"https://0x7f000001", esphttp.Reach{}, false},
		{"https://169.254.169.254.", esphttp.Reach{}, false},
	} {
		if err := c.reach.CheckBaseURL(c.url); (err == nil) != c.ok {
			t.Errorf("CheckBaseURL(%q) with %+v = %v, want ok %t", c.url, c.reach, err, c.ok)
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
