package httpapi

import (
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/sendgate/sendgate/internal/record"
)

// routes is the whole surface on one page, except for the admin API if that has its own address. Each route names the scope
// that opens it. sends needs the scope send, and refuses paused tenants, and everyone while the server drains. The first routes
// need no key: providers have their own signature, links have a token. The contract and the pages about problems are public.
// A key that sends may also add suppressions: that allows no mail, and a service's own unsubscribe page needs it.
func (s *Server) routes() http.Handler {
	r := s.newRouter(s.requests)
	r.Post("/hooks/{account}", s.handle(s.receiveHook))
	r.Post("/u/{token}", s.people(s.unsubscribe))
	r.Get("/u/{token}", s.people(s.askUnsubscribe))
	r.Head("/u/{token}", s.people(s.askUnsubscribe))

	r.Route("/v1", s.tenantRoutes)
	if !s.adminApart {
		s.operatorRoutes(r)
	}
	return r
}

// tenantRoutes are the routes of the tenant whose key is used.
func (s *Server) tenantRoutes(r chi.Router) {
	r.Post("/send", s.sends(s.send))
	r.Post("/send/batch", s.sends(s.sendBatch))

	r.Get("/messages", s.may(record.ScopeMessagesRead, reply(s.listMessages)))
	r.Get("/messages/{id}", s.may(record.ScopeMessagesRead, show(s.getMessage)))
	r.Post("/messages/{id}/cancel", s.may(record.ScopeSend, show(s.cancelMessage)))
	r.Post("/messages/{id}/resend", s.sends(reply(s.resendMessage)))

	r.Get("/events", s.may(record.ScopeEventsRead, reply(s.listEvents)))
	r.Get("/events/stream", s.may(record.ScopeEventsRead, s.streamEvents))
	r.Get("/stats", s.may(record.ScopeStatsRead, reply(s.getStats)))

	r.Get("/suppressions", s.may(record.ScopeSuppressionsRead, reply(s.listSuppressions)))
	r.Post("/suppressions", s.may(record.ScopeSuppressionsWrite, take(s, http.StatusCreated, s.addSuppression), record.ScopeSend))
	r.Get("/suppressions/export", s.may(record.ScopeSuppressionsRead, s.exportSuppressions))
	r.Post("/suppressions/import", s.may(record.ScopeSuppressionsWrite, s.importSuppressions, record.ScopeSend))
	r.Get("/suppressions/{email}", s.may(record.ScopeSuppressionsRead, reply(s.getSuppression)))
	r.Delete("/suppressions/{email}", s.may(record.ScopeSuppressionsWrite, s.deleteSuppression))

	s.endpointRoutes(r)
}

// operatorRoutes are the admin API and the dashboard, which is for the same networks.
func (s *Server) operatorRoutes(r chi.Router) {
	r.Route("/admin/v1", s.adminRoutes)
	if s.dash != nil {
		r.With(s.withAdminNetworks).Mount("/dash", s.dash)
	}
}

// adminAlone is the admin API for its own address. It has its own pool of places, which traffic on the other address can't fill.
func (s *Server) adminAlone() http.Handler {
	r := s.newRouter(newPool(MaxConns, 0))
	s.operatorRoutes(r)
	return r
}

// withinRoutes is the API for calls of the dashboard, see As. The request of the person has a place already.
func (s *Server) withinRoutes() http.Handler {
	r := chi.NewRouter()
	r.Use(withRequestID, withHeaders, s.withAccessLog, s.withRecover)
	r.NotFound(s.handle(notFound))
	r.Route("/v1", s.tenantRoutes)
	r.Route("/admin/v1", s.adminRoutes)
	return r
}

// newRouter has the routes of every address: error answers, the pages that explain them, and the contract.
func (s *Server) newRouter(requests *pool) chi.Router {
	r := chi.NewRouter()
	r.Use(withRequestID, withHeaders, s.withAccessLog, s.withRecover, s.withShare(requests))
	r.NotFound(s.handle(notFound))
	r.MethodNotAllowed(s.handle(methodNotAllowed(r)))
	r.Get("/openapi.yaml", s.handle(contractYAML))
	r.Get("/openapi.json", s.handle(contractJSON))
	r.Get(problemPath+"{code}", s.people(explainProblem))
	return r
}

// adminRoutes are the routes of operators. Every route needs an admin key. If admin networks are configured, only clients in
// them are answered.
func (s *Server) adminRoutes(r chi.Router) {
	r.Use(s.withAdminNetworks)
	look := func(h handlerFunc) http.HandlerFunc { return s.may(record.ScopeRoutingRead, h) }
	turn := func(h handlerFunc) http.HandlerFunc { return s.may(record.ScopeRoutingWrite, h) }
	read := func(h handlerFunc) http.HandlerFunc { return s.may(record.ScopeAdminRead, h) }
	rule := func(h handlerFunc) http.HandlerFunc { return s.may(record.ScopeAdminWrite, h) }

	r.Get("/accounts", look(show(s.listAccounts)))
	r.Post("/accounts", rule(s.createAccount))
	r.Get("/accounts/{account}", look(show(s.getAccount)))
	r.Patch("/accounts/{account}", rule(take(s, http.StatusOK, s.patchAccount)))
	r.Delete("/accounts/{account}", rule(s.deleteAccount))
	r.Post("/accounts/{account}/pause", turn(show(s.pauseAccount)))
	r.Post("/accounts/{account}/resume", turn(show(s.resumeAccount)))
	r.Get("/accounts/{account}/limits", look(show(s.getAccountLimits)))
	r.Put("/accounts/{account}/limits", turn(take(s, http.StatusOK, s.putAccountLimits)))

	r.Get("/accounts/{account}/webhooks", look(show(s.getAccountWebhooks)))
	r.Post("/accounts/{account}/webhooks", rule(take(s, http.StatusOK, s.registerWebhooks)))
	r.Post("/events/reproject", rule(take(s, http.StatusOK, s.reproject)))

	r.Get("/pools", look(show(s.listPools)))
	r.Post("/pools", turn(s.createPool))
	r.Get("/pools/{pool}", look(s.getPool))
	r.Put("/pools/{pool}", turn(s.putPool))

	r.Get("/rules", look(show(s.listRules)))
	r.Post("/rules", turn(take(s, http.StatusCreated, s.createRule)))
	r.Put("/rules", turn(take(s, http.StatusOK, s.replaceRules)))
	r.Delete("/rules/{rule}", turn(remove(s.deleteRule)))
	r.Post("/route/explain", look(s.explain))
	r.Get("/route/explain/{id}", look(show(s.explainMessage)))

	r.Get("/keys", read(show(s.listKeys)))
	r.Post("/keys", rule(take(s, http.StatusCreated, s.createKey)))
	r.Patch("/keys/{key}", rule(take(s, http.StatusOK, s.patchKey)))
	r.Post("/keys/{key}/rotate", rule(take(s, http.StatusCreated, s.rotateKey)))
	r.Delete("/keys/{key}", rule(remove(s.revokeKey)))

	r.Get("/tenants", read(show(s.listTenants)))
	r.Post("/tenants", rule(take(s, http.StatusCreated, s.createTenant)))
	r.Patch("/tenants/{tenant}", rule(take(s, http.StatusOK, s.patchTenant)))

	r.Get("/users", read(show(s.listUsers)))
	r.Post("/users", rule(take(s, http.StatusCreated, s.createUser)))
	r.Get("/users/{user}", read(show(s.getUser)))
	r.Patch("/users/{user}", rule(take(s, http.StatusOK, s.patchUser)))
	r.Post("/users/{user}/reset", rule(s.resetUser))
	r.Get("/users/{user}/sessions", read(show(s.listUserSessions)))
	r.Delete("/users/{user}/sessions", rule(remove(s.endUserSessions)))

	r.Get("/incidents", look(show(s.listIncidents)))
	r.Get("/notify-rules", look(show(s.listNotifyRules)))
	r.Post("/notify-rules", rule(take(s, http.StatusCreated, s.createNotifyRule)))
	r.Delete("/notify-rules/{name}", rule(remove(s.deleteNotifyRule)))
	r.Post("/notify-rules/{name}/test", rule(show(s.testNotifyRule)))

	r.Post("/messages/bulk", turn(take(s, http.StatusOK, s.bulk)))
	r.Get("/queue", look(show(s.getQueue)))
	r.Get("/limits", look(show(s.listLimits)))
	r.Get("/series", look(reply(s.listSeries)))
	person := func(h handlerFunc) http.HandlerFunc { return s.may(record.ScopeSubjectsRead, h) }
	r.Post("/subjects/count", person(take(s, http.StatusOK, s.countSubject)))
	r.Post("/subjects/export", person(take(s, http.StatusOK, s.exportSubject)))
	r.Post("/subjects/erase", s.may(record.ScopeSubjectsWrite, take(s, http.StatusOK, s.eraseSubject)))

	r.Get("/audit", read(reply(s.listAudit)))
	r.Get("/audit/chain", read(reply(s.listAuditChain)))
}

func notFound(http.ResponseWriter, *http.Request) error {
	return refuse(http.StatusNotFound, "not_found", "There is nothing at this path.")
}

// methods are those that a route may have.
var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// methodNotAllowed answers a wrong method on a known path, and names the allowed ones (RFC 9110 section 15.5.6).
func methodNotAllowed(routes chi.Routes) handlerFunc {
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
		return &refusal{
			status: http.StatusMethodNotAllowed, code: "method_not_allowed", detail: "This path does not take this method; see Allow.",
			header: http.Header{"Allow": {strings.Join(allowed, ", ")}},
		}
	}
}
