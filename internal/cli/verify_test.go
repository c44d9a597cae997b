package cli

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// verify reports whether one of the signatures is ours. The secret is the one that webhooks add printed.
func verify(secret string, h http.Header, body []byte, now time.Time) bool {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	seconds, numErr := strconv.ParseInt(h.Get("webhook-timestamp"), 10, 64)
	if err != nil || numErr != nil || now.Sub(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", h.Get("webhook-id"), seconds, body)
	want := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	for _, got := range strings.Fields(h.Get("webhook-signature")) {
		if hmac.Equal([]byte(got), want) {
			return true
		}
	}
	return false
}

// block returns the first code block of docs/api.md in that language that contains the text.
func block(t *testing.T, language, holds string) string {
	t.Helper()
	page, err := os.ReadFile(root + "docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(page), "```"+language+"\n")[1:] {
		if code, _, _ := strings.Cut(part, "```"); strings.Contains(code, holds) {
			return code
		}
	}
	t.Fatalf("docs/api.md has no %s block with %q", language, holds)
	return ""
}

const (
	signedSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	signedBody   = "{\"type\":\"message.delivered\",\"text\":\"100% \\u00e9\"}\n"
)

// TestDocumentedVerificationInGo signs with the reference library and verifies with the documented function.
func TestDocumentedVerificationInGo(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("verify_test.go")
	_, shown, _ := strings.Cut(block(t, "go", "func verify"), "// verify reports")
	shown, _, ended := strings.Cut(shown, "\n}\n")
	if err != nil || !ended || !strings.Contains(string(source), "// verify reports"+shown+"\n}\n") {
		t.Errorf("docs/api.md shows another function than the one that is tested here (%v)", err)
	}
	library, err := standardwebhooks.NewWebhook(signedSecret)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1790000017, 0)
	signature, err := library.Sign("msg_1", now, []byte(signedBody))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, secret, id, body, signature string
		after                             time.Duration
		want                              bool
	}{
		{"right", signedSecret, "msg_1", signedBody, signature, time.Minute, true},
		{"one of two", signedSecret, "msg_1", signedBody, "v1,AAAA " + signature, -time.Minute, true},
		{"body", signedSecret, "msg_1", signedBody + " ", signature, 0, false},
		{"id", signedSecret, "msg_2", signedBody, signature, 0, false},
		{"secret", "whsec_" + strings.Repeat("A", 32), "msg_1", signedBody, signature, 0, false},
		{"no signature", signedSecret, "msg_1", signedBody, "", 0, false},
		{"old", signedSecret, "msg_1", signedBody, signature, 6 * time.Minute, false},
	} {
		h := http.Header{}
		h.Set("webhook-id", c.id)
		h.Set("webhook-timestamp", "1790000017")
		h.Set("webhook-signature", c.signature)
		if got := verify(c.secret, h, []byte(c.body), now.Add(c.after)); got != c.want {
			t.Errorf("%s: verify = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestDocumentedVerificationInAShell(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs openssl:", err)
	}
	library, err := standardwebhooks.NewWebhook(signedSecret)
	if err != nil {
		t.Fatal(err)
	}
	want, err := library.Sign("msg_1", time.Unix(1790000017, 0), []byte(signedBody))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "body.json"), []byte(signedBody), 0o600); err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "sh", "-c", block(t, "sh", "openssl"))
	cmd.Dir, cmd.Stderr = dir, &errs
	cmd.Env = append(os.Environ(), "SECRET="+signedSecret, "ID=msg_1", "TIMESTAMP=1790000017")
	got, err := cmd.Output()
	if err != nil || string(got) != want {
		t.Errorf("printed %q, %v %s; want %q", got, err, errs.String(), want)
	}
}
