package signin

import (
	"bytes"
	"html"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/pquerna/otp/hotp"

	"github.com/sendgate/sendgate/internal/dash"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestMain(m *testing.M) {
	pgtest.Parallel(4)
	m.Run()
}

var _ dash.Gate = (*Gate)(nil)

// rig is two replicas of the gate on one database, each with its own listener.
type rig struct {
	t      *testing.T
	dsn    string
	db     *postgres.DB
	gate   *Gate    // the first
	urls   []string // of the two
	mu     sync.Mutex
	at     time.Time
	log    bytes.Buffer
	failed int
}

func (r *rig) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at
}

func (r *rig) move(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = r.at.Add(d)
}

// Write implements io.Writer for the log.
func (r *rig) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(b)
}

func newRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, at: time.Now()}
	r.dsn = pgtest.NewURL(t)
	box, err := seal.NewBox(bytes.Repeat([]byte("b"), seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		db, err := postgres.Open(t.Context(), postgres.Options{URL: r.dsn, Connections: 8, Box: box})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		o := Options{
			Store: db, Key: bytes.Repeat([]byte("k"), 32), Client: networkOf, Now: r.now,
			Failed: func(*http.Request) { r.mu.Lock(); r.failed++; r.mu.Unlock() },
			Log:    slog.New(slog.NewJSONHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug})),
		}
		for _, f := range change {
			f(&o)
		}
		g, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewServer(site(g))
		t.Cleanup(srv.Close)
		r.urls = append(r.urls, srv.URL)
		if r.gate == nil {
			r.db, r.gate = db, g
		}
	}
	return r
}

// networkOf is the network that a test says it comes from.
func networkOf(q *http.Request) netip.Prefix {
	if from := q.Header.Get("X-From"); from != "" {
		return netip.MustParsePrefix(from + "/32")
	}
	return netip.MustParsePrefix("192.0.2.1/32")
}

// site is a dashboard of two pages: one shows who is in, the other changes something.
func site(g *Gate) http.Handler {
	root := chi.NewRouter()
	root.Route("/dash", func(d chi.Router) {
		d.Get("/", func(w http.ResponseWriter, q *http.Request) {
			p, in, err := g.Person(q)
			if err != nil || !in {
				http.Error(w, "nobody", http.StatusUnauthorized)
				return
			}
			_, _ = io.WriteString(w, p.Name+" "+string(p.Role)+" csrf="+p.Token)
		})
		d.Post("/change", func(w http.ResponseWriter, q *http.Request) {
			if err := g.Check(q); err != nil {
				http.Error(w, err.Error(), http.StatusForbidden)
			}
		})
		g.Routes(d, func(w http.ResponseWriter, _ *http.Request, status int, title string, content template.HTML) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "<title>"+title+"</title>"+string(content))
		})
	})
	return root
}

// browser keeps cookies.
type browser struct {
	t      *testing.T
	base   string
	from   string // its address; "" is that of everybody
	client *http.Client
}

func (r *rig) browser() *browser {
	jar, _ := cookiejar.New(nil)
	return &browser{t: r.t, base: r.urls[0], client: &http.Client{Jar: jar}}
}

type answer struct {
	status int
	path   string // where it led
	header http.Header
	body   string
}

// do makes a request with the headers of a browser; headers are name, value pairs that replace them.
func (b *browser) do(method, path string, form url.Values, headers ...string) answer {
	b.t.Helper()
	q, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if method == "POST" {
		q.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		q.Header.Set("Origin", b.base)
		q.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	if b.from != "" {
		q.Header.Set("X-From", b.from)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		q.Header.Set(headers[i], headers[i+1])
	}
	resp, err := b.client.Do(q)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{status: resp.StatusCode, path: resp.Request.URL.Path, header: resp.Header, body: html.UnescapeString(string(body))}
}

// who is what the dashboard says of the browser: "ann admin", or "nobody".
func (b *browser) who() string {
	b.t.Helper()
	body, _, _ := strings.Cut(b.do("GET", "/dash/", nil).body, " csrf=")
	return strings.TrimSpace(body)
}

func (b *browser) csrf() string {
	b.t.Helper()
	_, token, _ := strings.Cut(b.do("GET", "/dash/", nil).body, " csrf=")
	return token
}

// cookie is the session in the browser.
func (b *browser) cookie() string {
	u, _ := url.Parse(b.base + "/dash/")
	for _, c := range b.client.Jar.Cookies(u) {
		if c.Name == "sendgate" {
			return c.Value
		}
	}
	return ""
}

func (b *browser) setCookie(value string) {
	u, _ := url.Parse(b.base + "/dash/")
	b.client.Jar.SetCookies(u, []*http.Cookie{{Name: "sendgate", Value: value, Path: "/"}})
}

// person is somebody who has set up a sign-in.
type person struct {
	name, password, secret string
	codes                  []string // for recovery
	link                   string
}

const goodPassword = "correct horse battery"

// invite makes a user and returns the token of the link.
func (r *rig) invite(name string, role record.Role) string {
	r.t.Helper()
	token, hash := record.NewToken()
	if err := r.db.CreateUser(r.t.Context(), "tester", name, role, hash); err != nil {
		r.t.Fatal(err)
	}
	return token
}

var (
	secretShown = regexp.MustCompile(`<code>([A-Z2-7]{4}(?: [A-Z2-7]{4}){7})</code>`)
	codeShown   = regexp.MustCompile(`<code>([A-Z2-7]{4}(?:-[A-Z2-7]{4}){3})</code>`)
)

// welcome uses a link in a browser.
func (r *rig) welcome(b *browser, name, link string) *person {
	r.t.Helper()
	a := b.do("POST", "/dash/welcome", url.Values{"token": {link}})
	shown := secretShown.FindStringSubmatch(a.body)
	if shown == nil {
		r.t.Fatalf("the page of the link shows no secret: %d %s", a.status, a.body)
	}
	p := &person{name: name, password: goodPassword, secret: strings.ReplaceAll(shown[1], " ", ""), link: link}
	a = b.do("POST", "/dash/welcome", url.Values{"token": {link}, "password": {p.password}, "again": {p.password}, "code": {r.code(p, 0)}})
	for _, m := range codeShown.FindAllStringSubmatch(a.body, -1) {
		p.codes = append(p.codes, m[1])
	}
	if a.status != 200 || len(p.codes) != recoveryCodes {
		r.t.Fatalf("the set-up answers %d with %d recovery codes: %s", a.status, len(p.codes), a.body)
	}
	return p
}

// person makes a user and lets her set up the sign-in in a browser of her own.
func (r *rig) person(name string, role record.Role) (*person, *browser) {
	r.t.Helper()
	b := r.browser()
	return r.welcome(b, name, r.invite(name, role)), b
}

// code is what her authenticator shows, so many steps from now.
func (r *rig) code(p *person, steps int64) string {
	r.t.Helper()
	code, err := hotp.GenerateCode(p.secret, uint64(r.now().Unix()/30+steps))
	if err != nil {
		r.t.Fatal(err)
	}
	return code
}

func (b *browser) signIn(name, password, code string) answer {
	b.t.Helper()
	return b.do("POST", "/dash/signin", url.Values{"name": {name}, "password": {password}, "code": {code}})
}

// signIn signs a person in with a fresh code, in another browser.
func (r *rig) signIn(p *person) *browser {
	r.t.Helper()
	b := r.browser()
	r.move(stepTime)
	if a := b.signIn(p.name, p.password, r.code(p, 0)); a.status != 200 || a.path != "/dash/" {
		r.t.Fatalf("sign-in answers %d at %s: %s", a.status, a.path, a.body)
	}
	return b
}

func (r *rig) wantWho(b *browser, want string) {
	r.t.Helper()
	if got := b.who(); got != want {
		r.t.Errorf("who = %q, want %q", got, want)
	}
}
