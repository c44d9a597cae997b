package emulator

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Hook is where the events of one provider go, as an operator of the emulator sets it: it gets all events. Fields left
// empty are those of HookKeys.
type Hook struct {
	URL        string `json:"url"`                   // http or https; for smtp lmtp://host:port
	SigningKey string `json:"signing_key,omitempty"` // mailgun
	Username   string `json:"username,omitempty"`    // postmark, basic authentication
	Password   string `json:"password,omitempty"`
	Header     string `json:"header,omitempty"` // postmark, instead: a header and its value
	Token      string `json:"token,omitempty"`
	TopicARN   string `json:"topic_arn,omitempty"` // ses
}

// check says what is wrong with a hook, and what is allowed there.
func (h *Hook) check(kind string, remote bool) error {
	if err := checkHookURL(kind, h.URL, remote); err != nil {
		return err
	}
	switch {
	case h.SigningKey != "" && kind != kindMailgun:
		return fmt.Errorf("signing_key: is for %s only", kindMailgun)
	case h.Username+h.Password+h.Header+h.Token != "" && kind != kindPostmark:
		return fmt.Errorf("username, password, header, token: are for %s only", kindPostmark)
	case h.TopicARN != "" && (kind != kindSES || !strings.HasPrefix(h.TopicARN, "arn:")):
		return fmt.Errorf("topic_arn: is for %s only and looks like arn:aws:sns:REGION:ACCOUNT:NAME", kindSES)
	case (h.Header == "") != (h.Token == ""):
		return fmt.Errorf("header, token: go together")
	case h.Header != "" && (!validHeaderName(h.Header) || strings.ContainsAny(h.Token, "\r\n\x00")):
		return fmt.Errorf("header: %q is not a valid header", h.Header)
	case h.Header != "" && h.Username+h.Password != "":
		return fmt.Errorf("header: goes without username and password")
	}
	return nil
}

// checkHookURL keeps an emulator from posting to hosts of others: without AllowRemote only this machine is told.
func checkHookURL(kind, raw string, remote bool) error {
	schemes := []string{"http", "https"}
	if kind == kindSMTP {
		schemes = []string{"lmtp"}
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme) {
		return fmt.Errorf("url: %q is not %s://HOST", raw, strings.Join(schemes, ":// or "))
	}
	if kind == kindSMTP && u.Port() == "" {
		return fmt.Errorf("url: %q has no port", raw)
	}
	ip := net.ParseIP(u.Hostname())
	if remote || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("url: %s is not a loopback address, and AllowRemote is not set", u.Hostname())
}

// target is one receiver of events: a Hook, or what a registration made.
type target struct {
	Hook
	id      string      // of a registration at SendGrid
	signed  bool        // SendGrid signs only when asked to
	headers http.Header // Postmark's HttpHeaders
}

// registry knows who is told. It is safe for concurrent use.
type registry struct {
	mu       sync.RWMutex
	hooks    map[string]*target   // by kind
	sendGrid []*sendGridWebhook   // what the providers' own APIs registered
	mailgun  map[string][]*target // by webhook name
	postmark []*postmarkWebhook   //
	lastID   int                  // of a Postmark webhook
	sets     map[string]*sesSet   // configuration sets by name
	topics   []*topicSubscription // of SNS
}

func newRegistry() *registry {
	return &registry{hooks: map[string]*target{}, mailgun: map[string][]*target{}, sets: map[string]*sesSet{}}
}

// targets lists who is told of an event, each URL once.
func (r *registry) targets(h *happening) []*target {
	r.mu.RLock()
	defer r.mu.RUnlock()
	kind := h.of.Provider
	var all []*target
	add := func(t *target) {
		if !slices.ContainsFunc(all, func(o *target) bool { return o.URL == t.URL }) {
			all = append(all, t)
		}
	}
	for _, t := range r.registered(h) {
		add(t)
	}
	if t := r.hooks[kind]; t != nil {
		add(t)
	}
	return all
}

func (r *registry) registered(h *happening) []*target {
	switch h.of.Provider {
	case kindSendGrid:
		return r.sendGridTargets(h)
	case kindMailgun:
		return r.mailgunTargets(h)
	case kindPostmark:
		return r.postmarkTargets(h)
	case kindSES:
		return r.sesTargets(h)
	}
	return nil
}

// any reports whether a provider has anybody to tell; without, its messages need no plan.
func (r *registry) any(kind string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.hooks[kind] != nil {
		return true
	}
	switch kind {
	case kindSendGrid:
		return len(r.sendGrid) > 0
	case kindMailgun:
		return len(r.mailgun) > 0
	case kindPostmark:
		return len(r.postmark) > 0
	case kindSES:
		return len(r.topics) > 0
	}
	return false
}

// forget drops hooks and registrations of one provider, or with "" of all.
func (r *registry) forget(kind string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range kinds() {
		if kind != "" && kind != k {
			continue
		}
		delete(r.hooks, k)
		switch k {
		case kindSendGrid:
			r.sendGrid = nil
		case kindMailgun:
			clear(r.mailgun)
		case kindPostmark:
			r.postmark = nil
		case kindSES:
			clear(r.sets)
			r.topics = nil
		}
	}
}

// SetHooks replaces the hooks of all providers, as PUT /_hooks does; what was registered by the providers' own APIs
// stays. It may be called before Start. The error names what is wrong and what is allowed; the old hooks stay then.
func (e *Emulator) SetHooks(all map[string]Hook) error {
	hooks := make(map[string]*target, len(all))
	for kind, h := range all {
		if !slices.Contains(kinds(), kind) {
			return fmt.Errorf("hooks: provider %q is not one of %s", kind, strings.Join(kinds(), ", "))
		}
		if err := h.check(kind, e.opt.AllowRemote); err != nil {
			return fmt.Errorf("hooks.%s.%w", kind, err)
		}
		hooks[kind] = e.keys.target(kind, h)
	}
	e.hooks.mu.Lock()
	defer e.hooks.mu.Unlock()
	e.hooks.hooks = hooks
	return nil
}

// set lists the hooks that are set, by kind.
func (r *registry) set() map[string]Hook {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make(map[string]Hook, len(r.hooks))
	for kind, t := range r.hooks {
		all[kind] = t.Hook
	}
	return all
}

// urls lists what the providers' APIs registered, sorted, by kind.
func (r *registry) urls() map[string][]string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := map[string][]string{}
	for _, w := range r.sendGrid {
		all[kindSendGrid] = append(all[kindSendGrid], w.URL)
	}
	for _, list := range r.mailgun {
		for _, t := range list {
			all[kindMailgun] = append(all[kindMailgun], t.URL)
		}
	}
	for _, w := range r.postmark {
		all[kindPostmark] = append(all[kindPostmark], w.target.URL)
	}
	for _, s := range r.topics {
		all[kindSES] = append(all[kindSES], s.endpoint)
	}
	for kind := range maps.Keys(all) {
		slices.Sort(all[kind])
		all[kind] = slices.Compact(all[kind])
	}
	return all
}
