// Package dash is the operators' pages. This file is what it needs of whoever lets people in.
package dash

import (
	"html/template"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/sendgate/sendgate/internal/record"
)

// Person is who is signed in.
type Person struct {
	Name  string      // of the user
	Role  record.Role // what the person may do
	Token string      // CSRF token of the session, for forms (hidden field "csrf") and the header X-CSRF-Token of htmx
}

// Gate lets people in. Package internal/signin implements it.
type Gate interface {
	// Person returns who is signed in by the request's session, or false.
	Person(r *http.Request) (Person, bool, error)
	// Check refuses a request that changes something and did not come from a page of the session (origin and token).
	Check(r *http.Request) error
	// Routes mounts /signin, /signout, /welcome and /sessions below the /dash prefix. layout renders a page around content: it is
	// the dashboard's own.
	Routes(r chi.Router, layout func(w http.ResponseWriter, r *http.Request, status int, title string, content template.HTML))
}
