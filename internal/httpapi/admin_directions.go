package httpapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// redirects refuses a change of settings that decide where stored secrets are sent, unless these secrets come with the change:
// otherwise anyone who may change an account could have its secrets sent to themselves. It does not judge the new place.
func redirects(a *route.Account, before json.RawMessage, given map[string]seal.Secret, spec provider.Spec) error {
	bad := &mail.Invalid{}
	for _, name := range slices.Sorted(maps.Keys(spec.Settings)) {
		if reflect.DeepEqual(settingOf(before, name), settingOf(a.Settings, name)) {
			continue
		}
		var wanted []string
		for _, secret := range spec.Settings[name] {
			if _, here := given[secret]; !here && slices.Contains(a.SecretFields, secret) {
				wanted = append(wanted, secret)
			}
		}
		if len(wanted) > 0 {
			bad.Fields = append(bad.Fields, mail.Field{
				Field: "settings." + name, Code: "secrets_required",
				Message: fmt.Sprintf("decides where secrets are sent, or how: give %s again, under secrets of the same request", strings.Join(wanted, ", ")),
			})
		}
	}
	if len(bad.Fields) > 0 {
		return bad
	}
	return nil
}

// settingOf reads one setting. It returns nil if the setting is absent, null or empty, which every adapter treats alike. Adapters
// accept names in any case, as encoding/json does. Requests must use the exact case, but old stored settings may not.
func settingOf(settings json.RawMessage, name string) any {
	var fields map[string]any
	if json.Unmarshal(settings, &fields) != nil { // openSettings has checked the settings of requests
		return nil
	}
	value, exact := fields[name]
	for other := range fields {
		if !exact && strings.EqualFold(other, name) {
			value = fields[other]
		}
	}
	if value == nil || reflect.ValueOf(value).IsZero() {
		return nil
	}
	return value
}

// unreadable is the 422 for secrets that don't open with the server's keys, unless all of them are given again.
func unreadable(a *route.Account, given map[string]seal.Secret) error {
	bad := &mail.Invalid{}
	for _, name := range a.Unreadable {
		if _, here := given[name]; !here {
			bad.Fields = append(bad.Fields, mail.Field{
				Field: "secrets." + name, Code: "unreadable",
				Message: "was stored under a secret key that this server does not have: give it again, or the server that key as SENDGATE_SECRET_KEY_PREVIOUS",
			})
		}
	}
	if len(bad.Fields) > 0 {
		return bad
	}
	return nil
}
