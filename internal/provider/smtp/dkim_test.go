package smtp

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

// testKey makes a key pair: the private PEM and the TXT record of the public half.
func testKey(t *testing.T, kind string) (privatePEM, record string) {
	t.Helper()
	if kind == "ed25519" {
		public, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pemOf("PRIVATE KEY", der), "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)), "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(public)
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestSignedMessageVerifiesAsItArrives(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"rsa", "ed25519"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			key, record := testKey(t, kind)
			r := startRelay(t, nil)
			c := r.clientWith(r.config(map[string]seal.Secret{"dkim_private_key": seal.NewSecret(key)},
				map[string]any{"dkim": map[string]string{"domain": "example.com", "selector": "s1"}}))
			m := message("ann@example.org")
			m.Subject, m.Text, m.HTML = "Grüße", "hello \n.\n", "<p>hello</p>"
			m.Headers = []mail.Header{
				{Name: "List-Unsubscribe", Value: "<https://u.example/u/" + strings.Repeat("t", 90) + ">, <mailto:u@example.com>"},
				{Name: "List-Unsubscribe-Post", Value: "List-Unsubscribe=One-Click"},
				{Name: "In-Reply-To", Value: "<1@example.org>"},
				{Name: "References", Value: "<0@example.org> <1@example.org>"},
			}
			_, perr := send(deadline(t), t, c, m)
			wantClass(t, "send", perr, provider.Accepted)
			arrived := strings.ReplaceAll("\r\n"+r.bodies[0], "\r\n..", "\r\n.")[2:]
			lookup := func(name string) ([]string, error) {
				if name != "s1._domainkey.example.com" {
					t.Errorf("looked up %s", name)
				}
				return []string{record}, nil
			}
			v := verify(t, arrived, lookup)
			if v.Err != nil || v.Domain != "example.com" {
				t.Fatalf("signature does not verify: %+v", v)
			}
			signed := strings.ToLower(strings.Join(v.HeaderKeys, ":"))
			for _, want := range []string{"from:from", "to", "subject", "date", "message-id", "mime-version", "content-type", "in-reply-to:references", "list-unsubscribe:list-unsubscribe-post"} {
				if !strings.Contains(signed, want) {
					t.Errorf("h=%s lacks %s", signed, want)
				}
			}
			if strings.Contains(signed, "cc") || strings.Contains(signed, "list-id") {
				t.Errorf("h=%s names fields that the message does not have", signed)
			}
			if v := verify(t, "From: evil@example.com\r\n"+arrived, lookup); v.Err == nil {
				t.Error("a second From does not break the signature")
			}
			for _, field := range []string{"References: <0@example.", "In-Reply-To: <1@example.", "List-Unsubscribe: <https://u.", "List-Unsubscribe-Post: List-Unsubscribe=One-Click"} {
				changed := strings.Replace(arrived, field, strings.ToUpper(field), 1)
				if v := verify(t, changed, lookup); v.Err == nil || changed == arrived {
					t.Errorf("a change of %q does not break the signature", field)
				}
			}
			if v := verify(t, arrived+"more\r\n", lookup); v.Err == nil {
				t.Error("an added line does not break the signature")
			}
			if !strings.Contains(arrived, "c=relaxed/relaxed") {
				t.Error("canonicalization is not relaxed/relaxed")
			}
		})
	}
}

func verify(t *testing.T, msg string, lookup func(string) ([]string, error)) *dkim.Verification {
	t.Helper()
	vs, err := dkim.VerifyWithOptions(bytes.NewReader([]byte(msg)), &dkim.VerifyOptions{LookupTXT: lookup})
	if err != nil {
		t.Fatal(err)
	}
	if len(vs) != 1 {
		t.Fatalf("signatures = %d, want 1", len(vs))
	}
	return vs[0]
}

func TestDKIMSettingsComeTogether(t *testing.T) {
	t.Parallel()
	key, _ := testKey(t, "rsa")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]DKIM{
		"no key":      {Domain: "example.com", Selector: "s"},
		"no selector": {Domain: "example.com", PrivateKey: seal.NewSecret(key)},
		"no domain":   {Selector: "s", PrivateKey: seal.NewSecret(key)},
		"bad domain":  {Domain: "a b", Selector: "s", PrivateKey: seal.NewSecret(key)},
		"not PEM":     {Domain: "example.com", Selector: "s", PrivateKey: seal.NewSecret("zebra")},
		"not a key":   {Domain: "example.com", Selector: "s", PrivateKey: seal.NewSecret(pemOf("PRIVATE KEY", []byte("zebra")))},
	} {
		if _, err := newSigner(d); err == nil || strings.Contains(err.Error(), "zebra") {
			t.Errorf("%s: err = %v, want one without the key", name, err)
		}
	}
	if _, err := newSigner(DKIM{Domain: "example.com", Selector: "s", PrivateKey: seal.NewSecret(pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(small)))}); err != nil {
		t.Errorf("1024 bits: %v", err)
	}
}
