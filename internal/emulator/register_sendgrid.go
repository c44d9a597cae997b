package emulator

import (
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
)

// sendGridWebhook is one Event Webhook, as the page "Create an Event Webhook" of the SendGrid API reference has it.
type sendGridWebhook struct {
	target
	enabled  bool
	name     string
	switches map[string]bool // by setting
	created  time.Time
	updated  time.Time
}

// sendGridMaxWebhooks is what the larger plans allow.
const sendGridMaxWebhooks = 5

func sendGridSwitches() []string {
	return []string{
		"account_status_change", "group_resubscribe", "delivered", "group_unsubscribe", "spam_report", "bounce", "deferred",
		"unsubscribe", "processed", "open", "click", "dropped",
	}
}

// sendGridTargets lists the webhooks that want an event; the caller holds the lock.
func (r *registry) sendGridTargets(h *happening) []*target {
	_, setting := sendGridNames(h.what)
	var all []*target
	for _, w := range r.sendGrid {
		if w.enabled && w.switches[setting] {
			all = append(all, &w.target)
		}
	}
	return all
}

func (w *sendGridWebhook) view(keys *keyring) map[string]any {
	m := map[string]any{
		"enabled": w.enabled, "url": w.URL, "friendly_name": w.name, "id": w.id, "oauth_client_id": nil, "oauth_token_url": nil,
		"created_date": w.created.UTC().Format(time.RFC3339), "updated_date": w.updated.UTC().Format(time.RFC3339),
	}
	for _, name := range sendGridSwitches() {
		m[name] = w.switches[name]
	}
	if w.signed {
		m["public_key"] = keys.public.SendGridPublicKey
	}
	return m
}

// change takes what a request sets; it returns the name of a field of the wrong type.
func (w *sendGridWebhook) change(set map[string]any) (wrong string) {
	for name, v := range set {
		ok := true
		switch {
		case name == "url":
			w.URL, ok = v.(string)
		case name == "friendly_name":
			w.name, ok = v.(string)
		case name == "enabled":
			w.enabled, ok = v.(bool)
		case slices.Contains(sendGridSwitches(), name):
			w.switches[name], ok = v.(bool)
		}
		if !ok {
			return name
		}
	}
	return ""
}

func (g sendGrid) listWebhooks(*http.Request, []byte) *reply {
	r := g.e.hooks
	r.mu.RLock()
	defer r.mu.RUnlock()
	views := []map[string]any{}
	for _, w := range r.sendGrid {
		views = append(views, w.view(g.e.keys))
	}
	return jsonReply(http.StatusOK, map[string]any{"max_allowed": sendGridMaxWebhooks, "webhooks": views})
}

func (g sendGrid) createWebhook(_ *http.Request, body []byte) *reply {
	now := g.e.now()
	w := &sendGridWebhook{target: target{id: uuid.NewString()}, switches: map[string]bool{}, created: now}
	r := g.e.hooks
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sendGrid) >= sendGridMaxWebhooks {
		return sendGridFailure(http.StatusBadRequest, "", "you have reached the maximum number of webhooks")
	}
	if p := g.store(w, body); p != nil {
		return p
	}
	r.sendGrid = append(r.sendGrid, w)
	return jsonReply(http.StatusCreated, w.view(g.e.keys))
}

func (g sendGrid) updateWebhook(req *http.Request, body []byte) *reply {
	r := g.e.hooks
	r.mu.Lock()
	defer r.mu.Unlock()
	i := g.find(req)
	if i < 0 {
		return sendGridFailure(http.StatusNotFound, "", "webhook not found")
	}
	changed := *r.sendGrid[i]
	changed.switches = maps.Clone(changed.switches)
	if p := g.store(&changed, body); p != nil {
		return p
	}
	r.sendGrid[i] = &changed
	return jsonReply(http.StatusOK, changed.view(g.e.keys))
}

// store checks and takes the settings of a webhook; the caller holds the lock.
func (g sendGrid) store(w *sendGridWebhook, body []byte) *reply {
	var set map[string]any
	if json.Unmarshal(body, &set) != nil {
		return sendGridFailure(http.StatusBadRequest, "", "Bad Request")
	}
	if wrong := w.change(set); wrong != "" {
		return sendGridFailure(http.StatusBadRequest, wrong, "invalid type")
	}
	if err := checkHookURL(kindSendGrid, w.URL, g.e.opt.AllowRemote); err != nil {
		return sendGridFailure(http.StatusBadRequest, "url", err.Error())
	}
	for _, o := range g.e.hooks.sendGrid {
		if o.URL == w.URL && o.id != w.id {
			return jsonReply(http.StatusBadRequest, map[string]any{"errors": []map[string]string{{
				"id": o.id, "url": o.URL, "message": "A webhook with this URL already exists",
			}}})
		}
	}
	w.updated = g.e.now()
	return nil
}

// find returns the index of the webhook that a path names, or -1; the caller holds the lock.
func (g sendGrid) find(req *http.Request) int {
	return slices.IndexFunc(g.e.hooks.sendGrid, func(w *sendGridWebhook) bool { return w.id == req.PathValue("id") })
}

func (g sendGrid) getWebhook(req *http.Request, _ []byte) *reply {
	r := g.e.hooks
	r.mu.RLock()
	defer r.mu.RUnlock()
	i := g.find(req)
	if i < 0 {
		return sendGridFailure(http.StatusNotFound, "", "webhook not found")
	}
	return jsonReply(http.StatusOK, r.sendGrid[i].view(g.e.keys))
}

func (g sendGrid) deleteWebhook(req *http.Request, _ []byte) *reply {
	r := g.e.hooks
	r.mu.Lock()
	defer r.mu.Unlock()
	i := g.find(req)
	if i < 0 {
		return sendGridFailure(http.StatusNotFound, "", "webhook not found")
	}
	r.sendGrid = slices.Delete(r.sendGrid, i, i+1)
	return &reply{status: http.StatusNoContent}
}

func (g sendGrid) getSigned(req *http.Request, _ []byte) *reply {
	r := g.e.hooks
	r.mu.RLock()
	defer r.mu.RUnlock()
	i := g.find(req)
	if i < 0 {
		return sendGridFailure(http.StatusNotFound, "", "webhook not found")
	}
	return g.signedView(r.sendGrid[i])
}

// setSigned turns the signature on or off. All webhooks here share one key; the real ones have one each.
func (g sendGrid) setSigned(req *http.Request, body []byte) *reply {
	var set struct {
		Enabled *bool `json:"enabled"`
	}
	if json.Unmarshal(body, &set) != nil || set.Enabled == nil {
		return sendGridFailure(http.StatusBadRequest, "enabled", "enabled is required")
	}
	r := g.e.hooks
	r.mu.Lock()
	defer r.mu.Unlock()
	i := g.find(req)
	if i < 0 {
		return sendGridFailure(http.StatusNotFound, "", "webhook not found")
	}
	changed := *r.sendGrid[i]
	changed.signed, changed.updated = *set.Enabled, g.e.now()
	r.sendGrid[i] = &changed
	return g.signedView(&changed)
}

func (g sendGrid) signedView(w *sendGridWebhook) *reply {
	key := ""
	if w.signed {
		key = g.e.keys.public.SendGridPublicKey
	}
	return jsonReply(http.StatusOK, map[string]string{"id": w.id, "public_key": key})
}
