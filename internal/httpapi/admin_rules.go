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

func (s *Server) listRules(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	return s.showRules(w, r)
}

func (s *Server) showRules(w http.ResponseWriter, r *http.Request) error {
	cfg, err := s.store.Config(r.Context())
	if err != nil {
		return err
	}
	out := api.List[api.Rule]{Data: make([]api.Rule, 0, len(cfg.Rules))}
	for _, rule := range cfg.Rules {
		out.Data = append(out.Data, ruleView(rule))
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) createRule(w http.ResponseWriter, r *http.Request) error {
	in, err := read[api.Rule](s, w, r)
	if err != nil {
		return err
	}
	if in.ID != 0 {
		return invalid("id", "fixed", "is given by the server")
	}
	cfg, err := s.store.Config(r.Context())
	if err != nil {
		return err
	}
	rule, fields := ruleOf("", in, cfg)
	if len(fields) > 0 {
		return &mail.Invalid{Fields: fields}
	}
	created, err := s.store.CreateRule(r.Context(), principal(r).ID, rule)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, ruleView(created))
}

// replaceRules replaces the whole list of rules. All rules get new ids, so that a caller can read the list, change it and send
// it back.
func (s *Server) replaceRules(w http.ResponseWriter, r *http.Request) error {
	in, err := read[api.RulesRequest](s, w, r)
	if err != nil {
		return err
	}
	if in.Rules == nil {
		return invalid("rules", "missing", "must be a list; an empty one removes all rules")
	}
	if len(in.Rules) > maxRules {
		return invalid("rules", "too_many", fmt.Sprintf("must be at most %d", maxRules))
	}
	cfg, err := s.store.Config(r.Context())
	if err != nil {
		return err
	}
	rules, err := rulesOf(in.Rules, cfg)
	if err != nil {
		return err
	}
	if err := s.store.SetRules(r.Context(), principal(r).ID, rules); err != nil {
		return err
	}
	return afterStore(s.showRules(w, r))
}

// rulesOf checks a whole list. Each position may occur only once: the first match wins, so the order must be clear.
func rulesOf(in []api.Rule, cfg *route.Config) ([]route.Rule, error) {
	rules, bad, positions := make([]route.Rule, 0, len(in)), &mail.Invalid{}, map[int]bool{}
	for i, one := range in {
		at := fmt.Sprintf("rules[%d].", i)
		rule, fields := ruleOf(at, one, cfg)
		bad.Fields = append(bad.Fields, fields...)
		if positions[one.Position] {
			bad.Fields = append(bad.Fields, mail.Field{
				Field: at + "position", Code: "duplicate", Message: "is used by two rules",
			})
		}
		positions[one.Position] = true
		rules = append(rules, rule)
	}
	if len(bad.Fields) > 0 {
		return nil, bad
	}
	return rules, nil
}

func (s *Server) deleteRule(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	id, err := strconv.ParseInt(pathParam(r, "rule"), 10, 64)
	if err != nil || id < 1 {
		return refuse(http.StatusNotFound, "not_found", "There is no such rule.")
	}
	if err := s.store.DeleteRule(r.Context(), principal(r).ID, id); err != nil {
		return missing(err, "There is no such rule.")
	}
	return noContent(w)
}

// ruleOf checks one rule and brings its domains into canonical form. Field names in its errors begin with at.
func ruleOf(at string, in api.Rule, cfg *route.Config) (route.Rule, []mail.Field) {
	out := route.Rule{Position: in.Position, Stream: in.Stream, Tag: in.Tag, Pool: in.Pool}
	var fields []mail.Field
	complain := func(field, code, message string) {
		fields = append(fields, mail.Field{Field: at + field, Code: code, Message: message})
	}
	if in.Position < 0 || in.Position > maxPosition {
		complain("position", "out_of_range", "must be 0 to 1000000")
	}
	for _, text := range []struct{ field, value string }{{"stream", in.Stream}, {"tag", in.Tag}} {
		if len(text.value) > maxRuleField || !clean(text.value) {
			complain(text.field, "invalid_text", "must have at most 128 bytes and no control characters")
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
			complain(d.field, "invalid_domain", "must be a domain")
		}
		*d.to = domain
	}
	if cfg.Pool(in.Pool) == nil {
		complain("pool", "unknown_pool", "is not a pool")
	}
	return out, fields
}

func ruleView(r route.Rule) api.Rule {
	return api.Rule{
		ID: r.ID, Position: r.Position, Stream: r.Stream, Tag: r.Tag, SenderDomain: r.SenderDomain,
		RecipientDomain: r.RecipientDomain, Pool: r.Pool,
	}
}
