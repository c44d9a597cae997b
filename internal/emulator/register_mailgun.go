package emulator

import (
	"net/http"
	"slices"
)

// mailgunMaxURLs is how many URLs a webhook has.
const mailgunMaxURLs = 3

func mailgunWebhooks() []string {
	return []string{
		"accepted", "clicked", "complained", "delivered", "opened", "permanent_fail", "temporary_fail", "unsubscribed",
	}
}

// mailgunTargets lists the URLs of an event's webhook; the caller holds the lock.
func (r *registry) mailgunTargets(h *happening) []*target { return r.mailgun[mailgunWebhook(h.what)] }

type mailgunURLs struct {
	URLs []string `json:"urls"`
}

func viewMailgun(list []*target) mailgunURLs {
	v := mailgunURLs{[]string{}}
	for _, t := range list {
		v.URLs = append(v.URLs, t.URL)
	}
	return v
}

func (g mailgun) listWebhooks(*http.Request, []byte) *reply {
	r := g.e.hooks
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := map[string]mailgunURLs{}
	for name, list := range r.mailgun {
		all[name] = viewMailgun(list)
	}
	return jsonReply(http.StatusOK, map[string]any{"webhooks": all})
}

func (g mailgun) getWebhook(req *http.Request, _ []byte) *reply {
	r := g.e.hooks
	r.mu.RLock()
	defer r.mu.RUnlock()
	list, ok := r.mailgun[req.PathValue("name")]
	if !ok {
		return mailgunFailure(http.StatusNotFound, "Webhook not found")
	}
	return jsonReply(http.StatusOK, map[string]any{"webhook": viewMailgun(list)})
}

func (g mailgun) createWebhook(req *http.Request, body []byte) *reply {
	form, err := parseMailgunForm(req.Header.Get("Content-Type"), body)
	if err != nil {
		return mailgunFailure(http.StatusBadRequest, "request body can't be parsed")
	}
	name := form.get("id")
	if !slices.Contains(mailgunWebhooks(), name) {
		return mailgunFailure(http.StatusBadRequest, "Invalid webhook id")
	}
	return g.storeWebhook(name, form.values["url"], "Webhook has been created", func(exists bool) *reply {
		if exists {
			return mailgunFailure(http.StatusBadRequest, "Webhook already exists")
		}
		return nil
	})
}

func (g mailgun) updateWebhook(req *http.Request, body []byte) *reply {
	form, err := parseMailgunForm(req.Header.Get("Content-Type"), body)
	if err != nil {
		return mailgunFailure(http.StatusBadRequest, "request body can't be parsed")
	}
	return g.storeWebhook(req.PathValue("name"), form.values["url"], "Webhook has been updated", func(exists bool) *reply {
		if !exists {
			return mailgunFailure(http.StatusNotFound, "Webhook not found")
		}
		return nil
	})
}

func (g mailgun) storeWebhook(name string, urls []string, done string, refuse func(exists bool) *reply) *reply {
	if len(urls) == 0 || len(urls) > mailgunMaxURLs {
		return mailgunFailure(http.StatusBadRequest, "url parameter is missing, or there are more than 3")
	}
	list := make([]*target, len(urls))
	for i, u := range urls {
		if err := checkHookURL(kindMailgun, u, g.e.opt.AllowRemote); err != nil {
			return mailgunFailure(http.StatusBadRequest, "Invalid URL: "+err.Error())
		}
		list[i] = g.e.keys.target(kindMailgun, Hook{URL: u})
	}
	r := g.e.hooks
	r.mu.Lock()
	defer r.mu.Unlock()
	_, exists := r.mailgun[name]
	if p := refuse(exists); p != nil {
		return p
	}
	r.mailgun[name] = list
	return jsonReply(http.StatusOK, map[string]any{"message": done, "webhook": viewMailgun(list)})
}

func (g mailgun) deleteWebhook(req *http.Request, _ []byte) *reply {
	r := g.e.hooks
	r.mu.Lock()
	defer r.mu.Unlock()
	list, ok := r.mailgun[req.PathValue("name")]
	if !ok {
		return mailgunFailure(http.StatusNotFound, "Webhook not found")
	}
	delete(r.mailgun, req.PathValue("name"))
	return jsonReply(http.StatusOK, map[string]any{"message": "Webhook has been deleted", "webhook": viewMailgun(list)})
}

// signingKey answers as the page "Get webhook signing key saved on the account" says.
func (g mailgun) signingKey(*http.Request, []byte) *reply {
	return jsonReply(http.StatusOK, map[string]string{
		"message": "success", "http_signing_key": g.e.keys.public.MailgunSigningKey,
	})
}
