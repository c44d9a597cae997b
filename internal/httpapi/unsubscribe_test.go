package httpapi

import (
	"errors"
	"html"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/unsub"
)

// fakeLinks opens tokens that a test made up.
type fakeLinks map[string]unsub.Token

func (f fakeLinks) Open(token string) (unsub.Token, error) {
	t, ok := f[token]
	if !ok {
		return unsub.Token{}, unsub.ErrToken
	}
	return t, nil
}

var annToken = unsub.Token{Tenant: 1, Stream: "news", Message: mail.NewID(), Email: `ann<script>&"@example.org`}

func linkRig(t *testing.T) *rig {
	t.Helper()
	return newRig(t, func(o *Options) { o.Unsubscribe = fakeLinks{"good": annToken} })
}

const (
	urlencoded = "application/x-www-form-urlencoded"
	oneClick   = "List-Unsubscribe=One-Click"
)

func TestOneClickUnsubscribes(t *testing.T) {
	t.Parallel()
	parts := "--b\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--b--\r\n"
	for name, form := range map[string][2]string{
		"urlencoded": {urlencoded, oneClick}, "with charset": {urlencoded + "; charset=UTF-8", oneClick},
		"multipart": {"multipart/form-data; boundary=b", parts},
	} {
		r := linkRig(t)
		a := r.do("POST", "/u/good", "", form[1], "Content-Type", form[0])
		r.want(a, 200, "")
		if a.header.Get("Set-Cookie") != "" || a.header.Get("Location") != "" {
			t.Errorf("%s: the answer has a cookie or goes elsewhere: %v", name, a.header)
		}
		want := map[suppressionKey]record.Suppression{{1, strings.ToLower(annToken.Email), "news"}: {
			Tenant: 1, Email: strings.ToLower(annToken.Email), Stream: "news", Reason: "unsubscribe", Origin: "unsubscribe",
			MessageID: annToken.Message, CreatedAt: r.clock.now(),
		}}
		if diff := cmp.Diff(want, r.store.suppressions); diff != "" {
			t.Errorf("%s: suppressions (-want +got):\n%s", name, diff)
		}
		in := r.store.intakes[0]
		e := in.Payloads[0].Events[0]
		if in.Account != 0 || in.Source != mail.FromUnsubscribe || e.Type != mail.EventUnsubscribed || e.Recipient != annToken.Email ||
			e.MessageID != annToken.Message || e.Stream != "news" || e.Tenant != 1 {
			t.Errorf("%s: intake = %+v", name, in)
		}
	}
}

func TestSecondClickIsAsGoodAsTheFirst(t *testing.T) {
	t.Parallel()
	r := linkRig(t)
	for range 3 {
		r.want(r.do("POST", "/u/good", "", oneClick, "Content-Type", urlencoded), 200, "")
		r.clock.move(time.Hour)
	}
	if len(r.store.suppressions) != 1 || r.store.kept != 1 {
		t.Errorf("suppressions = %d, events = %d, want one of each", len(r.store.suppressions), r.store.kept)
	}
}

func TestLookingAtALinkChangesNothing(t *testing.T) {
	t.Parallel()
	r := linkRig(t)
	a := r.do("GET", "/u/good", "", "")
	r.want(a, 200, "")
	body := string(a.body)
	if strings.Contains(body, "<script>") || !strings.Contains(html.UnescapeString(body), annToken.Email) {
		t.Errorf("the page does not show the address safely: %s", body)
	}
	if !strings.Contains(body, `<form method="post">`) || !strings.Contains(body, `name="List-Unsubscribe" value="One-Click"`) {
		t.Errorf("the page has no form that unsubscribes: %s", body)
	}
	policy := a.header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") ||
		a.header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("headers = %v", a.header)
	}
	r.want(r.do("HEAD", "/u/good", "", ""), 200, "")
	if len(r.store.calls) != 0 {
		t.Errorf("the store was asked: %v", r.store.calls)
	}
}

func TestUnsubscribeRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		path, kind, body string
		status           int
	}{
		"forged":            {"/u/forged", urlencoded, oneClick, 404},
		"no form":           {"/u/good", urlencoded, "x=y", 400},
		"another value":     {"/u/good", urlencoded, "List-Unsubscribe=No", 400},
		"JSON":              {"/u/good", "application/json", `{"List-Unsubscribe":"One-Click"}`, 415},
		"odd type":          {"/u/good", ";;", oneClick, 415},
		"broken parts":      {"/u/good", "multipart/form-data; boundary=b", "--b\r\n", 400},
		"parts, no border":  {"/u/good", "multipart/form-data", "x", 400},
		"more than 4 kB":    {"/u/good", urlencoded, oneClick + "&x=" + strings.Repeat("x", maxUnsubscribe), 413},
		"database is down":  {"/u/good", urlencoded, oneClick, 503},
		"our own mistake":   {"/u/good", urlencoded, oneClick, 500},
		"control character": {"/u/a%00b", urlencoded, oneClick, 404},
	} {
		r := linkRig(t)
		switch tc.status {
		case 503:
			r.store.failWith(&record.Unavailable{Reason: "database", RetryAfter: time.Second})
		case 500:
			r.store.failWith(errors.New("secret cause"))
		}
		a := r.do("POST", tc.path, "", tc.body, "Content-Type", tc.kind)
		if a.status != tc.status || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: answer = %d %s, want %d as a page", name, a.status, a.header.Get("Content-Type"), tc.status)
		}
		if (a.header.Get("Retry-After") != "") != (tc.status == 503) || strings.Contains(string(a.body), "secret") {
			t.Errorf("%s: %v %s", name, a.header, a.body)
		}
		if len(r.store.suppressions) != 0 {
			t.Errorf("%s: something was suppressed", name)
		}
	}
}

func TestGuessingLinksIsBounded(t *testing.T) {
	t.Parallel()
	r := linkRig(t)
	for range badTokensPerMinute {
		if a := r.do("GET", "/u/guess", "", ""); a.status != 404 {
			t.Fatalf("answer = %d, want 404", a.status)
		}
	}
	a := r.do("GET", "/u/guess", "", "")
	if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("one guess too many = %d %v, want 429", a.status, a.header)
	}
	r.want(r.do("POST", "/u/good", "", oneClick, "Content-Type", urlencoded), 200, "")
	for range unsubscribesPerMinute {
		a = r.do("GET", "/u/good", "", "")
	}
	if a.status != http.StatusTooManyRequests {
		t.Errorf("more than %d a minute = %d, want 429", unsubscribesPerMinute, a.status)
	}
	r.clock.move(time.Minute)
	r.want(r.do("GET", "/u/good", "", ""), 200, "")
}
