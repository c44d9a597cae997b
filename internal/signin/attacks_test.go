package signin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/record"
)

// Strangers who guess at a name, however many, keep neither its owner out, who comes from where she came before, nor anybody for
// ever.
func TestGuessesAreHeldBackAndHeal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, _ := r.person("ann", record.RoleViewer)
	guess := func(from, name string) int {
		b := r.browser()
		b.from = from
		return b.signIn(name, "a wrong password", "000000").status
	}
	for _, name := range []string{"ann", "nobody-has-it"} { // who guesses sees no difference
		var got []int
		for range 7 {
			got = append(got, guess("198.51.100.1", name))
		}
		if want := []int{403, 403, 403, 403, 403, 429, 429}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("seven guesses at %s = %v, want %v", name, got, want)
		}
	}
	for i := range 15 { // other networks use up what is left for all strangers together
		if got := guess(fmt.Sprintf("198.51.100.%d", 10+i), "ann"); got != 403 {
			t.Fatalf("guess %d = %d, want 403", i, got)
		}
	}
	stranger := r.browser()
	stranger.from = "203.0.113.9"
	r.move(stepTime)
	a := stranger.signIn(p.name, p.password, r.code(p, 0))
	if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("from a new network while others guess = %d, %v", a.status, a.header)
	}
	r.wantWho(r.signIn(p), "ann viewer") // from the network of the set-up
	r.move(2 * time.Minute)
	if a := stranger.signIn(p.name, p.password, r.code(p, 0)); a.path != "/dash/" {
		t.Errorf("later = %d %s", a.status, a.body)
	}
	if lines := strings.Count(r.log.String(), "somebody guesses"); lines == 0 || lines > 4 {
		t.Errorf("%d lines of the log for all this", lines)
	}
}

// Who has the password has few tries for the code, and a new link lets the person in all the same.
func TestCodesCanNotBeTriedThrough(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, _ := r.person("ann", record.RoleViewer)
	refused := map[int]int{}
	for range 15 {
		b := r.browser()
		refused[b.signIn(p.name, p.password, "000000").status]++
		r.move(10 * time.Second)
	}
	if refused[403] != 10 || refused[429] != 5 {
		t.Errorf("15 wrong codes = %v, want 10 times 403", refused)
	}
	b := r.browser()
	token, hash := record.NewToken()
	if err := r.db.ResetUser(t.Context(), "tester", "ann", hash); err != nil {
		t.Fatal(err)
	}
	r.welcome(b, "ann", token)
	r.wantWho(b, "ann viewer")
	r.move(10 * time.Minute)
	p, b2 := r.person("bob", record.RoleViewer)
	r.wantWho(b2, "bob viewer")
	r.wantWho(r.signIn(p), "bob viewer")
}

func TestLinksCanNotBeTriedThrough(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	b := r.browser()
	got := map[int]int{}
	for range 25 {
		token, _ := record.NewToken()
		got[b.do("POST", "/dash/welcome", url.Values{"token": {token}}).status]++
	}
	if got[403] != 20 || got[429] != 5 {
		t.Errorf("25 made-up links = %v, want 20 times 403", got)
	}
}

// What an admin does to a person binds at once, on the other replica too.
func TestSessionsEndWithWhatTheyAreBuiltOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	viewer, yes, no := record.RoleViewer, true, false
	for what, do := range map[string]func() error{
		"another role": func() error { return r.db.SetUser(ctx, "tester", "ann", &viewer, nil) },
		"disabled": func() error {
			return errors.Join(r.db.SetUser(ctx, "tester", "ann", nil, &yes), r.db.SetUser(ctx, "tester", "ann", nil, &no))
		},
		"reset":      func() error { _, hash := record.NewToken(); return r.db.ResetUser(ctx, "tester", "ann", hash) },
		"signed out": func() error { return r.db.EndUserSessions(ctx, "tester", "ann", "") },
	} {
		token, hash := record.NewToken()
		if err := r.db.CreateUser(ctx, "tester", "ann", record.RoleAdmin, hash); err != nil && !errors.Is(err, record.ErrConflict) {
			t.Fatal(err)
		}
		if err := r.db.ResetUser(ctx, "tester", "ann", hash); err != nil {
			t.Fatal(err)
		}
		b := r.browser()
		r.welcome(b, "ann", token)
		b.base = r.urls[1]
		if b.setCookie(b.cookieAt(r.urls[0])); b.who() == "nobody" {
			t.Fatalf("%s: not signed in at the other replica", what)
		}
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if got := b.who(); got != "nobody" {
			t.Errorf("%s: still %s", what, got)
		}
	}
}

// cookieAt is the session at another address.
func (b *browser) cookieAt(base string) string {
	other := *b
	other.base = base
	return other.cookie()
}

func TestADisabledUserIsOutAtOnceAndCanNotComeBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, b := r.person("ann", record.RoleAdmin)
	yes, no := true, false
	if err := r.db.SetUser(t.Context(), "tester", "ann", nil, &yes); err != nil {
		t.Fatal(err)
	}
	r.wantWho(b, "nobody")
	r.move(stepTime)
	if a := r.browser().signIn(p.name, p.password, r.code(p, 0)); a.status != http.StatusForbidden {
		t.Errorf("sign-in of a disabled user = %d", a.status)
	}
	if err := r.db.SetUser(t.Context(), "tester", "ann", nil, &no); err != nil {
		t.Fatal(err)
	}
	r.wantWho(b, "nobody") // what has ended stays ended
	r.wantWho(r.signIn(p), "ann admin")
}

func TestAPersonEndsHerOwnSessions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, b := r.person("ann", record.RoleViewer)
	_, other := r.person("bob", record.RoleViewer)
	second := r.signIn(p)
	sessions, err := r.db.UserSessions(t.Context(), "ann")
	if err != nil || len(sessions) != 2 {
		t.Fatalf("sessions = %+v, %v", sessions, err)
	}
	bobs, err := r.db.UserSessions(t.Context(), "bob")
	if err != nil || len(bobs) != 1 {
		t.Fatalf("sessions = %+v, %v", bobs, err)
	}
	page := second.do("GET", "/dash/sessions", nil)
	if !strings.Contains(page.body, sessions[1].ID) || strings.Contains(page.body, bobs[0].ID) || !strings.Contains(page.body, "192.0.2.1/32 <strong>this one") {
		t.Errorf("the page of sessions: %s", page.body)
	}
	second.do("POST", "/dash/sessions", url.Values{"csrf": {second.csrf()}, "end": {bobs[0].ID}})
	r.wantWho(other, "bob viewer")
	second.do("POST", "/dash/sessions", url.Values{"csrf": {second.csrf()}, "end": {sessions[1].ID}})
	r.wantWho(b, "nobody")
	r.wantWho(second, "ann viewer")
	second.do("POST", "/dash/sessions", url.Values{"csrf": {second.csrf()}, "all": {"yes"}})
	r.wantWho(second, "nobody")
}

func TestAPersonChangesPasswordAndAuthenticatorWithBoth(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, b := r.person("ann", record.RoleViewer)
	elsewhere := r.signIn(p)
	form := url.Values{"csrf": {b.csrf()}, "password": {p.password}, "code": {"000000"}}
	if a := b.do("POST", "/dash/sessions", form); a.status != http.StatusForbidden || strings.Contains(a.body, "New password") {
		t.Errorf("with a wrong code = %d", a.status)
	}
	r.wantWho(b, "ann viewer")
	r.move(stepTime)
	form.Set("code", r.code(p, 0))
	a := b.do("POST", "/dash/sessions", form)
	token, _, _ := strings.Cut(strings.SplitN(a.body, `name="token" value="`, 2)[1], `"`)
	next := r.welcome(b, "ann", token)
	if next.secret == p.secret {
		t.Error("the authenticator is the old one")
	}
	r.wantWho(elsewhere, "nobody")
	r.wantWho(b, "ann viewer")
	r.move(stepTime)
	if a := r.browser().signIn(p.name, p.password, r.code(p, 0)); a.status != http.StatusForbidden {
		t.Errorf("with the old authenticator = %d", a.status)
	}
	if a := r.browser().signIn(p.name, p.password, p.codes[0]); a.status != http.StatusForbidden {
		t.Errorf("with an old recovery code = %d", a.status)
	}
	r.wantWho(r.signIn(next), "ann viewer")
}

// Nothing that proves a person is in a log, in the audit, or readable in the database.
func TestSecretsAreNowhere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, b := r.person("ann", record.RoleAdmin)
	second := r.signIn(p)
	r.browser().signIn(p.name, p.password, "000000")
	r.browser().signIn("typed-"+p.password, p.password, "000000")
	for range 8 {
		r.browser().signIn("dee", "typed-it-wrong", "000000")
	}
	r.browser().signIn(p.name, p.password, p.codes[0])
	cookie, csrf := b.cookie(), b.csrf()
	b.do("POST", "/dash/signout", url.Values{"csrf": {csrf}})
	stored := r.log.String()
	for _, table := range []string{"audit", "person", "person_code", "person_link", "person_session"} {
		var rows string
		if err := r.sql(func(ctx context.Context, c *pgx.Conn) error {
			return c.QueryRow(ctx, `SELECT coalesce(json_agg(x), '[]')::text FROM `+table+` x`).Scan(&rows)
		}); err != nil {
			t.Fatal(err)
		}
		stored += rows
	}
	if !strings.Contains(stored, "session.start") || !strings.Contains(stored, "signed in") || !strings.Contains(stored, "session.end") || !strings.Contains(stored, "user.welcome") {
		t.Errorf("what happened is not told: %s", stored)
	}
	for what, secret := range map[string]string{
		"password": p.password, "secret of the authenticator": p.secret, "recovery code": strings.ReplaceAll(p.codes[1], "-", ""), "its shown form": p.codes[1],
		"link": p.link, "session": cookie, "another session": second.cookie(), "CSRF token": csrf, "what was typed as a name": "typed-",
	} {
		if secret == "" || strings.Contains(stored, secret) {
			t.Errorf("the %s (%q) is in a log or in the database", what, secret)
		}
	}
}

func (r *rig) sql(do func(context.Context, *pgx.Conn) error) error {
	c, err := pgx.Connect(r.t.Context(), r.dsn)
	if err != nil {
		return err
	}
	return errors.Join(do(r.t.Context(), c), c.Close(r.t.Context()))
}

func TestHashesAreSharedOut(t *testing.T) {
	t.Parallel()
	h, err := newHashes()
	if err != nil {
		t.Fatal(err)
	}
	greedy, other := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
	for range cap(h.places) {
		h.places <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error, hashesEach)
	for range hashesEach {
		go func() { _, err := h.of(ctx, greedy, "x"); waiting <- err }()
	}
	for wait := 0; wait < hashesEach; runtime.Gosched() {
		h.mu.Lock()
		wait = h.waiting[greedy]
		h.mu.Unlock()
	}
	if _, err := h.of(t.Context(), greedy, "x"); !errors.Is(err, errBusy) {
		t.Errorf("one more of the same network: %v, want errBusy", err)
	}
	cancel()
	for range hashesEach {
		if err := <-waiting; !errors.Is(err, errBusy) {
			t.Errorf("who gave up: %v", err)
		}
	}
	for range cap(h.places) {
		<-h.places
	}
	hash, err := h.of(t.Context(), other, "x")
	if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash %q, %v", hash, err)
	}
	if same, err := h.same(t.Context(), other, "x", hash); !same || err != nil {
		t.Errorf("same = %v, %v", same, err)
	}
	if same, err := h.same(t.Context(), other, "nobody has this password", ""); same || err != nil {
		t.Errorf("the password of nobody opens: %v, %v", same, err)
	}
}

// Strangers who have the password use up what all strangers together may try. They are not told, for that would say that the password
// is right, and they keep nobody out who comes from where she came before.
func TestStrangersWithThePasswordLearnNothingAndLockNobodyOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, _ := r.person("ann", record.RoleViewer)
	for i := range 15 {
		for _, password := range []string{p.password, "a wrong password"} {
			b := r.browser()
			b.from = fmt.Sprintf("198.51.%d.1", 100+i)
			if a := b.signIn(p.name, password, "000000"); a.status != http.StatusForbidden {
				t.Fatalf("try %d with the password %q = %d %s", i, password, a.status, a.body)
			}
		}
		r.move(time.Minute)
	}
	stranger := r.browser()
	stranger.from = "203.0.113.9"
	if a := stranger.signIn(p.name, p.password, r.code(p, 0)); a.status != http.StatusForbidden {
		t.Errorf("a stranger's right code beyond the allowance = %d", a.status)
	}
	r.wantWho(r.signIn(p), "ann viewer")
}
