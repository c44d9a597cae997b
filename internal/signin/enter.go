package signin

import (
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/sendgate/sendgate/internal/record"
)

// home is where a sign-in leads.
const home = "/dash/"

// nextOf returns where to go after the sign-in: a page of the dashboard, and no other.
func nextOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(path.Clean(u.Path)+"/", home) {
		return home
	}
	return (&url.URL{Path: path.Clean(u.Path), RawQuery: u.RawQuery}).String()
}

func (g *Gate) askSignIn(w http.ResponseWriter, r *http.Request) error {
	next := nextOf(r.URL.Query().Get("next"))
	_, in, err := g.Person(r)
	if err != nil {
		return err
	}
	if in {
		http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // nextOf lets pages of the dashboard through only
		return nil
	}
	g.show(w, r, view{page: "signin", title: "Sign in", Next: next})
	return nil
}

func (g *Gate) signIn(w http.ResponseWriter, r *http.Request) error {
	name, next := strings.ToLower(strings.TrimSpace(r.PostForm.Get("name"))), nextOf(r.PostForm.Get("next"))
	token, err := g.prove(r, name, r.PostForm.Get("password"), r.PostForm.Get("code"))
	if err != nil {
		return g.again(w, r, err, view{page: "signin", title: "Sign in", Next: next, Name: name})
	}
	if err := g.leave(r); err != nil {
		return err
	}
	g.setCookie(w, token)
	http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // as above
	return nil
}

// prove checks name, password and code, uses the code up, and begins a session. It returns the token of the session, errWrong, or
// how long to wait. The answer and the time it takes are the same for a name that nobody has, and for a disabled user.
func (g *Gate) prove(r *http.Request, name, password, code string) (string, error) {
	ctx, from := r.Context(), g.Client(r)
	if !record.ValidUserName(name) || len(password) > maxPassword {
		name, password = "", ""
	}
	login, secret, err := g.Store.Login(ctx, name)
	if err != nil && !errors.Is(err, record.ErrNotFound) {
		return "", err
	}
	if wait := g.guesses.note(name, &login, from); wait > 0 {
		g.warn(r, &login, "too many sign-ins")
		return "", tooMany(wait)
	}
	right, err := g.hashes.same(ctx, from, password, login.Password)
	if err != nil {
		return "", err
	}
	if right {
		wait, known := g.guesses.code(&login, from)
		if wait > 0 {
			g.warn(r, &login, "too many codes for the right password")
		}
		if wait > 0 && known {
			return "", tooMany(wait)
		}
		right = wait == 0
	}
	token, session := g.newSession(r)
	in := record.SignIn{User: login.User, Password: login.Password, Session: session}
	proved := true
	if code = plain(code); isCode(code) {
		in.Step = stepOf(secret, code, g.Now(), login.Step)
		proved = in.Step > 0
	} else {
		in.Code = record.HashToken(code)
	}
	err = record.ErrNotFound
	if proved { // with a wrong password too, for nobody: else the time would tell
		if !right {
			in.User = record.User{}
		}
		err = g.Store.SignIn(ctx, in)
	}
	if errors.Is(err, record.ErrNotFound) {
		g.Failed(r)
		if right {
			g.warn(r, &login, "a sign-in had the right password and a wrong or used code")
		}
		return "", errWrong
	}
	if err == nil {
		g.Log.InfoContext(ctx, "signed in", "user", name, "from", from.String())
	}
	return token, err
}

// warn logs at most a line a minute about a user. A name that nobody has is not logged: people type passwords there.
func (g *Gate) warn(r *http.Request, login *record.Login, what string) {
	if login.ID != 0 && g.guesses.lines.Note(login.Name) == 0 {
		g.Log.WarnContext(r.Context(), "somebody guesses at a sign-in", "what", what, "user", login.Name, "from", g.Client(r).String())
	}
}

// leave ends the session that the browser had, if any.
func (g *Gate) leave(r *http.Request) error {
	s, token, err := g.session(r)
	if err == nil {
		err = g.Store.EndSession(r.Context(), s.User, record.HashToken(token))
	}
	if errors.Is(err, record.ErrNotFound) {
		return nil
	}
	return err
}

func (g *Gate) signOut(w http.ResponseWriter, r *http.Request) error {
	if err := g.Check(r); err != nil {
		return err
	}
	if err := g.leave(r); err != nil {
		return err
	}
	return g.out(w, r)
}

// out takes the cookie away and leads to the sign-in.
func (g *Gate) out(w http.ResponseWriter, r *http.Request) error {
	g.setCookie(w, "")
	http.Redirect(w, r, "/dash/signin", http.StatusSeeOther)
	return nil
}
