package resend

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/sendgate/sendgate/internal/emulator"
)

// webhook is one endpoint, in the form of "Create Webhook" and "Retrieve Webhook".
type webhook struct {
	ID        string   `json:"id"`
	Endpoint  string   `json:"endpoint"`
	Events    []string `json:"events"`
	Status    string   `json:"status"`
	CreatedAt string   `json:"created_at"`
	Secret    string   `json:"signing_secret"`
	target    *emulator.Target
}

func (a *api) registrations() {
	w := &a.webhooks
	w.ID = func(v *webhook) string { return v.ID }
	w.Path = func(r *http.Request) string { return r.PathValue("id") }
	w.Gone = func(string) *emulator.Reply { return refuse(http.StatusNotFound, "not_found", "Webhook not found") }
	w.Show, w.Read = show, a.readWebhook

	h := a.host
	h.Handle("GET /webhooks", h.Call(a.listWebhooks))
	h.Handle("POST /webhooks", h.Call(w.Create))
	h.Handle("GET /webhooks/{id}", h.Call(w.Get))
	h.Handle("PATCH /webhooks/{id}", h.Call(w.Update))
	h.Handle("DELETE /webhooks/{id}", h.Call(w.Delete))
}

func (a *api) Keys() map[string]string { return map[string]string{"resend_secret": a.secret} }

// CompleteHook fills in the secret.
func (a *api) CompleteHook(h emulator.Hook) error {
	if h["secret"] == "" {
		h["secret"] = a.secret
	}
	_, err := secretKey(h["secret"])
	return err
}

// Registered lists the enabled endpoints that want an event.
func (a *api) Registered(v *emulator.Event) []*emulator.Target {
	var all []*emulator.Target
	for _, w := range a.webhooks.All() {
		if v == nil || w.Status == "enabled" && slices.Contains(w.Events, words[v.Type]) {
			all = append(all, w.target)
		}
	}
	return all
}

func (a *api) Forget() { a.webhooks.Forget() }

func show(did emulator.Action, w *webhook) *emulator.Reply {
	switch did {
	case emulator.Created:
		return emulator.JSON(http.StatusCreated, map[string]any{"object": "webhook", "id": w.ID, "signing_secret": w.Secret})
	case emulator.Updated:
		return emulator.JSON(http.StatusOK, map[string]any{"object": "webhook", "id": w.ID})
	case emulator.Deleted:
		return emulator.JSON(http.StatusOK, map[string]any{"object": "webhook", "id": w.ID, "deleted": true})
	case emulator.Shown:
	}
	return emulator.JSON(http.StatusOK, struct {
		Object string `json:"object"`
		webhook
	}{"webhook", *w})
}

func (a *api) listWebhooks(r *http.Request, _ []byte) *emulator.Reply {
	p, refused := pageOf(r)
	if refused != nil {
		return refused
	}
	all := a.webhooks.All()
	ids := make([]string, len(all))
	for i, w := range all {
		ids[i] = w.ID
	}
	from, to, more := p.cut(ids)
	data := []map[string]any{}
	for _, w := range all[from:to] {
		data = append(data, map[string]any{
			"id": w.ID, "endpoint": w.Endpoint, "events": w.Events, "status": w.Status, "created_at": w.CreatedAt,
		})
	}
	return listed(more, data)
}

// readWebhook makes an endpoint from a request, based on an older one if there is one.
func (a *api) readWebhook(_ *http.Request, body []byte, old *webhook) (*webhook, *emulator.Reply) {
	w := &webhook{ID: uuid.NewString(), Status: "enabled", CreatedAt: timeText(a.host.Now()), Secret: newSecret()}
	if old != nil {
		*w = *old
		w.Events = slices.Clone(old.Events)
	}
	var given struct {
		Endpoint *string   `json:"endpoint"`
		Events   *[]string `json:"events"`
		Status   *string   `json:"status"`
	}
	if err := json.Unmarshal(body, &given); err != nil {
		return nil, refuse(http.StatusUnprocessableEntity, "validation_error", "The request body is not valid JSON of a webhook.")
	}
	if given.Endpoint != nil {
		w.Endpoint = *given.Endpoint
	}
	if given.Events != nil {
		w.Events = *given.Events
	}
	if given.Status != nil && old != nil {
		w.Status = *given.Status
	}
	switch err := a.host.CheckURL(w.Endpoint); {
	case w.Endpoint == "":
		return nil, missing("endpoint")
	case err != nil:
		return nil, invalid("endpoint")
	case len(w.Events) == 0:
		return nil, missing("events")
	case w.Status != "enabled" && w.Status != "disabled":
		return nil, invalid("status")
	}
	w.target = &emulator.Target{Hook: emulator.Hook{"url": w.Endpoint, "secret": w.Secret}, Registration: w}
	return w, nil
}
