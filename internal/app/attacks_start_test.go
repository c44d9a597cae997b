//go:build unix

package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/unsub"
)

// Links in mail that was sent under an earlier key work as long as the key is among the previous ones, however that is told.
func TestLinksSurviveAChangeOfTheSecretKey(t *testing.T) {
	t.Parallel()
	one, two := strings.Repeat("1a", 32), strings.Repeat("2b", 32)
	file := filepath.Join(t.TempDir(), "previous")
	if err := os.WriteFile(file, []byte(one+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	links := func(settings ...string) *unsub.Signer {
		t.Helper()
		cfg, err := config.Load(append([]string{"SENDGATE_DATABASE_URL=postgres://db/x", "SENDGATE_PUBLIC_URL=https://send.example.com"}, settings...))
		if err != nil {
			t.Fatal(err)
		}
		a, err := New(cfg, quiet())
		if err != nil {
			t.Fatal(err)
		}
		l, err := a.links()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	token := func(l *unsub.Signer) string {
		link := l.Headers(unsub.Token{Tenant: 1, Stream: "bulk", Email: "ann@example.org", Message: mail.NewID()})[0].Value
		return strings.TrimSuffix(link[strings.LastIndex(link, "/")+1:], ">")
	}
	old := token(links("SENDGATE_SECRET_KEY=" + one))
	for name, c := range map[string]struct {
		settings []string
		opens    bool
	}{
		"the same key":              {[]string{"SENDGATE_SECRET_KEY=" + one}, true},
		"the same, spelled anew":    {[]string{"SENDGATE_SECRET_KEY=" + strings.ToUpper(one)}, true},
		"previous, in the variable": {[]string{"SENDGATE_SECRET_KEY=" + two, "SENDGATE_SECRET_KEY_PREVIOUS=" + one}, true},
		"previous, in a file":       {[]string{"SENDGATE_SECRET_KEY=" + two, "SENDGATE_SECRET_KEY_PREVIOUS_FILE=" + file}, true},
		"lost":                      {[]string{"SENDGATE_SECRET_KEY=" + two}, false},
	} {
		l := links(c.settings...)
		if _, err := l.Open(old); (err == nil) != c.opens {
			t.Errorf("%s: an old link: %v, want it opened: %v", name, err, c.opens)
		}
		if _, err := l.Open(token(l)); err != nil {
			t.Errorf("%s: a new link: %v", name, err)
		}
	}
}

// The audit has the failed logins, at the latest when the replica stops.
func TestFailedLoginsReachTheAudit(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	t.Run("guesses", func(t *testing.T) {
		r := b.start(t)
		guess := api.NewWith(r.url, b.keys.api[:len(b.keys.api)-1]+"x", b.http)
		if _, err := guess.Messages(t.Context(), api.MessageQuery{}); problemCode(err) != "unauthorized" {
			t.Fatalf("a wrong key: %v", err)
		}
	})
	if n := b.count(t.Context(), `SELECT (detail->>'keys')::int FROM audit WHERE action = 'login.failed' AND target = '127.0.0.1/32'`); n != 1 {
		t.Errorf("%d wrong keys are in the audit, want one", n)
	}
}

// The audit has who read which bodies, at the latest when the replica stops.
func TestReadsOfBodiesReachTheAudit(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	t.Run("reads", func(t *testing.T) {
		r := b.start(t)
		sent, err := r.api.Send(t.Context(), api.SendRequest{
			From: api.Address{Email: "shop@example.com"}, To: []api.Address{{Email: "ann@example.org"}}, Subject: "Hello", Text: "Hi",
		}, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.api.Message(t.Context(), sent.ID); err != nil {
			t.Fatal(err)
		}
	})
	if n := b.count(t.Context(), `SELECT count(*) FROM audit WHERE action = 'message.read' AND name <> '' AND address = '127.0.0.1' AND request_id <> ''`); n != 1 {
		t.Errorf("%d entries of reads are in the audit, want one", n)
	}
}

// Whoever starts the service behind a proxy that is not named is told, and so is what bounds the memory. Not parallel: see hangUp.
func TestStartTellsOfAProxyThatIsNotNamed(t *testing.T) {
	b := newBench(t, benchOptions{})
	log := b.serveHere(t, "SENDGATE_BEHIND_PROXY=true")
	for _, want := range []string{"SENDGATE_BEHIND_PROXY is set and SENDGATE_TRUSTED_PROXIES is not", "memory limit set"} {
		if !strings.Contains(log.String(), want) && (want != "memory limit set" || os.Getenv("GOMEMLIMIT") == "") {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
}
