package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/route"
)

// RuleStore keeps routing rules.
type RuleStore interface {
	SetRules(ctx context.Context, actor string, rules []route.Rule) error // replaces all
	CreateRule(ctx context.Context, actor string, r route.Rule) (route.Rule, error)
	DeleteRule(ctx context.Context, actor string, id int64) error
}

const (
	maxRules     = 1000
	maxPosition  = 1_000_000
	maxRuleField = 128
)

func (s *Server) listRules(r *http.Request) (out api.List[api.Rule], err error) {
	cfg, err := s.store.Config(r.Context())
	if err != nil {
		return out, err
	}
	return listView(cfg.Rules, ruleView), nil
}

func (s *Server) createRule(r *http.Request, in api.Rule) (out api.Rule, err error) {
	if in.ID != 0 {
		return out, invalid("id", "fixed", "is given by the server")
	}
	cfg, err := s.store.Config(r.Context())
	if err != nil {
		return out, err
	}
	var bad complaints
	rule := ruleOf(&bad, "", in, cfg)
	if err := bad.err(); err != nil {
		return out, err
	}
	created, err := s.store.CreateRule(r.Context(), principal(r).ID, rule)
	return ruleView(&created), err
}

// replaceRules replaces the whole list of rules. All rules get new ids, so that a caller can read the list, change it and send
// it back.
func (s *Server) replaceRules(r *http.Request, in api.RulesRequest) (out api.List[api.Rule], err error) {
	if in.Rules == nil {
		return out, invalid("rules", "missing", "must be a list; an empty one removes all rules")
	}
	if len(in.Rules) > maxRules {
		return out, invalid("rules", "too_many", fmt.Sprintf("must be at most %d", maxRules))
	}
	cfg, err := s.store.Config(r.Context())
	if err != nil {
		return out, err
	}
	rules, err := rulesOf(in.Rules, cfg)
	if err != nil {
		return out, err
	}
	if err := s.store.SetRules(r.Context(), principal(r).ID, rules); err != nil {
		return out, err
	}
	out, err = s.listRules(r)
	return out, afterStore(err)
}

// rulesOf checks a whole list. Each position may occur only once: the first match wins, so the order must be clear.
func rulesOf(in []api.Rule, cfg *route.Config) ([]route.Rule, error) {
	rules, bad, positions := make([]route.Rule, 0, len(in)), complaints{}, map[int]bool{}
	for i, one := range in {
		at := fmt.Sprintf("rules[%d].", i)
		rules = append(rules, ruleOf(&bad, at, one, cfg))
		if positions[one.Position] {
			bad.complain(at+"position", "duplicate", "is used by two rules")
		}
		positions[one.Position] = true
	}
	return rules, bad.err()
}

func (s *Server) deleteRule(r *http.Request) error {
	id, err := strconv.ParseInt(pathParam(r, "rule"), 10, 64)
	if err != nil || id < 1 {
		return refuse(http.StatusNotFound, "not_found", "There is no such rule.")
	}
	return missing(s.store.DeleteRule(r.Context(), principal(r).ID, id), "There is no such rule.")
}

// ruleOf checks one rule and brings its domains into canonical form. The names of its fields begin with at.
func ruleOf(bad *complaints, at string, in api.Rule, cfg *route.Config) route.Rule {
	out := route.Rule{Position: in.Position, Stream: in.Stream, Tag: in.Tag, Pool: in.Pool}
	if in.Position < 0 || in.Position > maxPosition {
		bad.complain(at+"position", "out_of_range", "must be 0 to 1000000")
	}
	for _, text := range []struct{ field, value string }{{"stream", in.Stream}, {"tag", in.Tag}} {
		if len(text.value) > maxRuleField || !clean(text.value) {
			bad.complain(at+text.field, "invalid_text", "must have at most 128 bytes and no control characters")
		}
	}
	for _, d := range []struct {
		field, value string
		to           *string
	}{{"sender_domain", in.SenderDomain, &out.SenderDomain}, {"recipient_domain", in.RecipientDomain, &out.RecipientDomain}} {
		if d.value == "" {
			continue
		}
		domain, err := mail.ParseDomain(d.value)
		if err != nil {
			bad.complain(at+d.field, "invalid_domain", "must be a domain")
		}
		*d.to = domain
	}
	if cfg.Pool(in.Pool) == nil {
		bad.complain(at+"pool", "unknown_pool", "is not a pool")
	}
	return out
}

func ruleView(r *route.Rule) api.Rule {
	return api.Rule{
		ID: r.ID, Position: r.Position, Stream: r.Stream, Tag: r.Tag, SenderDomain: r.SenderDomain,
		RecipientDomain: r.RecipientDomain, Pool: r.Pool,
	}
}
