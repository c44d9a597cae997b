//go:build drill

package app

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/unsub"
)

// The secret key is changed while mail goes on, and lost.
func TestASecretKeyIsChangedAndLost(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	public := "SENDGATE_PUBLIC_URL=http://127.0.0.1:1"
	before, err := New(b.config(t, public), nil)
	if err != nil {
		t.Fatal(err)
	}
	links, err := before.links()
	if err != nil {
		t.Fatal(err)
	}
	token := func(link []mail.Header) string {
		return strings.TrimSuffix(link[0].Value[strings.LastIndex(link[0].Value, "/")+1:], ">")
	}
	old := token(links.Headers(unsub.Token{Tenant: 1, Stream: "bulk", Email: "ann@example.org"}))
	was := b.secret
	b.secret = strings.Repeat("6f", 32)
	ring := []string{public, "SENDGATE_SECRET_KEY_PREVIOUS=" + was}

	r := b.start(t, ring...)
	becomes(t, r.api, send(t, r.api, letterTo("sendgrid", "ann@example.org")), settleTime, "sent", "delivered")
	resp, err := b.http.Post(r.url+"/u/"+old, "application/x-www-form-urlencoded", strings.NewReader("List-Unsubscribe=One-Click"))
	if err != nil {
		t.Fatal(err)
	}
	if _ = resp.Body.Close(); resp.StatusCode != http.StatusOK {
		t.Errorf("a link of the previous key answers %d", resp.StatusCode)
	}
	check := func(want string, extra ...string) {
		t.Helper()
		for _, c := range Doctor(t.Context(), b.config(t, extra...)) {
			if c.Name == "secret key" && strings.Contains(c.Detail, want) {
				return
			}
		}
		t.Errorf("doctor does not say %q", want)
	}
	check("encrypted with a previous key", ring...)
	n, err := Reseal(t.Context(), b.config(t, ring...), func(Sealed) {})
	if err != nil || n.Resealed == 0 || len(n.Unreadable) != 0 {
		t.Fatalf("reseal = %+v, %v", n, err)
	}
	check("decrypts all", public)
	becomes(t, b.start(t, public).api, send(t, r.api, letterTo("sendgrid", "bob@example.org")), settleTime, "sent", "delivered")

	// Both keys are lost. In reality the processes with the old keys are gone; here they would keep a process with a third
	// key from starting.
	b.secret = strings.Repeat("7a", 32)
	check("can't be decrypted", public)
	lost, err := New(b.config(t, public), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := lost.links(); err != nil {
		t.Fatal(err)
	} else if _, err := got.Open(old); err == nil {
		t.Error("a link of a lost key opens")
	}
}
