package signin

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

func TestALinkSetsUpASignInOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, b := r.person("ann", record.RoleAdmin)
	r.wantWho(b, "ann admin")
	if a := r.browser().do("POST", "/dash/welcome", url.Values{"token": {p.link}}); a.status != http.StatusForbidden {
		t.Errorf("the link again = %d, want 403", a.status)
	}
	r.wantWho(r.signIn(p), "ann admin")
	if a := r.browser().do("GET", "/dash/welcome", nil); a.status != 200 || !strings.Contains(a.body, "/dash/welcome/token.js") {
		t.Errorf("the page of links = %d %s", a.status, a.body)
	}
	if a := r.browser().do("GET", "/dash/welcome/token.js", nil); a.status != 200 || !strings.Contains(a.header.Get("Content-Type"), "javascript") || !strings.Contains(a.body, "replaceState") {
		t.Errorf("its script = %d %s", a.status, a.header)
	}
}

func TestALinkRefusesWeakPasswordsAndWrongCodesAndStaysValid(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	b, link := r.browser(), r.invite("annabel", record.RoleViewer)
	for why, form := range map[string]url.Values{
		"12 characters": {"password": {"short"}, "again": {"short"}},
		"6 different":   {"password": {"aaaaaaaaaaaaaa"}, "again": {"aaaaaaaaaaaaaa"}},
		"your name":     {"password": {"annabel has a horse"}, "again": {"annabel has a horse"}},
		"differ":        {"password": {goodPassword}, "again": {goodPassword + "x"}},
		"The code":      {"password": {goodPassword}, "again": {goodPassword}, "code": {"000000"}},
	} {
		form.Set("token", link)
		if a := b.do("POST", "/dash/welcome", form); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, why) {
			t.Errorf("%s: %d %s", why, a.status, a.body)
		}
	}
	r.wantWho(b, "nobody")
	r.welcome(b, "annabel", link)
}

func TestAStolenSessionEndsWithTheSignOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, b := r.person("ann", record.RoleViewer)
	thief := r.browser()
	thief.base = r.urls[1] // at the other replica
	thief.setCookie(b.cookie())
	r.wantWho(thief, "ann viewer")
	if a := b.do("POST", "/dash/signout", url.Values{"csrf": {b.csrf()}}); a.path != "/dash/signin" || b.cookie() != "" {
		t.Errorf("sign-out leads to %s, cookie %q", a.path, b.cookie())
	}
	r.wantWho(thief, "nobody")
}

func TestASignInTakesOverNoSession(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, first := r.person("ann", record.RoleViewer)
	planted := "PLANTEDPLANTEDPLANTEDPLANTEDPLANTEDPLANTEDPLANTED"
	b := r.browser()
	b.setCookie(planted)
	r.move(stepTime)
	b.signIn(p.name, p.password, r.code(p, 0))
	r.wantWho(b, "ann viewer")
	attacker := r.browser()
	attacker.setCookie(planted)
	r.wantWho(attacker, "nobody")
	// A real session that somebody planted ends.
	planted = first.cookie()
	b.setCookie(planted)
	r.move(stepTime)
	b.signIn(p.name, p.password, r.code(p, 0))
	if b.cookie() == planted {
		t.Error("the session kept its token over a sign-in")
	}
	r.wantWho(first, "nobody")
}

func TestForgedRequestsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, b := r.person("ann", record.RoleAdmin)
	_, other := r.person("bob", record.RoleAdmin)
	good := b.csrf()
	for name, tc := range map[string]struct {
		token   string
		headers []string
	}{
		"no token":                {"", nil},
		"a wrong token":           {good + "x", nil},
		"of another session":      {other.csrf(), nil},
		"another origin":          {good, []string{"Origin", "https://evil.example", "Sec-Fetch-Site", ""}},
		"another site":            {good, []string{"Sec-Fetch-Site", "cross-site"}},
		"a sibling":               {good, []string{"Sec-Fetch-Site", "same-site"}},
		"another site, as header": {"", []string{"Sec-Fetch-Site", "cross-site", "X-CSRF-Token", good}},
	} {
		form := url.Values{"all": {"yes"}}
		if tc.token != "" {
			form.Set("csrf", tc.token)
		}
		for _, path := range []string{"/dash/signout", "/dash/sessions", "/dash/change"} {
			if a := b.do("POST", path, form, tc.headers...); a.status != http.StatusForbidden {
				t.Errorf("%s with %s = %d, want 403", path, name, a.status)
			}
		}
	}
	r.wantWho(b, "ann admin")
	for _, headers := range [][]string{nil, {"X-CSRF-Token", good}} {
		form := url.Values{}
		if headers == nil {
			form.Set("csrf", good)
		}
		if a := b.do("POST", "/dash/change", form, headers...); a.status != 200 {
			t.Errorf("with token and headers %v = %d, want 200", headers, a.status)
		}
	}
	// Nobody may sign somebody in as himself either.
	if a := r.browser().do("POST", "/dash/signin", url.Values{"name": {"ann"}}, "Sec-Fetch-Site", "cross-site"); a.status != http.StatusForbidden || !strings.Contains(a.body, "page of yours") {
		t.Errorf("sign-in from another site = %d %s", a.status, a.body)
	}
}

// A proxy may give us another Host than the browser used.
func TestThePublicAddressIsAnOriginToo(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.PublicURL = "https://mail.example.com/base/" })
	_, b := r.person("ann", record.RoleViewer)
	form := url.Values{"csrf": {b.csrf()}}
	for origin, want := range map[string]int{"https://mail.example.com": 200, "http://mail.example.com": 403, "https://evil.example.com": 403} {
		if a := b.do("POST", "/dash/change", form, "Origin", origin, "Sec-Fetch-Site", ""); a.status != want {
			t.Errorf("from %s = %d, want %d", origin, a.status, want)
		}
	}
}

func TestACodeCountsOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, _ := r.person("ann", record.RoleViewer)
	used := r.code(p, 0) // by the set-up
	refused := func(name, code string) {
		t.Helper()
		if a := r.browser().signIn(p.name, p.password, code); a.status != http.StatusForbidden {
			t.Errorf("%s = %d, want 403", name, a.status)
		}
	}
	refused("the code of the set-up", used)
	refused("an older one", r.code(p, -1))
	r.move(2 * stepTime)
	refused("one that is too old", r.code(p, -2))
	refused("one of the future", r.code(p, 2))
	r.move(stepTime)
	code := r.code(p, 0)
	var ok sync.Map
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			b := r.browser()
			b.base = r.urls[i%2]
			if a := b.signIn(p.name, p.password, code); a.path == "/dash/" {
				ok.Store(i, true)
			}
		})
	}
	wg.Wait()
	n := 0
	ok.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("one code signed in %d times", n)
	}
}

func TestARecoveryCodeCountsOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, _ := r.person("ann", record.RoleViewer)
	b := r.browser()
	if a := b.signIn(p.name, p.password, strings.ToLower(p.codes[3])+" "); a.path != "/dash/" {
		t.Fatalf("with a recovery code: %d %s", a.status, a.body)
	}
	if a := r.browser().signIn(p.name, p.password, p.codes[3]); a.status != http.StatusForbidden {
		t.Errorf("the same again = %d, want 403", a.status)
	}
	if a := b.do("GET", "/dash/sessions", nil); !strings.Contains(a.body, "Recovery codes left: 9") {
		t.Errorf("sessions: %s", a.body)
	}
}

// Whoever guesses learns nothing about names: the words and the status are the same.
func TestRefusalsAreAllTheSame(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, _ := r.person("ann", record.RoleViewer)
	gone, _ := r.person("bob", record.RoleViewer)
	yes := true
	if err := r.db.SetUser(t.Context(), "tester", "bob", nil, &yes); err != nil {
		t.Fatal(err)
	}
	r.invite("cy", record.RoleViewer)
	r.move(stepTime)
	bodies := map[string]string{}
	for name, tc := range map[string][3]string{
		"an unknown name":    {"dee", p.password, r.code(p, 0)},
		"no name":            {"", p.password, r.code(p, 0)},
		"an odd name":        {"a b!", p.password, r.code(p, 0)},
		"a wrong password":   {"ann", p.password + "x", r.code(p, 0)},
		"a huge password":    {"ann", strings.Repeat("x", 5000), r.code(p, 0)},
		"a wrong code":       {"ann", p.password, "000000"},
		"no code":            {"ann", p.password, ""},
		"a disabled user":    {"bob", gone.password, r.code(gone, 0)},
		"an invited user":    {"cy", p.password, r.code(p, 0)},
		"an invited, no pwd": {"cy", "", ""},
	} {
		b := r.browser()
		b.from = "198.51.100." + string(rune('0'+len(bodies)%10))
		a := b.signIn(tc[0], tc[1], tc[2])
		if a.status != http.StatusForbidden {
			t.Errorf("%s = %d, want 403", name, a.status)
		}
		bodies[strings.ReplaceAll(a.body, `value="`+tc[0]+`"`, `value="ann"`)] = name
	}
	if len(bodies) != 1 {
		t.Errorf("the pages differ: %v", bodies)
	}
	if r.failed != 10 {
		t.Errorf("told of %d failed sign-ins, want 10", r.failed)
	}
}

func TestCookieIsBoundToTheHostOverTLS(t *testing.T) {
	t.Parallel()
	g := &Gate{Options: Options{Secure: true}}
	w := httptest.NewRecorder()
	g.setCookie(w, "x")
	if got, want := w.Header().Get("Set-Cookie"), "__Host-sendgate=x; Path=/; HttpOnly; Secure; SameSite=Lax"; got != want {
		t.Errorf("cookie %q, want %q", got, want)
	}
}

// Pages hold nothing that the policy would have to allow by an unsafe word, and none of them is stored or tells another site where it was.
func TestPagesNeedNoUnsafePolicy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	link := r.invite("bob", record.RoleViewer)
	_, b := r.person("ann", record.RoleViewer)
	for name, a := range map[string]answer{
		"signin": r.browser().do("GET", "/dash/signin", nil), "token": r.browser().do("GET", "/dash/welcome", nil),
		"welcome": r.browser().do("POST", "/dash/welcome", url.Values{"token": {link}}), "sessions": b.do("GET", "/dash/sessions", nil),
	} {
		csp := a.header.Get("Content-Security-Policy")
		if strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: policy %q", name, csp)
		}
		if a.header.Get("Referrer-Policy") != "same-origin" || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v", name, a.header)
		}
		for _, bad := range []string{" style=", "<style", " onclick", " onsubmit", "<script>", "data:"} {
			if strings.Contains(a.body, bad) {
				t.Errorf("%s holds %q", name, bad)
			}
		}
	}
}

func TestLinksWithoutAPasswordAreForDevOnly(t *testing.T) {
	t.Parallel()
	for _, dev := range []bool{false, true} {
		r := newRig(t, func(o *Options) { o.Links = dev })
		r.invite("dev", record.RoleAdmin)
		token, hash := record.NewToken()
		if err := r.db.CreateLink(t.Context(), "tester", "dev", hash, true); err != nil {
			t.Fatal(err)
		}
		b := r.browser()
		b.do("POST", "/dash/welcome", url.Values{"token": {token}})
		want := map[bool]string{false: "nobody", true: "dev admin"}[dev]
		r.wantWho(b, want)
		again := r.browser()
		again.do("POST", "/dash/welcome", url.Values{"token": {token}})
		r.wantWho(again, "nobody")
	}
}

func TestASignInLeadsToPagesOfTheDashboardOnly(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"":                           "/dash/",
		"/dash/messages/1?tab=x":     "/dash/messages/1?tab=x",
		"/dash":                      "/dash",
		"/dashboard":                 "/dash/",
		"https://evil.example/dash/": "/dash/",
		"//evil.example/dash/":       "/dash/",
		"/dash/../v1/send":           "/dash/",
		"/dash//evil.example":        "/dash/evil.example",
		"javascript:alert(1)":        "/dash/",
		`/dash/\evil.example`:        "/dash/%5Cevil.example",
		"/dash/%zz":                  "/dash/",
	} {
		if got := nextOf(raw); got != want {
			t.Errorf("nextOf(%q) = %q, want %q", raw, got, want)
		}
	}
	r := newRig(t)
	p, _ := r.person("ann", record.RoleViewer)
	r.move(stepTime)
	b := r.browser()
	a := b.do("POST", "/dash/signin", url.Values{"name": {"Ann "}, "password": {p.password}, "code": {r.code(p, 0)}, "next": {"/dash/sessions"}})
	if a.path != "/dash/sessions" || a.status != 200 {
		t.Errorf("led to %s, %d", a.path, a.status)
	}
	if a := b.do("GET", "/dash/signin?next=/dash/sessions", nil); a.path != "/dash/sessions" {
		t.Errorf("who is in was led to %s", a.path)
	}
}

func TestStepsOfCodes(t *testing.T) {
	t.Parallel()
	secret := secretOf([]byte(strings.Repeat("k", 32)), "link")
	if secretOf([]byte(strings.Repeat("k", 32)), "other").Equal(secret) || secretOf([]byte(strings.Repeat("l", 32)), "link").Equal(secret) {
		t.Error("another link or key gives the same secret")
	}
	r := &rig{t: t, at: time.Unix(1_800_000_000, 0)}
	p := &person{secret: secret.Reveal()}
	present := r.at.Unix() / 30
	for _, tc := range []struct{ off, after, want int64 }{
		{0, 0, present},
		{-1, 0, present - 1},
		{1, 0, present + 1},
		{-2, 0, 0},
		{2, 0, 0},
		{0, present, 0},
		{-1, present, 0},
		{1, present, present + 1},
	} {
		if got := stepOf(secret, r.code(p, tc.off), r.at, tc.after); got != tc.want {
			t.Errorf("code of step %d after %d = %d, want %d", tc.off, tc.after, got, tc.want)
		}
	}
}
