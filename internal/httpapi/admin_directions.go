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

// redirects refuses to send secrets that are stored where a change of the settings says, unless they come with the change:
// whoever may turn an account could have them sent to himself. Whether the new place is a better one is not asked.
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

// settingOf reads one setting, nil where it is absent, null or empty, which is the same to every adapter. Adapters take names in
// any case, as encoding/json does; requests can't give one in another, but what was stored before may have it.
func settingOf(settings json.RawMessage, name string) any {
	var fields map[string]any
	if json.Unmarshal(settings, &fields) != nil { // openSettings has checked those of requests
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

// unreadable is the 422 for secrets that don't open with the server's keys, unless all of them are given anew.
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
