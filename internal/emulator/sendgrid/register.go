package sendgrid

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/sendgate/sendgate/internal/emulator"
)

// webhook is one Event Webhook, in the form of the page "Create an Event Webhook" of the SendGrid API reference.
type webhook struct {
	id       string
	url      string
	enabled  bool
	name     string
	signed   bool            // SendGrid signs only if this is turned on
	switches map[string]bool // by setting
	created  time.Time
	updated  time.Time
	target   *emulator.Target
}

// maxWebhooks is the number of webhooks that the larger plans allow.
const maxWebhooks = 5

func settings() []string {
	return []string{
		"account_status_change", "group_resubscribe", "delivered", "group_unsubscribe", "spam_report", "bounce", "deferred",
		"unsubscribe", "processed", "open", "click", "dropped",
	}
}

func (a *api) registrations() {
	w := &a.webhooks
	w.ID = func(v *webhook) string { return v.id }
	w.Path = func(r *http.Request) string { return r.PathValue("id") }
	w.Show = a.showWebhook
	w.Gone = func(string) *emulator.Reply { return refuse(http.StatusNotFound, "", "webhook not found") }
	w.Read, w.Check = a.readWebhook, checkWebhook

	h := a.host
	const base = "/v3/user/webhooks/event/settings"
	h.Handle("GET "+base+"/all", h.Call(a.listWebhooks))
	h.Handle("POST "+base, h.Call(w.Create))
	h.Handle("GET "+base+"/{id}", h.Call(w.Get))
	h.Handle("PATCH "+base+"/{id}", h.Call(w.Update))
	h.Handle("DELETE "+base+"/{id}", h.Call(w.Delete))
	h.Handle("GET "+base+"/signed/{id}", h.Call(a.signed(w.Get)))
	h.Handle("PATCH "+base+"/signed/{id}", h.Call(a.signed(w.Update)))
}

// Registered lists the webhooks that want an event.
func (a *api) Registered(v *emulator.Event) []*emulator.Target {
	var all []*emulator.Target
	for _, w := range a.webhooks.All() {
		if v == nil || w.enabled && w.switches[names[v.Type].setting] {
			all = append(all, w.target)
		}
	}
	return all
}

func (a *api) Forget() { a.webhooks.Forget() }

func (a *api) showWebhook(did emulator.Action, w *webhook) *emulator.Reply {
	switch did {
	case emulator.Created:
		return emulator.JSON(http.StatusCreated, a.view(w))
	case emulator.Deleted:
		return &emulator.Reply{Status: http.StatusNoContent}
	case emulator.Shown, emulator.Updated:
	}
	return emulator.JSON(http.StatusOK, a.view(w))
}

func (a *api) view(w *webhook) map[string]any {
	m := map[string]any{
		"enabled": w.enabled, "url": w.url, "friendly_name": w.name, "id": w.id, "oauth_client_id": nil, "oauth_token_url": nil,
		"created_date": w.created.UTC().Format(time.RFC3339), "updated_date": w.updated.UTC().Format(time.RFC3339),
	}
	for _, name := range settings() {
		m[name] = w.switches[name]
	}
	if w.signed {
		m["public_key"] = a.keys.public
	}
	return m
}

func (a *api) listWebhooks(*http.Request, []byte) *emulator.Reply {
	views := []map[string]any{}
	for _, w := range a.webhooks.All() {
		views = append(views, a.view(w))
	}
	return emulator.JSON(http.StatusOK, map[string]any{"max_allowed": maxWebhooks, "webhooks": views})
}

// readWebhook changes the values in the request. In a request about the signature, it turns the signature on or off.
func (a *api) readWebhook(r *http.Request, body []byte, old *webhook) (*webhook, *emulator.Reply) {
	w := &webhook{id: uuid.NewString(), switches: map[string]bool{}, created: a.host.Now()}
	if old != nil {
		*w = *old
		w.switches = maps.Clone(old.switches)
	}
	var set map[string]any
	if json.Unmarshal(body, &set) != nil {
		return nil, refuse(http.StatusBadRequest, "", "Bad Request")
	}
	if isSigned(r) {
		on, ok := set["enabled"].(bool)
		if !ok {
			return nil, refuse(http.StatusBadRequest, "enabled", "enabled is required")
		}
		w.signed = on
	} else if wrong := w.change(set); wrong != "" {
		return nil, refuse(http.StatusBadRequest, wrong, "invalid type")
	}
	if err := a.host.CheckURL(w.url); err != nil {
		return nil, refuse(http.StatusBadRequest, "url", err.Error())
	}
	w.updated = a.host.Now()
	w.target = &emulator.Target{Hook: emulator.Hook{"url": w.url}, Registration: w}
	return w, nil
}

// change applies the values in the request. It returns the name of a field with a wrong type.
func (w *webhook) change(set map[string]any) (wrong string) {
	for name, v := range set {
		ok := true
		switch {
		case name == "url":
			w.url, ok = v.(string)
		case name == "friendly_name":
			w.name, ok = v.(string)
		case name == "enabled":
			w.enabled, ok = v.(bool)
		case slices.Contains(settings(), name):
			w.switches[name], ok = v.(bool)
		}
		if !ok {
			return name
		}
	}
	return ""
}

// checkWebhook refuses a webhook beyond maxWebhooks, and a second one with the same URL.
func checkWebhook(others []*webhook, w *webhook) *emulator.Reply {
	if len(others) >= maxWebhooks {
		return refuse(http.StatusBadRequest, "", "you have reached the maximum number of webhooks")
	}
	for _, o := range others {
		if o.url == w.url {
			return emulator.JSON(http.StatusBadRequest, map[string]any{"errors": []map[string]string{{
				"id": o.id, "url": o.url, "message": "A webhook with this URL already exists",
			}}})
		}
	}
	return nil
}

func isSigned(r *http.Request) bool { return strings.Contains(r.URL.Path, "/settings/signed/") }

// signed answers a call about the signature of a webhook.
func (a *api) signed(call func(*http.Request, []byte) *emulator.Reply) func(*http.Request, []byte) *emulator.Reply {
	return func(r *http.Request, body []byte) *emulator.Reply {
		p := call(r, body)
		w := a.webhooks.Find(r.PathValue("id"))
		if p.Status != http.StatusOK || w == nil {
			return p
		}
		key := ""
		if w.signed {
			key = a.keys.public
		}
		return emulator.JSON(http.StatusOK, map[string]string{"id": w.id, "public_key": key})
	}
}
