package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Incident is something that is, or was, wrong with the service.
type Incident struct {
	ID      string     `json:"id"`
	Kind    string     `json:"kind"`
	Account string     `json:"account,omitempty"`
	Subject string     `json:"subject,omitempty"` // what of the account: a sender, a limit
	Summary string     `json:"summary"`
	Detail  string     `json:"detail,omitempty"`
	Remedy  string     `json:"remedy,omitempty"`
	Runbook string     `json:"runbook"`
	Since   time.Time  `json:"since"` // when it was first seen
	BeganAt time.Time  `json:"began_at"`
	EndedAt *time.Time `json:"ended_at,omitempty"` // absent while it lasts
}

// NotifyRule says who is told of which incidents.
type NotifyRule struct {
	Name       string     `json:"name"`
	Channel    string     `json:"channel"`         // webhook, slack, mail
	Kinds      []string   `json:"kinds,omitempty"` // none: all
	URL        string     `json:"url,omitempty"`   // scheme and host only
	From       string     `json:"from,omitempty"`
	To         []string   `json:"to,omitempty"`
	Secret     string     `json:"secret,omitempty"` // of a webhook, in the answer to its creation only
	CreatedAt  time.Time  `json:"created_at"`
	LastToldAt *time.Time `json:"last_told_at,omitempty"`
	LastError  string     `json:"last_error,omitempty"` // of the last try; absent if it worked
}

// NotifyRuleRequest makes a rule: with URL for webhook and slack, with From and To for mail.
type NotifyRuleRequest struct {
	Name    string   `json:"name"`
	Channel string   `json:"channel"`
	Kinds   []string `json:"kinds,omitempty"`
	URL     string   `json:"url,omitempty"`
	From    string   `json:"from,omitempty"`
	To      []string `json:"to,omitempty"`
}

// NotifyTest is what became of a test of a rule.
type NotifyTest struct {
	Told      bool   `json:"told"` // for a mail: it was accepted
	Error     string `json:"error,omitempty"`
	MessageID string `json:"message_id,omitempty"` // of the mail
}

// Incidents lists the incidents that last, and the newest that have ended.
func (c *Client) Incidents(ctx context.Context) ([]Incident, error) {
	return list[Incident](ctx, c, admin+"/incidents")
}

// NotifyRules lists the notify rules.
func (c *Client) NotifyRules(ctx context.Context) ([]NotifyRule, error) {
	return list[NotifyRule](ctx, c, admin+"/notify-rules")
}

// CreateNotifyRule adds a rule. The Secret of a webhook is in this answer and nowhere else.
func (c *Client) CreateNotifyRule(ctx context.Context, r NotifyRuleRequest) (*NotifyRule, error) {
	return into[NotifyRule](ctx, c, call{method: http.MethodPost, path: admin + "/notify-rules", body: r})
}

// DeleteNotifyRule removes a rule, and what it has still to tell.
func (c *Client) DeleteNotifyRule(ctx context.Context, name string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: admin + "/notify-rules/" + url.PathEscape(name)})
}

// TestNotifyRule tells an example by a rule, once and at once.
func (c *Client) TestNotifyRule(ctx context.Context, name string) (*NotifyTest, error) {
	return into[NotifyTest](ctx, c, call{method: http.MethodPost, path: admin + "/notify-rules/" + url.PathEscape(name) + "/test"})
}
