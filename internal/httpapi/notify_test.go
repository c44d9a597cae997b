package httpapi

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/incident"
	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// fakeNotify keeps notify rules in memory and obeys the contract of NotifyStore.
type fakeNotify struct {
	store     *fakeStore // fails with it
	rules     []incident.Rule
	incidents []incident.Incident
	tests     incident.Result
	actors    []string
}

func withNotify(t *testing.T) (*fakeNotify, *rig) {
	t.Helper()
	r := newRig(t, func(o *Options) {
		o.Webhooks.CheckWebhookURL = func(raw string) error { return jail.CheckURL(raw, jail.Options{}) }
	})
	return r.notify, r
}

func (f *fakeNotify) NotifyRules(ctx context.Context) ([]incident.Rule, error) {
	return ask(ctx, f.store, "NotifyRules", func() ([]incident.Rule, error) { return f.rules, nil })
}

func (f *fakeNotify) CreateNotifyRule(ctx context.Context, actor string, r incident.Rule) (*incident.Rule, error) {
	return ask(ctx, f.store, "CreateNotifyRule", func() (*incident.Rule, error) {
		if slices.ContainsFunc(f.rules, func(have incident.Rule) bool { return have.Name == r.Name }) {
			return nil, record.ErrConflict
		}
		r.CreatedAt = f.store.at
		f.rules, f.actors = append(f.rules, r), append(f.actors, actor)
		return &r, nil
	})
}

func (f *fakeNotify) DeleteNotifyRule(ctx context.Context, actor, name string) error {
	return f.store.act(ctx, "DeleteNotifyRule", func() error {
		n := len(f.rules)
		f.rules = slices.DeleteFunc(f.rules, func(r incident.Rule) bool { return r.Name == name })
		if len(f.rules) == n {
			return record.ErrNotFound
		}
		f.actors = append(f.actors, actor)
		return nil
	})
}

func (f *fakeNotify) Incidents(ctx context.Context, _ int) ([]incident.Incident, error) {
	return ask(ctx, f.store, "Incidents", func() ([]incident.Incident, error) { return f.incidents, nil })
}

func (f *fakeNotify) Test(_ context.Context, rule string) (incident.Result, error) {
	if rule != "pager" {
		return incident.Result{}, record.ErrNotFound
	}
	return f.tests, nil
}

func TestNotifyRules(t *testing.T) {
	t.Parallel()
	f, r := withNotify(t)
	const rules = "/admin/v1/notify-rules"
	hook := r.do("POST", rules, r.admin, `{"name":"pager","channel":"webhook","url":"https://ops.example.com/canary","kinds":["books","books","queue_age"]}`)
	r.want(hook, 201, "")
	if secret := f.rules[0].Secret.Reveal(); !strings.HasPrefix(secret, "whsec_") || !strings.Contains(string(hook.body), secret) {
		t.Errorf("the answer %s has not the secret", hook.body)
	}
	if !slices.Equal(f.rules[0].Kinds, []incident.Kind{incident.Books, incident.QueueAge}) || f.rules[0].URL.Reveal() != "https://ops.example.com/canary" {
		t.Errorf("stored %+v", f.rules[0])
	}
	r.want(r.do("POST", rules, r.admin, `{"name":"chat","channel":"slack","url":"https://hooks.example.com/canary"}`), 201, "")
	r.want(r.do("POST", rules, r.admin, `{"name":"ops","channel":"mail","from":"sendgate@example.com","to":["Ops <ops@example.org>"]}`), 201, "")
	r.want(r.do("POST", rules, r.admin, `{"name":"ops","channel":"mail","from":"sendgate@example.com","to":["ops@example.org"]}`), 409, "name_taken")
	list := r.do("GET", rules, r.admin, "")
	r.want(list, 200, "")
	if text := string(list.body); strings.Contains(text, "canary") || strings.Contains(text, "whsec_") || !strings.Contains(text, `"https://hooks.example.com"`) {
		t.Errorf("the list shows a secret, or too little: %s", text)
	}
	r.want(r.do("DELETE", rules+"/chat", r.admin, ""), 204, "")
	r.want(r.do("DELETE", rules+"/chat", r.admin, ""), 404, "not_found")
	if len(f.actors) != 4 || f.actors[0] == "" {
		t.Errorf("actors = %q, want the key of each change", f.actors)
	}
}

func TestNotifyRulesThatAreRefused(t *testing.T) {
	t.Parallel()
	f, r := withNotify(t)
	for body, fields := range map[string][]string{
		`{"name":"Pager","channel":"fax"}`:                                                                         {"name", "channel"},
		`{"name":"pager","channel":"webhook"}`:                                                                     {"url"},
		`{"name":"pager","channel":"webhook","url":"http://127.0.0.1/"}`:                                           {"url"},
		`{"name":"pager","channel":"webhook","url":"https://ops.example.com/","to":["a@example.com"]}`:             {"to"},
		`{"name":"pager","channel":"slack","url":"https://ops.example.com/","kinds":["books","outage","test"]}`:    {"kinds[1]", "kinds[2]"},
		`{"name":"pager","channel":"mail","url":"https://ops.example.com/","from":"x","to":["a@example.com"]}`:     {"url", "from"},
		`{"name":"pager","channel":"mail","from":"a@example.com","to":[]}`:                                         {"to"},
		`{"name":"pager","channel":"mail","from":"a@example.com","to":["b@example.com","nobody","c@example.com"]}`: {"to[1]"},
	} {
		a := r.do("POST", "/admin/v1/notify-rules", r.admin, body)
		if a.status != 422 {
			t.Errorf("%s answered %d", body, a.status)
		}
		var got []string
		for _, e := range a.problem.Errors {
			got = append(got, e.Field)
		}
		if !slices.Equal(got, fields) {
			t.Errorf("%s: mistakes in %q, want %q", body, got, fields)
		}
	}
	if len(f.rules) > 0 {
		t.Errorf("stored %+v", f.rules)
	}
}

func TestNotifyTestTellsWhatBecameOfIt(t *testing.T) {
	t.Parallel()
	f, r := withNotify(t)
	const path = "/admin/v1/notify-rules/pager/test"
	body := func(result incident.Result) string {
		f.tests = result
		a := r.do("POST", path, r.admin, "")
		r.want(a, 200, "")
		return strings.TrimSpace(string(a.body))
	}
	if got := body(incident.Result{Done: true}); got != `{"told":true}` {
		t.Errorf("told: %s", got)
	}
	if got := body(incident.Result{Error: "the answer was 404"}); got != `{"told":false,"error":"the answer was 404"}` {
		t.Errorf("not told: %s", got)
	}
	id := mail.NewID()
	if got := body(incident.Result{Done: true, Notice: &incident.Notice{Message: id}}); got != `{"told":true,"message_id":"`+id.String()+`"}` {
		t.Errorf("mail: %s", got)
	}
	r.want(r.do("POST", "/admin/v1/notify-rules/other/test", r.admin, ""), 404, "not_found")
}

func TestIncidents(t *testing.T) {
	t.Parallel()
	f, r := withNotify(t)
	at := r.clock.now()
	f.incidents = []incident.Incident{
		{ID: mail.NewID(), Kind: incident.AuthFailure, Account: "ses", Detail: "403", Since: at, Began: at},
		{ID: mail.NewID(), Kind: incident.Books, Subject: "lost", Since: at, Began: at, Ended: at.Add(time.Minute)},
	}
	a := r.do("GET", "/admin/v1/incidents", r.admin, "")
	r.want(a, 200, "")
	for _, want := range []string{`"kind":"auth_failure","account":"ses","summary":"the provider refuses the account"`, "sendgate providers resume ses", "docs/runbook.md#books", `"ended_at":"2026-01-31T08:31:00.000Z"`} {
		if !strings.Contains(string(a.body), want) {
			t.Errorf("the answer lacks %s: %s", want, a.body)
		}
	}
}
