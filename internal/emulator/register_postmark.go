package emulator

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// postmarkWebhook is one webhook, as the page "Webhooks API" of the Postmark developer documentation has it.
type postmarkWebhook struct {
	target
	postmarkWebhookSettings
	ID int `json:"ID"`
}

type postmarkWebhookSettings struct {
	URL           string `json:"Url"`
	MessageStream string
	HTTPAuth      *postmarkAuth                    `json:"HttpAuth,omitempty"`
	HTTPHeaders   []struct{ Name, Value string }   `json:"HttpHeaders"`
	Triggers      map[string]postmarkTriggerSwitch `json:"Triggers"`
}

func (s *postmarkWebhookSettings) clone() postmarkWebhookSettings {
	c := *s
	c.Triggers, c.HTTPHeaders = maps.Clone(s.Triggers), slices.Clone(s.HTTPHeaders)
	if s.HTTPAuth != nil {
		auth := *s.HTTPAuth
		c.HTTPAuth = &auth
	}
	return c
}

type postmarkAuth struct{ Username, Password string }

type postmarkTriggerSwitch struct {
	Enabled           bool
	IncludeContent    bool `json:",omitempty"`
	PostFirstOpenOnly bool `json:",omitempty"`
}

const postmarkVerifyFailed = 1364

func postmarkTriggers() []what {
	return []what{wasOpened, wasClicked, wasDelivered, wasBounced, wasComplained, wasDeactivated}
}

// postmarkTargets lists the webhooks of a message's stream that want an event; the caller holds the lock.
func (r *registry) postmarkTargets(h *happening) []*target {
	var all []*target
	for _, w := range r.postmark {
		if w.MessageStream == h.of.stream && w.Triggers[postmarkTrigger(h.what)].Enabled {
			all = append(all, &w.target)
		}
	}
	return all
}

// view is a webhook in an answer.
func (w *postmarkWebhook) view() map[string]any {
	triggers := map[string]postmarkTriggerSwitch{}
	for _, name := range postmarkTriggers() {
		triggers[postmarkTrigger(name)] = w.Triggers[postmarkTrigger(name)]
	}
	auth := w.HTTPAuth
	if auth == nil {
		auth = &postmarkAuth{}
	}
	headers := []map[string]string{}
	for _, h := range w.HTTPHeaders {
		headers = append(headers, map[string]string{"Name": h.Name, "Value": h.Value})
	}
	return map[string]any{
		"ID": w.ID, "Url": w.target.URL, "MessageStream": w.MessageStream, "HttpAuth": auth,
		"HttpHeaders": headers, "Triggers": triggers,
	}
}

func postmarkUnprocessable(code int, message string) *reply {
	return postmarkFailure(http.StatusUnprocessableEntity, code, message)
}

func (g postmark) listWebhooks(req *http.Request, _ []byte) *reply {
	stream := req.URL.Query().Get("MessageStream")
	r := g.e.hooks
	r.mu.RLock()
	defer r.mu.RUnlock()
	views := []map[string]any{}
	for _, w := range r.postmark {
		if stream == "" || stream == w.MessageStream {
			views = append(views, w.view())
		}
	}
	return jsonReply(http.StatusOK, map[string]any{"Webhooks": views})
}

func (g postmark) getWebhook(req *http.Request, _ []byte) *reply {
	if w := g.webhook(req); w != nil {
		return jsonReply(http.StatusOK, w.view())
	}
	return g.noWebhook()
}

func (postmark) noWebhook() *reply { return postmarkUnprocessable(1350, "Webhook not found.") }

func (g postmark) webhook(req *http.Request) *postmarkWebhook {
	r := g.e.hooks
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, w := range r.postmark {
		if strconv.Itoa(w.ID) == req.PathValue("id") {
			return w
		}
	}
	return nil
}

func (g postmark) createWebhook(req *http.Request, body []byte) *reply {
	s := postmarkWebhookSettings{MessageStream: postmarkStream}
	w, p := g.checkWebhook(req.Context(), body, s)
	if p != nil {
		return p
	}
	r := g.e.hooks
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lastID++
	w.ID = r.lastID
	r.postmark = append(r.postmark, w)
	return jsonReply(http.StatusOK, w.view())
}

func (g postmark) updateWebhook(req *http.Request, body []byte) *reply {
	old := g.webhook(req)
	if old == nil {
		return g.noWebhook()
	}
	w, p := g.checkWebhook(req.Context(), body, old.postmarkWebhookSettings)
	if p != nil {
		return p
	}
	w.ID, w.MessageStream = old.ID, old.MessageStream
	r := g.e.hooks
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.Index(r.postmark, old)
	if i < 0 {
		return g.noWebhook()
	}
	r.postmark[i] = w
	return jsonReply(http.StatusOK, w.view())
}

func (g postmark) deleteWebhook(req *http.Request, _ []byte) *reply {
	r := g.e.hooks
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.postmark)
	r.postmark = slices.DeleteFunc(r.postmark, func(w *postmarkWebhook) bool {
		return strconv.Itoa(w.ID) == req.PathValue("id")
	})
	if len(r.postmark) == before {
		return g.noWebhook()
	}
	return jsonReply(http.StatusOK, postmarkResult{Message: "Webhook " + req.PathValue("id") + " removed."})
}

// checkWebhook reads settings over older ones and calls the URL once per enabled trigger: Postmark saves a webhook only
// if all of them are answered 200.
func (g postmark) checkWebhook(ctx context.Context, body []byte, s postmarkWebhookSettings) (*postmarkWebhook, *reply) {
	s = s.clone()
	if p := decodePostmark(body, &s); p != nil {
		return nil, p
	}
	if err := checkHookURL(kindPostmark, s.URL, g.e.opt.AllowRemote); err != nil {
		return nil, postmarkUnprocessable(postmarkInvalid, "Invalid 'Url': "+err.Error())
	}
	w := &postmarkWebhook{postmarkWebhookSettings: s, target: target{Hook: Hook{URL: s.URL}, headers: http.Header{}}}
	if s.HTTPAuth != nil {
		w.Username, w.Password = s.HTTPAuth.Username, s.HTTPAuth.Password
	}
	for _, h := range s.HTTPHeaders {
		if !validHeaderName(h.Name) || strings.ContainsAny(h.Value, "\r\n\x00") {
			return nil, postmarkUnprocessable(postmarkInvalid, "Invalid header '"+h.Name+"'.")
		}
		w.headers.Add(h.Name, h.Value)
	}
	for _, trigger := range postmarkTriggers() {
		if name := postmarkTrigger(trigger); s.Triggers[name].Enabled {
			if err := g.verifyTrigger(ctx, &w.target, trigger); err != nil {
				return nil, postmarkUnprocessable(postmarkVerifyFailed, "The webhook URL could not be verified for "+name+": "+err.Error())
			}
		}
	}
	return w, nil
}

// verifyTrigger posts an event of a message that never was.
func (g postmark) verifyTrigger(ctx context.Context, t *target, w what) error {
	l := &letter{stream: postmarkStream, tags: []string{"Test"}, Entry: Entry{
		Provider: kindPostmark, ProviderMessageID: uuid.NewString(), From: "sender@example.com", To: []string{"john@example.com"},
		At: g.e.now(), Subject: "Test subject",
	}}
	p := &post{target: t, events: []happening{{of: l, what: w, to: l.To, at: l.At}}}
	herald := postmarkHerald{g.e.posts}
	if err := herald.compose(p); err != nil {
		return err
	}
	status, err := herald.send(ctx, p)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("it answered %d and not 200", status)
	}
	return nil
}
