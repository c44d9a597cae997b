package mailgun

import (
	"net/http"
	"slices"

	"github.com/sendgate/sendgate/internal/emulator"
)

// webhook holds the URLs of one name, at most 3.
type webhook struct {
	name    string
	targets []*emulator.Target
}

const maxURLs = 3

func (a *api) registrations() {
	w := &a.webhooks
	w.ID = func(v *webhook) string { return v.name }
	w.Path = func(r *http.Request) string { return r.PathValue("name") }
	w.Gone = func(string) *emulator.Reply { return refuse(http.StatusNotFound, "Webhook not found") }
	w.Show = showWebhook
	w.Exists = func(*webhook) *emulator.Reply { return refuse(http.StatusBadRequest, "Webhook already exists") }
	w.Read = a.readWebhook

	h := a.host
	const base = "/v3/domains/{domain}/webhooks"
	h.Handle("GET "+base, h.Call(a.listWebhooks))
	h.Handle("POST "+base, h.Call(w.Create))
	h.Handle("GET "+base+"/{name}", h.Call(w.Get))
	h.Handle("PUT "+base+"/{name}", h.Call(w.Update))
	h.Handle("DELETE "+base+"/{name}", h.Call(w.Delete))
	h.Handle("GET /v5/accounts/http_signing_key", h.Call(a.showSigningKey))
}

// Registered lists the URLs of an event's webhook.
func (a *api) Registered(v *emulator.Event) []*emulator.Target {
	var all []*emulator.Target
	for _, w := range a.webhooks.All() {
		if v == nil || w.name == webhookNames[v.Type] {
			all = append(all, w.targets...)
		}
	}
	return all
}

func (a *api) Forget() { a.webhooks.Forget() }

func (w *webhook) view() map[string][]string {
	urls := []string{}
	for _, t := range w.targets {
		urls = append(urls, t.Hook["url"])
	}
	return map[string][]string{"urls": urls}
}

func showWebhook(did emulator.Action, w *webhook) *emulator.Reply {
	m := map[string]any{"webhook": w.view()}
	if did != emulator.Shown {
		m["message"] = "Webhook has been " + string(did)
	}
	return emulator.JSON(http.StatusOK, m)
}

func (a *api) listWebhooks(*http.Request, []byte) *emulator.Reply {
	all := map[string]any{}
	for _, w := range a.webhooks.All() {
		all[w.name] = w.view()
	}
	return emulator.JSON(http.StatusOK, map[string]any{"webhooks": all})
}

// readWebhook makes the webhook of a name from a form. It refuses unknown names and too many URLs.
func (a *api) readWebhook(r *http.Request, body []byte, old *webhook) (*webhook, *emulator.Reply) {
	form, err := parseForm(r.Header.Get("Content-Type"), body)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "request body can't be parsed")
	}
	names := []string{"accepted", "clicked", "complained", "delivered", "opened", "permanent_fail", "temporary_fail", "unsubscribed"}
	w := &webhook{name: form.get("id")}
	if old != nil {
		w.name = old.name
	}
	if !slices.Contains(names, w.name) {
		return nil, refuse(http.StatusBadRequest, "Invalid webhook id")
	}
	urls := form.values["url"]
	if len(urls) == 0 || len(urls) > maxURLs {
		return nil, refuse(http.StatusBadRequest, "url parameter is missing, or there are more than 3")
	}
	for _, u := range urls {
		if err := a.host.CheckURL(u); err != nil {
			return nil, refuse(http.StatusBadRequest, "Invalid URL: "+err.Error())
		}
		w.targets = append(w.targets, &emulator.Target{Hook: emulator.Hook{"url": u, "signing_key": a.signingKey}})
	}
	return w, nil
}
