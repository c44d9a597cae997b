package dash

import (
	"net/http"
	"strconv"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

func showQueue(v *visit) error {
	s, err := v.current()
	if err != nil {
		return err
	}
	x := struct {
		state
		Waits []string
	}{s, []string{"queued", "scheduled", "sending", "unknown"}}
	return v.show(http.StatusOK, "queue", "queue", "Queue", x)
}

// eventTypes are those that the list of events can be filtered by.
var eventTypes = []string{"accepted", "deferred", "delivered", "bounced", "rejected", "complained", "unsubscribed", "opened", "clicked", "failed_unknown"}

func listEvents(v *visit) error {
	q := api.EventQuery{
		Recipient: v.field("recipient"), Account: v.field("account"), Stream: v.field("stream"), Cursor: v.field("cursor"), Limit: 50,
	}
	kind := v.field("type")
	if kind != "" {
		q.Types = []string{kind}
	}
	page, err := v.api.Events(v.r.Context(), q)
	if err != nil {
		return err
	}
	x := struct {
		Query  api.EventQuery
		Type   string
		Types  []string
		Events []api.Event
		Next   string
		Filter []string
	}{q, kind, eventTypes, page.Data, page.NextCursor, []string{"recipient", q.Recipient, "account", q.Account, "stream", q.Stream, "type", kind}}
	return v.show(http.StatusOK, "events", "events", "Events", x)
}

// reasons are those of suppressions.
var reasons = []string{"hard_bounce", "soft_bounce", "complaint", "unsubscribe", "manual"}

func listSuppressions(v *visit) error {
	q := api.SuppressionQuery{
		Email: v.field("email"), Stream: v.field("stream"), Reason: v.field("reason"), Cursor: v.field("cursor"), Limit: 50,
	}
	page, err := v.api.FindSuppressions(v.r.Context(), q)
	if err != nil {
		return err
	}
	x := struct {
		Query   api.SuppressionQuery
		Reasons []string
		Rows    []api.Suppression
		Next    string
		Filter  []string
	}{q, reasons, page.Data, page.NextCursor, []string{"email", q.Email, "stream", q.Stream, "reason", q.Reason}}
	return v.show(http.StatusOK, "suppressions", "suppressions", "Suppressions", x)
}

func addSuppression(v *visit) error {
	_, err := v.api.Suppress(v.r.Context(), api.SuppressionRequest{
		Email: v.field("email"), Stream: v.field("stream"), Detail: v.field("detail"),
	})
	if err != nil {
		return err
	}
	return v.back("/suppressions", "suppressed", "email", v.field("email"))
}

func removeSuppression(v *visit) error {
	if err := v.api.UnsuppressStream(v.r.Context(), v.field("email"), v.field("stream")); err != nil {
		return err
	}
	return v.back("/suppressions", "unsuppressed", "email", v.field("email"))
}

func listRules(v *visit) error {
	rules, err := v.api.Rules(v.r.Context())
	if err != nil {
		return err
	}
	pools, err := v.api.Pools(v.r.Context())
	if err != nil {
		return err
	}
	x := struct {
		Rules []api.Rule
		Pools []api.Pool
	}{rules, pools}
	return v.show(http.StatusOK, "rules", "rules", "Rules", x)
}

func addRule(v *visit) error {
	position, err := strconv.Atoi(v.field("position"))
	if err != nil {
		return &api.Problem{
			Status: http.StatusUnprocessableEntity, Title: "Invalid", Code: "invalid", Detail: "The rule was not added.",
			Errors: []api.FieldProblem{{Field: "position", Message: "must be a whole number"}},
		}
	}
	_, err = v.api.CreateRule(v.r.Context(), api.Rule{
		Position: position, Stream: v.field("stream"), Tag: v.field("tag"), SenderDomain: v.field("sender_domain"),
		RecipientDomain: v.field("recipient_domain"), Pool: v.field("pool"),
	})
	if err != nil {
		return err
	}
	return v.back("/rules", "rule")
}

func deleteRule(v *visit) error {
	id, err := strconv.ParseInt(v.param("rule"), 10, 64)
	if err != nil {
		return &api.Problem{Status: http.StatusNotFound, Title: "Not found", Code: "not_found", Detail: "There is no such rule."}
	}
	if err := v.api.DeleteRule(v.r.Context(), id); err != nil {
		return err
	}
	return v.back("/rules", "rule-gone")
}

func listKeys(v *visit) error {
	keys, err := v.api.Keys(v.r.Context())
	if err != nil {
		return err
	}
	return v.show(http.StatusOK, "keys", "keys", "Keys", keys)
}

func revokeKey(v *visit) error {
	if err := v.api.RevokeKey(v.r.Context(), v.param("key")); err != nil {
		return err
	}
	return v.back("/keys", "key-gone")
}

func listTenants(v *visit) error {
	all, err := v.api.Tenants(v.r.Context())
	if err != nil {
		return err
	}
	return v.show(http.StatusOK, "tenants", "tenants", "Tenants", all)
}

// changeTenant pauses or resumes a tenant, or sets its weight.
func changeTenant(v *visit) error {
	var change api.TenantRequest
	switch paused := v.field("paused"); paused {
	case "true", "false":
		on := paused == "true"
		change.Paused = &on
	default:
		weight, err := strconv.Atoi(v.field("weight"))
		if err != nil {
			return &api.Problem{
				Status: http.StatusUnprocessableEntity, Title: "Invalid", Code: "invalid", Detail: "The tenant was not changed.",
				Errors: []api.FieldProblem{{Field: "weight", Message: "must be a whole number"}},
			}
		}
		change.Weight = &weight
	}
	if _, err := v.api.PatchTenant(v.r.Context(), v.param("tenant"), change); err != nil {
		return err
	}
	return v.back("/tenants", "tenant")
}

func listAudit(v *visit) error {
	f := api.AuditFilter{
		Actor: v.field("actor"), Action: v.field("action"), Target: v.field("target"), Cursor: v.field("cursor"), Limit: 50,
	}
	page, err := v.api.Audit(v.r.Context(), f)
	if err != nil {
		return err
	}
	x := struct {
		Query   api.AuditFilter
		Entries []api.AuditEntry
		Next    string
		Filter  []string
	}{f, page.Data, page.NextCursor, []string{"actor", f.Actor, "action", f.Action, "target", f.Target}}
	return v.show(http.StatusOK, "audit", "audit", "Audit", x)
}

func listWebhooks(v *visit) error {
	x := struct {
		In  []seat                // of the providers
		Out []api.WebhookEndpoint // for those who may see their URLs
	}{}
	if v.may(record.ScopeRoutingRead) {
		s, err := v.current()
		if err != nil {
			return err
		}
		x.In = seats(&s, nil)
	}
	if v.may(record.ScopeWebhooksRead) {
		var err error
		if x.Out, err = v.api.WebhookEndpoints(v.r.Context()); err != nil {
			return err
		}
	}
	return v.show(http.StatusOK, "webhooks", "webhooks", "Webhooks", x)
}

func showWebhook(v *visit) error { return v.webhook(nil) }

// webhook shows an endpoint and its last deliveries, with the outcome of a test if there was one.
func (v *visit) webhook(test *api.WebhookDelivery) error {
	e, err := v.api.WebhookEndpoint(v.r.Context(), v.param("id"))
	if err != nil {
		return err
	}
	page, err := v.api.WebhookDeliveries(v.r.Context(), e.ID, v.r.URL.Query().Get("cursor"), 50)
	if err != nil {
		return err
	}
	x := struct {
		*api.WebhookEndpoint
		Log  []api.WebhookDelivery
		Next string
		Test *api.WebhookDelivery
	}{e, page.Data, page.NextCursor, test}
	return v.show(http.StatusOK, "webhook", "webhooks", "Webhook endpoint", x)
}

// changeWebhook does what a button of the endpoint's page says.
func changeWebhook(v *visit) error {
	ctx, id := v.r.Context(), v.param("id")
	turn := func(off bool, done string) error {
		if _, err := v.api.PatchWebhookEndpoint(ctx, id, api.WebhookEndpointRequest{Disabled: &off}); err != nil {
			return err
		}
		return v.back("/webhooks/"+id, done)
	}
	switch v.param("do") {
	case "enable":
		return turn(false, "endpoint-on")
	case "disable":
		return turn(true, "endpoint-off")
	case "test":
		result, err := v.api.TestWebhookEndpoint(ctx, id)
		if err != nil {
			return err
		}
		return v.webhook(result)
	case "replay":
		since, err := formTime("since", v.field("since"))
		if err != nil {
			return err
		}
		if _, err := v.api.ReplayWebhookEndpoint(ctx, id, api.WebhookReplayRequest{Since: since}); err != nil {
			return err
		}
		return v.back("/webhooks/"+id, "replayed")
	}
	return &api.Problem{Status: http.StatusNotFound, Title: "Not found", Code: "not_found", Detail: "There is no such action."}
}
