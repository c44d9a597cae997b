package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// hooksView is what GET /_hooks shows. It has the secrets: whoever asks is on this machine, and no page in a browser there, and they open nothing else.
type hooksView struct {
	Hooks      map[string]Hook     `json:"hooks"`
	Registered map[string][]string `json:"registered"` // URLs, by the providers' own APIs
	Keys       HookKeys            `json:"keys"`
}

// kindParam is the parameter provider, "" without.
func kindParam(r *http.Request) (string, error) {
	kind := r.URL.Query().Get("provider")
	if kind != "" && !slices.Contains(kinds(), kind) {
		return "", errors.New("provider is not one of " + strings.Join(kinds(), ", "))
	}
	return kind, nil
}

func (e *Emulator) getHooks(w http.ResponseWriter, r *http.Request) {
	kind, err := kindParam(r)
	if err != nil {
		controlError(w, err)
		return
	}
	v := hooksView{Hooks: e.hooks.set(), Registered: e.hooks.urls(), Keys: e.HookKeys()}
	if kind != "" {
		maps.DeleteFunc(v.Hooks, func(k string, _ Hook) bool { return k != kind })
		maps.DeleteFunc(v.Registered, func(k string, _ []string) bool { return k != kind })
	}
	writeControl(w, v)
}

// putHooks replaces all hooks, or with ?provider= that one's alone.
func (e *Emulator) putHooks(w http.ResponseWriter, r *http.Request) {
	kind, err := kindParam(r)
	var all map[string]Hook
	if err == nil {
		all, err = decodeHooks(r.Body)
	}
	if err == nil && kind != "" {
		one, ok := all[kind]
		if !ok || len(all) > 1 {
			err = errors.New("with ?provider=" + kind + " the body has " + kind + " and nothing else")
		}
		all = e.hooks.set()
		all[kind] = one
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

func decodeHooks(r io.Reader) (map[string]Hook, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxScriptBytes))
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	var all map[string]Hook
	if err := dec.Decode(&all); err != nil {
		return nil, errors.New(`hooks are {"<provider>": {"url": ...}}: ` + err.Error())
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("hooks are followed by more data")
	}
	return all, nil
}

// deleteHooks forgets hooks and registrations.
func (e *Emulator) deleteHooks(w http.ResponseWriter, r *http.Request) {
	kind, err := kindParam(r)
	if err != nil {
		controlError(w, err)
		return
	}
	e.hooks.forget(kind)
	w.WriteHeader(http.StatusNoContent)
}

// releaseHeld tells the events that mode hook_hold keeps.
func (e *Emulator) releaseHeld(w http.ResponseWriter, r *http.Request) {
	kind, err := kindParam(r)
	if err != nil {
		controlError(w, err)
		return
	}
	for k, l := range e.lanes {
		if kind == "" || k == kind {
			l.release()
		}
	}
	w.WriteHeader(http.StatusNoContent)
}
