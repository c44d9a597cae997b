package emulator

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Hook is the destination of one provider's events, as set by an operator of the emulator: it gets all events. It has "url",
// which is http or https, or lmtp://host:port for a relay. It may have the fields of the kind; missing ones are filled in with
// HookKeys.
type Hook map[string]string

// Target is one receiver of events.
type Target struct {
	Hook
	Registration any // the registration in the provider's own API; nil for a hook of the operator
}

// checkHook says what is wrong with a hook, and what is allowed. It fills in missing fields.
func (h *Host) checkHook(hook Hook) error {
	fields := append([]string{"url"}, h.kind.HookFields...)
	for name := range hook {
		if !slices.Contains(fields, name) {
			return fmt.Errorf("%s: unknown field; %s has %s", name, h.kind.Name, strings.Join(fields, ", "))
		}
	}
	if err := h.CheckURL(hook["url"]); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	return h.provider.CompleteHook(hook)
}

// CheckURL keeps an emulator from posting to other people's hosts: without AllowRemote it posts only to this machine.
func (h *Host) CheckURL(raw string) error {
	schemes := []string{"http", "https"}
	if h.kind.SMTP {
		schemes = []string{"lmtp"}
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme) {
		return fmt.Errorf("%q is not %s://HOST", raw, strings.Join(schemes, ":// or "))
	}
	if h.kind.SMTP && u.Port() == "" {
		return fmt.Errorf("%q has no port", raw)
	}
	ip := net.ParseIP(u.Hostname())
	if h.e.opt.AllowRemote || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s is not a loopback address, and AllowRemote is not set", u.Hostname())
}

// ValidHeader reports whether a name and a value make a header that a hook may send.
func ValidHeader(name, value string) bool {
	other := func(r rune) bool {
		return !strings.ContainsRune("!#$%&'*+-.^_`|~", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}
	return name != "" && http.CanonicalHeaderKey(name) != "Content-Length" && !strings.ContainsFunc(name, other) &&
		!strings.ContainsAny(value, "\r\n\x00")
}

// SetHooks replaces the hooks of all providers, like PUT /_hooks. Registrations by the providers' own APIs stay. It may be called
// before Start. An error names what is wrong and what is allowed; then the old hooks stay.
func (e *Emulator) SetHooks(all map[string]Hook) error {
	targets := map[*Host]*Target{}
	for kind, hook := range all {
		h, err := e.host(kind)
		if err != nil {
			return fmt.Errorf("hooks: %w", err)
		}
		own := maps.Clone(hook)
		if err := h.checkHook(own); err != nil {
			return fmt.Errorf("hooks.%s.%w", kind, err)
		}
		targets[h] = &Target{Hook: own}
	}
	e.hooks.Lock()
	defer e.hooks.Unlock()
	for _, h := range e.hosts {
		h.hook = targets[h]
	}
	return nil
}

// ownHook is the operator's hook, or nil.
func (h *Host) ownHook() *Target {
	h.e.hooks.RLock()
	defer h.e.hooks.RUnlock()
	return h.hook
}

// targets lists the receivers of an event, each URL once.
func (h *Host) targets(v *Event) []*Target {
	registered := h.provider.Registered(v)
	all := make([]*Target, 0, len(registered)+1)
	for _, t := range append(registered, h.ownHook()) {
		if t != nil && !slices.ContainsFunc(all, func(o *Target) bool { return o.Hook["url"] == t.Hook["url"] }) {
			all = append(all, t)
		}
	}
	return all
}

// HookKeys are the values with which receivers check events, of all providers. New makes new ones.
func (e *Emulator) HookKeys() map[string]string {
	all := map[string]string{}
	for _, h := range e.hosts {
		maps.Copy(all, h.provider.Keys())
	}
	return all
}

// hooksView is the answer of GET /_hooks. It shows the secrets. That is safe: the caller is on this machine and not a page in a
// browser, and the secrets give access to nothing else.
type hooksView struct {
	Hooks      map[string]Hook     `json:"hooks"`
	Registered map[string][]string `json:"registered"` // URLs that were registered by the providers' own APIs
	Keys       map[string]string   `json:"keys"`
}

// getHooks shows the hooks, the registered receivers and the keys.
func (e *Emulator) getHooks(w http.ResponseWriter, r *http.Request) {
	hosts, err := e.hostsOf(r)
	if err != nil {
		controlError(w, err)
		return
	}
	v := hooksView{Hooks: map[string]Hook{}, Registered: map[string][]string{}, Keys: e.HookKeys()}
	for _, h := range hosts {
		if t := h.ownHook(); t != nil {
			v.Hooks[h.kind.Name] = t.Hook
		}
		urls := map[string]bool{}
		for _, t := range h.provider.Registered(nil) {
			urls[t.Hook["url"]] = true
		}
		if len(urls) > 0 {
			v.Registered[h.kind.Name] = slices.Sorted(maps.Keys(urls))
		}
	}
	writeControl(w, v)
}

// putHooks replaces all hooks, or with ?provider= only that one.
func (e *Emulator) putHooks(w http.ResponseWriter, r *http.Request) {
	hosts, err := e.hostsOf(r)
	var all map[string]Hook
	if err == nil {
		all, err = decodeControl[map[string]Hook](r.Body, `hooks are {"<provider>": {"url": ...}}`)
	}
	if kind := r.URL.Query().Get("provider"); err == nil && kind != "" {
		if _, ok := all[kind]; !ok || len(all) > 1 {
			err = errors.New("with ?provider=" + kind + " the body has " + kind + " and nothing else")
		}
		for _, h := range e.hosts {
			if t := h.ownHook(); t != nil && h != hosts[0] {
				all[h.kind.Name] = t.Hook
			}
		}
	}
	if err == nil {
		err = e.SetHooks(all)
	}
	if err != nil {
		controlError(w, err)
		return
	}
	e.getHooks(w, r)
}

// deleteHooks removes hooks and registrations.
func (e *Emulator) deleteHooks(w http.ResponseWriter, r *http.Request) {
	e.each(w, r, func(h *Host) {
		e.hooks.Lock()
		h.hook = nil
		e.hooks.Unlock()
		h.provider.Forget()
	})
}

// releaseHeld sends the events that mode hook_hold holds.
func (e *Emulator) releaseHeld(w http.ResponseWriter, r *http.Request) {
	e.each(w, r, func(h *Host) { h.queue.release() })
}
