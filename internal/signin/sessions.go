package signin

import (
	"errors"
	"net/http"

	"github.com/sendgate/sendgate/internal/record"
)

// listSessions shows a person where she is signed in.
func (g *Gate) listSessions(w http.ResponseWriter, r *http.Request) error {
	s, token, err := g.session(r)
	if errors.Is(err, record.ErrNotFound) {
		return g.out(w, r)
	}
	if err != nil {
		return err
	}
	v, err := g.sessionsView(r, s, token)
	if err != nil {
		return err
	}
	g.show(w, r, v)
	return nil
}

func (g *Gate) sessionsView(r *http.Request, s record.Session, token string) (view, error) {
	login, _, err := g.Store.Login(r.Context(), s.User)
	if err != nil {
		return view{}, err
	}
	all, err := g.Store.UserSessions(r.Context(), s.User)
	return view{page: "sessions", title: "Your sessions", Name: s.User, Sessions: all, This: s.ID, CSRF: csrfOf(token), Left: login.Codes}, err
}

// changeSessions ends one session of the person, or all, or lets her set password and authenticator anew.
func (g *Gate) changeSessions(w http.ResponseWriter, r *http.Request) error {
	if err := g.Check(r); err != nil {
		return err
	}
	s, token, err := g.session(r)
	if errors.Is(err, record.ErrNotFound) {
		return g.out(w, r)
	}
	if err != nil {
		return err
	}
	id := r.PostForm.Get("end")
	if r.PostForm.Has("password") {
		return g.renew(w, r, s, token)
	}
	if id == "" && !r.PostForm.Has("all") {
		return &refusal{status: http.StatusBadRequest, text: "The form can't be read."}
	}
	err = g.Store.EndUserSessions(r.Context(), record.ActorOf(s.User), s.User, id)
	if err != nil && !errors.Is(err, record.ErrNotFound) { // a session that has ended already is what was wanted
		return err
	}
	if id == "" || id == s.ID {
		return g.out(w, r)
	}
	http.Redirect(w, r, "/dash/sessions", http.StatusSeeOther)
	return nil
}

// renew checks password and code once more, since the browser may have been left alone. Then the person gets what a one-time
// link gives.
func (g *Gate) renew(w http.ResponseWriter, r *http.Request, s record.Session, token string) error {
	fresh, err := g.prove(r, s.User, r.PostForm.Get("password"), r.PostForm.Get("code"))
	if _, refused := errors.AsType[*refusal](err); refused {
		v, failed := g.sessionsView(r, s, token)
		if failed != nil {
			return failed
		}
		return g.again(w, r, err, v)
	}
	if err != nil {
		return err
	}
	if err := g.leave(r); err != nil {
		return err
	}
	g.setCookie(w, fresh)
	linkToken, hash := record.NewToken()
	if err := g.Store.CreateLink(r.Context(), record.ActorOf(s.User), s.User, hash, false); err != nil {
		return err
	}
	link, err := g.Store.LinkOf(r.Context(), hash)
	if err != nil {
		return err
	}
	return g.askWelcome(w, r, link, linkToken, nil)
}
