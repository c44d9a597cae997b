package httpapi

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// routes is the whole surface on one page. Each route names the scope that opens it: sends takes the scope send and
// is closed to paused tenants and while the server drains. The first ones take no key: providers bring a signature of
// their own, links a token, and the contract and what problems mean are no secret.
func (s *Server) routes() http.Handler {
	r := chi.NewRouter()
	r.Use(withRequestID, withHeaders, s.withAccessLog, s.withRecover)
	r.NotFound(s.handle(notFound))
	r.MethodNotAllowed(s.handle(methodNotAllowed(r)))

	r.Post("/hooks/{account}", s.handle(s.receiveHook))
	r.Post("/u/{token}", s.people(s.unsubscribe))
	r.Get("/u/{token}", s.people(s.askUnsubscribe))
	r.Head("/u/{token}", s.people(s.askUnsubscribe))
	r.Get("/openapi.yaml", s.handle(contractYAML))
	r.Get("/openapi.json", s.handle(contractJSON))
	r.Get(problemPath+"{code}", s.people(explainProblem))

	r.Route("/v1", func(r chi.Router) {
		r.Post("/send", s.sends(s.send))
		r.Post("/send/batch", s.sends(s.sendBatch))

		r.Get("/messages", s.may(mail.ScopeRead, s.listMessages))
		r.Get("/messages/{id}", s.may(mail.ScopeRead, s.getMessage))
		r.Post("/messages/{id}/cancel", s.may(mail.ScopeSend, s.cancelMessage))
		r.Post("/messages/{id}/resend", s.sends(s.resendMessage))

		r.Get("/events", s.may(mail.ScopeRead, s.listEvents))
		r.Get("/events/stream", s.may(mail.ScopeRead, s.streamEvents))
		r.Get("/stats", s.may(mail.ScopeRead, s.getStats))

		r.Get("/suppressions", s.may(mail.ScopeRead, s.listSuppressions))
		r.Post("/suppressions", s.may(mail.ScopeSend, s.addSuppression))
		r.Get("/suppressions/export", s.may(mail.ScopeRead, s.exportSuppressions))
		r.Post("/suppressions/import", s.may(mail.ScopeSend, s.importSuppressions))
		r.Get("/suppressions/{email}", s.may(mail.ScopeRead, s.getSuppression))
		r.Delete("/suppressions/{email}", s.may(mail.ScopeSend, s.deleteSuppression))

		s.endpointRoutes(r)
	})
	r.Route("/admin/v1", s.adminRoutes)
	return r
}

// adminRoutes is what operators turn. Every route here takes an admin key and no other.
func (s *Server) adminRoutes(r chi.Router) {
	admin := func(h handlerFunc) http.HandlerFunc { return s.may(mail.ScopeAdmin, h) }

	r.Get("/accounts", admin(s.listAccounts))
	r.Post("/accounts", admin(s.createAccount))
	r.Get("/accounts/{account}", admin(s.getAccount))
	r.Patch("/accounts/{account}", admin(s.patchAccount))
	r.Delete("/accounts/{account}", admin(s.deleteAccount))
	r.Post("/accounts/{account}/pause", admin(s.pauseAccount))
	r.Post("/accounts/{account}/resume", admin(s.resumeAccount))
	r.Get("/accounts/{account}/limits", admin(s.getAccountLimits))
	r.Put("/accounts/{account}/limits", admin(s.putAccountLimits))

	r.Get("/accounts/{account}/webhooks", admin(s.getAccountWebhooks))
	r.Post("/accounts/{account}/webhooks", admin(s.registerWebhooks))
	r.Post("/events/reproject", admin(s.reproject))

	r.Get("/pools", admin(s.listPools))
	r.Post("/pools", admin(s.createPool))
	r.Get("/pools/{pool}", admin(s.getPool))
	r.Put("/pools/{pool}", admin(s.putPool))

	r.Get("/rules", admin(s.listRules))
	r.Post("/rules", admin(s.createRule))
	r.Put("/rules", admin(s.replaceRules))
	r.Delete("/rules/{rule}", admin(s.deleteRule))
	r.Post("/route/explain", admin(s.explain))
	r.Get("/route/explain/{id}", admin(s.explainMessage))

	r.Get("/keys", admin(s.listKeys))
	r.Post("/keys", admin(s.createKey))
	r.Delete("/keys/{key}", admin(s.revokeKey))

	r.Get("/tenants", admin(s.listTenants))
	r.Post("/tenants", admin(s.createTenant))
	r.Patch("/tenants/{tenant}", admin(s.patchTenant))

	r.Get("/queue", admin(s.getQueue))
	r.Get("/limits", admin(s.listLimits))
	r.Get("/audit", admin(s.listAudit))
}

func notFound(http.ResponseWriter, *http.Request) error {
	return refuse(http.StatusNotFound, "not_found", "There is nothing at this path.")
}

// methodNotAllowed answers a known path with another method, and names those that it takes (RFC 9110 section 15.5.6).
func methodNotAllowed(routes chi.Routes) handlerFunc {
	methods := []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
	}
	return func(_ http.ResponseWriter, r *http.Request) error {
		path := r.URL.RawPath
		if path == "" {
			path = r.URL.Path
		}
		var allowed []string
		for _, m := range methods {
			if routes.Match(chi.NewRouteContext(), m, path) {
				allowed = append(allowed, m)
			}
		}
		e := refuse(http.StatusMethodNotAllowed, "method_not_allowed", "This path does not take this method; see Allow.")
		e.header = http.Header{"Allow": {strings.Join(allowed, ", ")}}
		return e
	}
}
