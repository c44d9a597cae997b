package emulator_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/emulator/catalog"
)

type hooksView struct {
	Hooks      map[string]emulator.Hook
	Registered map[string][]string
	Keys       map[string]string
}

func (b *server) hooksView(t *testing.T, query string) hooksView {
	t.Helper()
	var v hooksView
	fromJSON(t, b.do(t, "GET", "/_hooks"+query, "", nil).body, &v)
	return v
}

func TestHooksAreSetByTheControlAPI(t *testing.T) {
	t.Parallel()
	in := newInbox(t, nil)
	opt := fast("", emulator.Hook{})
	opt.Hooks = nil
	b := start(t, opt)
	if a := b.do(t, "PUT", "/_hooks", `{"postmark":{"url":"`+in.URL+`"},"smtp":{"url":"lmtp://127.0.0.1:1"}}`, nil); a.status != 200 {
		t.Fatalf("PUT = %d %s", a.status, a.body)
	}
	b.do(t, "PUT", "/_hooks?provider=mailgun", `{"mailgun":{"url":"`+in.URL+`","signing_key":"k"}}`, nil)
	keys := b.HookKeys()
	want := map[string]emulator.Hook{
		"postmark": {"url": in.URL, "username": keys["postmark_username"], "password": keys["postmark_password"]},
		"mailgun":  {"url": in.URL, "signing_key": "k"},
		"smtp":     {"url": "lmtp://127.0.0.1:1"},
	}
	v := b.hooksView(t, "")
	if diff := cmp.Diff(want, v.Hooks); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(keys, v.Keys); diff != "" || keys["sns_ca_pem"] == "" || keys["sendgrid_public_key"] == "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if got := b.hooksView(t, "?provider=smtp").Hooks; len(got) != 1 {
		t.Errorf("hooks of smtp = %v", got)
	}
	b.postmark(t, "/email", postmarkBody())
	in.wait(t, 1)
	if a := b.do(t, "DELETE", "/_hooks?provider=postmark", "", nil); a.status != 204 {
		t.Errorf("DELETE = %d", a.status)
	}
	b.postmark(t, "/email", postmarkBody())
	if s := b.Stats()["postmark"].Hooks; s.Pending != 0 || s.Posted != 1 {
		t.Errorf("without a hook: %+v", s)
	}
	b.do(t, "DELETE", "/_hooks", "", nil)
	if got := b.hooksView(t, "").Hooks; len(got) != 0 {
		t.Errorf("after DELETE: %v", got)
	}
}

func TestHooksAreChecked(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	for body, want := range map[string]string{
		`{"acme":{"url":"http://127.0.0.1/"}}`:                                             "provider",
		`{"mailgun":{"url":"http://192.0.2.1/"}}`:                                          "loopback",
		`{"mailgun":{"url":"http://127.0.0.1.example.org/"}}`:                              "loopback",
		`{"mailgun":{"url":"ftp://127.0.0.1/"}}`:                                           "url",
		`{"mailgun":{"url":""}}`:                                                           "url",
		`{"smtp":{"url":"http://127.0.0.1:25/"}}`:                                          "lmtp",
		`{"smtp":{"url":"lmtp://127.0.0.1"}}`:                                              "port",
		`{"sendgrid":{"url":"http://127.0.0.1/","signing_key":"x"}}`:                       "signing_key",
		`{"mailgun":{"url":"http://127.0.0.1/","password":"x"}}`:                           "unknown field",
		`{"postmark":{"url":"http://127.0.0.1/","header":"X-A"}}`:                          "go together",
		`{"postmark":{"url":"http://127.0.0.1/","header":"X A","token":"t"}}`:              "header",
		`{"postmark":{"url":"http://127.0.0.1/","header":"X","token":"t","username":"u"}}`: "without",
		`{"ses":{"url":"http://127.0.0.1/","topic_arn":"x"}}`:                              "arn",
		`{"ses":{"uri":"http://127.0.0.1/"}}`:                                              "unknown field",
		`{} {}`:                                                                            "more data",
	} {
		if a := b.do(t, "PUT", "/_hooks", body, nil); a.status != 400 || !strings.Contains(a.body, want) {
			t.Errorf("%s = %d %s, want ...%s...", body, a.status, a.body, want)
		}
	}
	for _, path := range []string{"/_hooks?provider=acme", "/_hooks/held?provider=acme"} {
		if a := b.do(t, "DELETE", path, "", nil); a.status != 400 {
			t.Errorf("DELETE %s = %d", path, a.status)
		}
	}
	remote, err := catalog.New(emulator.Options{AllowRemote: true, Hooks: map[string]emulator.Hook{"ses": {"url": "https://gw.example.org/hooks/ses"}}})
	if err != nil || remote == nil {
		t.Errorf("a remote hook with AllowRemote: %v", err)
	}
	if _, err := catalog.New(emulator.Options{Hooks: map[string]emulator.Hook{"ses": {"url": "https://gw.example.org/hooks/ses"}}}); err == nil {
		t.Error("a remote hook works without AllowRemote")
	}
	if _, err := catalog.New(emulator.Options{EventPace: -1}); err == nil {
		t.Error("a negative pace works")
	}
}

func TestHooksDoNotFollowRedirects(t *testing.T) {
	t.Parallel()
	elsewhere := newInbox(t, nil)
	srv := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	t.Cleanup(srv.Close)
	b := start(t, fast("postmark", emulator.Hook{"url": srv.URL}))
	b.postmark(t, "/email", postmarkBody())
	if s := b.settled(t, "postmark", func(s emulator.HookStats) bool { return s.GivenUp == 1 }); s.Refused[307] != 4 {
		t.Errorf("stats = %+v", s)
	}
	if n := len(elsewhere.got()); n != 0 {
		t.Errorf("%d calls elsewhere", n)
	}
}

func TestStopDropsWhatIsPending(t *testing.T) {
	t.Parallel()
	in := newInbox(t, nil)
	b := start(t, emulator.Options{Hooks: map[string]emulator.Hook{"postmark": {"url": in.URL}}, EventPace: 1e12})
	b.postmark(t, "/email", postmarkBody())
	if s := b.Stats()["postmark"].Hooks; s.Pending != 1 {
		t.Errorf("stats = %+v", s)
	}
	if err := b.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(in.got()); n != 0 {
		t.Errorf("%d calls", n)
	}
}

func TestUnreachableHookIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := start(t, fast("postmark", emulator.Hook{"url": "http://127.0.0.1:1/"}))
	b.postmark(t, "/email", postmarkBody())
	s := b.settled(t, "postmark", func(s emulator.HookStats) bool { return s.GivenUp == 1 })
	if s.Failed != 4 || s.Posted != 4 {
		t.Errorf("stats = %+v", s)
	}
}
