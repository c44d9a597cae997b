package signin

import (
	"errors"
	"net/http"

	"github.com/sendgate/sendgate/internal/record"
)

func (g *Gate) askToken(w http.ResponseWriter, r *http.Request) error {
	g.show(w, r, view{page: "token", title: "Welcome"})
	return nil
}

var errLink = &refusal{status: http.StatusForbidden, text: "This link is not valid. It works once, within 24 hours. Ask for a new one."}

// welcome takes the token of a one-time link. First it shows the form for password and authenticator, and with that form it sets
// them. A link that signs in without a password does so at once.
func (g *Gate) welcome(w http.ResponseWriter, r *http.Request) error {
	token, from := r.PostForm.Get("token"), g.Client(r)
	ask := view{page: "token", title: "Welcome"}
	if wait := g.guesses.networks.Over(from); wait > 0 {
		return g.again(w, r, tooMany(wait), ask)
	}
	link, err := g.Store.LinkOf(r.Context(), record.HashToken(token))
	if errors.Is(err, record.ErrNotFound) || err == nil && link.Enter && !g.Links {
		g.guesses.networks.Note(from)
		g.Failed(r)
		return g.again(w, r, errLink, ask)
	}
	switch {
	case err != nil:
		return err
	case link.Enter:
		return g.enter(w, r, link, token)
	case !r.PostForm.Has("password"):
		return g.askWelcome(w, r, link, token, nil)
	}
	codes, session, err := g.setUp(r, link, token)
	if _, refused := errors.AsType[*refusal](err); refused {
		return g.askWelcome(w, r, link, token, err)
	}
	if errors.Is(err, record.ErrNotFound) {
		return g.again(w, r, errLink, ask)
	}
	if err != nil {
		return err
	}
	if err := g.leave(r); err != nil { // the browser may be signed in as somebody else
		return err
	}
	g.setCookie(w, session)
	g.show(w, r, view{page: "codes", title: "Recovery codes", Codes: codes})
	return nil
}

// setUp checks the form and stores what the person signs in with from now on. It returns the recovery codes and the token of a
// session.
func (g *Gate) setUp(r *http.Request, link record.Link, token string) (codes []string, session string, err error) {
	password, secret := r.PostForm.Get("password"), secretOf(g.Key, token)
	if why := checkPassword(link.User.Name, password); why != "" {
		return nil, "", &refusal{status: http.StatusUnprocessableEntity, text: why}
	}
	if password != r.PostForm.Get("again") {
		return nil, "", &refusal{status: http.StatusUnprocessableEntity, text: "The two passwords differ."}
	}
	step := stepOf(secret, plain(r.PostForm.Get("code")), g.Now(), 0)
	if step == 0 {
		return nil, "", &refusal{status: http.StatusUnprocessableEntity, text: "The code is not the one that the app shows now. Is the clock of your phone right?"}
	}
	welcome := record.Welcome{Link: record.HashToken(token), Step: step}
	if welcome.Password, err = g.hashes.of(r.Context(), g.Client(r), password); err != nil {
		return nil, "", err
	}
	codes, welcome.Codes = newRecoveryCodes()
	session, welcome.Session = g.newSession(r)
	return codes, session, g.Store.Welcome(r.Context(), link.User.Name, welcome, secret)
}

// askWelcome shows the form for password and authenticator, with the reason why it was refused.
func (g *Gate) askWelcome(w http.ResponseWriter, r *http.Request, link record.Link, token string, refused error) error {
	secret := secretOf(g.Key, token)
	picture, err := pictureOf(link.User.Name, secret)
	if err != nil {
		return err
	}
	v := view{page: "welcome", title: "Welcome", Name: link.User.Name, Token: token, Secret: grouped(secret.Reveal()), Picture: picture}
	if refused != nil {
		return g.again(w, r, refused, v)
	}
	g.show(w, r, v)
	return nil
}

// enter signs in by a link alone.
func (g *Gate) enter(w http.ResponseWriter, r *http.Request, link record.Link, token string) error {
	session, s := g.newSession(r)
	err := g.Store.Enter(r.Context(), link.User.Name, record.HashToken(token), s)
	if errors.Is(err, record.ErrNotFound) {
		return g.again(w, r, errLink, view{page: "token", title: "Welcome"})
	}
	if err != nil {
		return err
	}
	if err := g.leave(r); err != nil {
		return err
	}
	g.setCookie(w, session)
	http.Redirect(w, r, home, http.StatusSeeOther)
	return nil
}
