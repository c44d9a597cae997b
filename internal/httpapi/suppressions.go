package httpapi

import (
	"net/http"
	"slices"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
)

// listSuppressions lists a tenant's suppressions by address. With ?email= it checks one address: the list then has one
// entry or none.
func (s *Server) listSuppressions(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(r, "email", "limit", "cursor")
	if err != nil {
		return err
	}
	tenant, email, limit := principal(r).Tenant, q.email("email"), q.limit()
	if err := q.err(); err != nil {
		return err
	}
	l := listing{name: "suppressions", tenant: tenant, filter: q.filter()}
	after, err := q.cursor(s.cursors, l)
	if err != nil {
		return err
	}
	rows, err := s.store.Suppressions(r.Context(), tenant, email, after, limit+1)
	if err != nil {
		return err
	}
	rows, next := page(s.cursors, l, rows, limit, func(x *mail.Suppression) string { return x.Email })
	out := api.SuppressionPage{Data: make([]api.Suppression, 0, len(rows)), NextCursor: next}
	for _, x := range rows {
		out.Data = append(out.Data, suppressionView(x))
	}
	return writeJSON(w, http.StatusOK, out)
}

func suppressionView(x mail.Suppression) api.Suppression {
	return api.Suppression{Email: x.Email, Reason: x.Reason, Origin: x.Origin, CreatedAt: x.CreatedAt}
}

// addSuppression is idempotent: an address that is suppressed already stays so.
func (s *Server) addSuppression(w http.ResponseWriter, r *http.Request) error {
	in, err := read[api.SuppressionRequest](s, w, r)
	if err != nil {
		return err
	}
	a, err := mail.ParseAddress(in.Email)
	if err != nil {
		return invalid("email", "invalid_address", "must be one email address")
	}
	if in.Reason == "" {
		in.Reason = "manual"
	}
	reasons := []string{"manual", "hard_bounce", "complaint", "unsubscribe"}
	if !slices.Contains(reasons, in.Reason) {
		return invalid("reason", "unknown_reason", "must be manual, hard_bounce, complaint or unsubscribe")
	}
	x := mail.Suppression{
		Tenant: principal(r).Tenant, Email: a.Email, Reason: in.Reason, Origin: "api", CreatedAt: s.now().UTC(),
	}
	if err := s.store.Suppress(r.Context(), x); err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, suppressionView(x))
}

func (s *Server) deleteSuppression(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	a, err := mail.ParseAddress(pathParam(r, "email"))
	if err != nil {
		return refuse(http.StatusNotFound, "not_found", "This address is not suppressed.")
	}
	if err := s.store.Unsuppress(r.Context(), principal(r).Tenant, a.Email); err != nil {
		return missing(err, "This address is not suppressed.")
	}
	return noContent(w)
}
