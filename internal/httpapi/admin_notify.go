package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/incident"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/seal"
)

// NotifyOptions are the parts that the routes of incidents need.
type NotifyOptions struct {
	Store NotifyStore
	Test  NotifyTest
}

// NotifyStore keeps incidents, and the rules that say who is told of them. Every change writes its audit entry in the same
// transaction.
type NotifyStore interface {
	// NotifyRules lists the rules without their secrets.
	NotifyRules(ctx context.Context) ([]incident.Rule, error)
	// CreateNotifyRule returns record.ErrConflict when the name is taken, or there are as many rules as there may be.
	CreateNotifyRule(ctx context.Context, actor string, r incident.Rule) (*incident.Rule, error)
	DeleteNotifyRule(ctx context.Context, actor, name string) error
	// Incidents lists those that last first, then the newest.
	Incidents(ctx context.Context, limit int) ([]incident.Incident, error)
}

// NotifyTest tells an example by a rule, at once and without retries.
type NotifyTest interface {
	Test(ctx context.Context, rule string) (incident.Result, error)
}

const (
	shownIncidents = 200
	maxNotifyTo    = 20
	noNotifyRule   = "There is no such notify rule."
)

func (s *Server) listIncidents(r *http.Request) (api.List[api.Incident], error) {
	all, err := s.notify.Store.Incidents(r.Context(), shownIncidents)
	return listView(all, incidentView), err
}

func incidentView(in *incident.Incident) api.Incident {
	return api.Incident{
		ID: in.ID.String(), Kind: string(in.Kind), Account: in.Account, Subject: in.Subject, Summary: in.Kind.Says(), Detail: in.Detail,
		Remedy: in.Remedy(), Runbook: in.Kind.Runbook(), Since: in.Since, BeganAt: in.Began, EndedAt: optional(in.Ended),
	}
}

func (s *Server) listNotifyRules(r *http.Request) (api.List[api.NotifyRule], error) {
	rules, err := s.notify.Store.NotifyRules(r.Context())
	return listView(rules, notifyView), err
}

func notifyView(r *incident.Rule) api.NotifyRule {
	out := api.NotifyRule{
		Name: r.Name, Channel: string(r.Channel), URL: r.Origin, From: r.From, To: r.To, CreatedAt: r.CreatedAt,
		LastToldAt: optional(r.LastTold), LastError: r.LastError,
	}
	for _, k := range r.Kinds {
		out.Kinds = append(out.Kinds, string(k))
	}
	return out
}

// createNotifyRule answers with the secret of a webhook, which is never shown again.
func (s *Server) createNotifyRule(r *http.Request, in api.NotifyRuleRequest) (out api.NotifyRule, err error) {
	rule, err := s.notifyRule(&in)
	if err != nil {
		return out, err
	}
	made, err := s.notify.Store.CreateNotifyRule(r.Context(), principal(r).ID, rule)
	if err != nil {
		return out, conflict(err, "name_taken", "There is a notify rule of that name, or there are as many rules as there may be (50).")
	}
	out = notifyView(made)
	if rule.Channel == incident.Webhook {
		out.Secret = rule.Secret.Reveal()
	}
	return out, nil
}

// notifyRule checks a request and collects all its mistakes.
func (s *Server) notifyRule(in *api.NotifyRuleRequest) (incident.Rule, error) {
	var bad complaints
	out := incident.Rule{Name: in.Name, Channel: incident.Channel(in.Channel)}
	if !validName(in.Name) {
		bad.complain("name", "invalid_name", "must begin with a letter a-z and hold at most 40 of a-z, 0-9 and hyphens")
	}
	for i, name := range in.Kinds {
		kind := incident.Kind(name)
		if !slices.Contains(incident.Kinds(), kind) {
			bad.complain(fmt.Sprintf("kinds[%d]", i), "unknown_kind", "is not a kind of incident")
		} else if !slices.Contains(out.Kinds, kind) {
			out.Kinds = append(out.Kinds, kind)
		}
	}
	switch out.Channel {
	case incident.Webhook, incident.Slack:
		s.notifyURL(&bad, in, &out)
	case incident.Mail:
		notifyMail(&bad, in, &out)
	default:
		bad.complain("channel", "unknown_channel", "must be webhook, slack or mail")
	}
	return out, bad.err()
}

func (s *Server) notifyURL(bad *complaints, in *api.NotifyRuleRequest, out *incident.Rule) {
	if why := s.refuseURL(in.URL); why != "" {
		bad.complain("url", "invalid_url", why)
		return
	}
	if in.From != "" || len(in.To) > 0 {
		bad.complain("to", "not_for_channel", "is for mail only, and so is from")
	}
	u, err := url.Parse(in.URL)
	if err != nil { // can't happen: it was checked
		bad.complain("url", "invalid_url", "is not a URL")
		return
	}
	out.URL, out.Origin = seal.NewSecret(in.URL), u.Scheme+"://"+u.Host
	if out.Channel == incident.Webhook {
		out.Secret = newWebhookSecret()
	}
}

func notifyMail(bad *complaints, in *api.NotifyRuleRequest, out *incident.Rule) {
	if in.URL != "" {
		bad.complain("url", "not_for_channel", "is for webhook and slack only")
	}
	if _, err := mail.ParseMailbox(in.From); err != nil {
		bad.complain("from", "invalid_address", "must be an address that the accounts may send from")
	}
	if len(in.To) == 0 || len(in.To) > maxNotifyTo {
		bad.complain("to", "out_of_range", "must be 1 to 20 addresses")
	}
	for i, to := range in.To {
		if _, err := mail.ParseMailbox(to); err != nil {
			bad.complain(fmt.Sprintf("to[%d]", i), "invalid_address", "must be an address")
		}
	}
	out.From, out.To = in.From, in.To
}

func (s *Server) deleteNotifyRule(r *http.Request) error {
	return missing(s.notify.Store.DeleteNotifyRule(r.Context(), principal(r).ID, pathParam(r, "name")), noNotifyRule)
}

func (s *Server) testNotifyRule(r *http.Request) (out api.NotifyTest, err error) {
	result, err := s.notify.Test.Test(r.Context(), pathParam(r, "name"))
	if err != nil {
		return out, missing(err, noNotifyRule)
	}
	out = api.NotifyTest{Told: result.Done && result.Error == "", Error: result.Error}
	if result.Notice != nil && !result.Notice.Message.IsZero() {
		out.MessageID = result.Notice.Message.String()
	}
	return out, nil
}
