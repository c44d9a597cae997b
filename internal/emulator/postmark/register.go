package postmark

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"github.com/sendgate/sendgate/internal/emulator"
)

// webhook is one webhook, in the form of the page "Webhooks API" of the Postmark developer documentation.
type webhook struct {
	settings
	id      int
	target  *emulator.Target
	headers http.Header
}

type settings struct {
	URL           string `json:"Url"`
	MessageStream string
	HTTPAuth      *credential                    `json:"HttpAuth,omitempty"`
	HTTPHeaders   []struct{ Name, Value string } `json:"HttpHeaders"`
	Triggers      map[string]triggerSwitch       `json:"Triggers"`
}

type credential struct{ Username, Password string }

type triggerSwitch struct {
	Enabled           bool
	IncludeContent    bool `json:",omitempty"`
	PostFirstOpenOnly bool `json:",omitempty"`
}

const verifyFailed = 1364

// triggerEvents holds one event for each trigger.
var triggerEvents = []emulator.EventType{
	emulator.Opened, emulator.Clicked, emulator.Delivered, emulator.Bounced, emulator.Complained, emulator.Deactivated,
}

func (a *api) registrations() {
	w := &a.webhooks
	w.ID = func(v *webhook) string { return strconv.Itoa(v.id) }
	w.Path = func(r *http.Request) string { return r.PathValue("id") }
	w.Gone = func(string) *emulator.Reply { return unprocessable(1350, "Webhook not found.") }
	w.Show, w.Read = showWebhook, a.readWebhook

	h := a.host
	h.Handle("GET /webhooks", h.Call(a.listWebhooks))
	h.Handle("POST /webhooks", h.Call(w.Create))
	h.Handle("GET /webhooks/{id}", h.Call(w.Get))
	h.Handle("PUT /webhooks/{id}", h.Call(w.Update))
	h.Handle("DELETE /webhooks/{id}", h.Call(w.Delete))
}

// Registered lists the webhooks of a message's stream that want an event.
func (a *api) Registered(v *emulator.Event) []*emulator.Target {
	var all []*emulator.Target
	for _, w := range a.webhooks.All() {
		if v == nil || w.MessageStream == v.Message.Channel && w.Triggers[triggers[v.Type]].Enabled {
			all = append(all, w.target)
		}
	}
	return all
}

func (a *api) Forget() { a.webhooks.Forget() }

func showWebhook(did emulator.Action, w *webhook) *emulator.Reply {
	if did == emulator.Deleted {
		return emulator.JSON(http.StatusOK, result{Message: "Webhook " + strconv.Itoa(w.id) + " removed."})
	}
	return emulator.JSON(http.StatusOK, w.view())
}

func (w *webhook) view() map[string]any {
	switches := map[string]triggerSwitch{}
	for _, t := range triggerEvents {
		switches[triggers[t]] = w.Triggers[triggers[t]]
	}
	auth := w.HTTPAuth
	if auth == nil {
		auth = &credential{}
	}
	return map[string]any{
		"ID": w.id, "Url": w.URL, "MessageStream": w.MessageStream, "HttpAuth": auth,
		"HttpHeaders": append([]struct{ Name, Value string }{}, w.HTTPHeaders...), "Triggers": switches,
	}
}

func unprocessable(code int, message string) *emulator.Reply {
	return refuse(http.StatusUnprocessableEntity, code, message)
}

func (a *api) listWebhooks(r *http.Request, _ []byte) *emulator.Reply {
	of := r.URL.Query().Get("MessageStream")
	views := []map[string]any{}
	for _, w := range a.webhooks.All() {
		if of == "" || of == w.MessageStream {
			views = append(views, w.view())
		}
	}
	return emulator.JSON(http.StatusOK, map[string]any{"Webhooks": views})
}

// readWebhook reads settings over older ones and calls the URL once per enabled trigger: Postmark saves a webhook only
// if all the answers are 200.
func (a *api) readWebhook(r *http.Request, body []byte, old *webhook) (*webhook, *emulator.Reply) {
	w := &webhook{settings: settings{MessageStream: stream}, headers: http.Header{}}
	if old != nil {
		w.settings, w.id = old.settings, old.id
		w.Triggers, w.HTTPHeaders = maps.Clone(old.Triggers), slices.Clone(old.HTTPHeaders)
		if old.HTTPAuth != nil {
			auth := *old.HTTPAuth
			w.HTTPAuth = &auth
		}
	}
	if p := decode(body, &w.settings); p != nil {
		return nil, p
	}
	if old != nil {
		w.MessageStream = old.MessageStream
	}
	if err := a.host.CheckURL(w.URL); err != nil {
		return nil, unprocessable(invalid, "Invalid 'Url': "+err.Error())
	}
	w.target = &emulator.Target{Hook: emulator.Hook{"url": w.URL}, Registration: w}
	if w.HTTPAuth != nil {
		w.target.Hook["username"], w.target.Hook["password"] = w.HTTPAuth.Username, w.HTTPAuth.Password
	}
	for _, h := range w.HTTPHeaders {
		if !emulator.ValidHeader(h.Name, h.Value) {
			return nil, unprocessable(invalid, "Invalid header '"+h.Name+"'.")
		}
		w.headers.Add(h.Name, h.Value)
	}
	for _, t := range triggerEvents {
		if name := triggers[t]; w.Triggers[name].Enabled {
			if err := a.verify(r.Context(), w.target, t); err != nil {
				return nil, unprocessable(verifyFailed, "The webhook URL could not be verified for "+name+": "+err.Error())
			}
		}
	}
	if old == nil {
		a.lastID++
		w.id = a.lastID
	}
	return w, nil
}

// verify sends an event of a made-up message to a webhook.
func (a *api) verify(ctx context.Context, target *emulator.Target, t emulator.EventType) error {
	m := &emulator.Message{Channel: stream, Tags: []string{"Test"}, Args: map[string]string{}, Entry: emulator.Entry{
		ProviderMessageID: uuid.NewString(), From: "sender@example.com", To: []string{"john@example.com"}, Subject: "Test subject",
	}}
	status, err := a.host.Verify(ctx, target, m, t)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("it answered %d and not 200", status)
	}
	return err
}
