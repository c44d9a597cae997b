//go:build drill

package drill

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	emulated "github.com/sendgate/sendgate/internal/emulator/catalog"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/catalog"
)

// kindsWith are the providers of which something is true. Each has one account, of the same name.
func kindsWith(has func(provider.Spec) bool) []string {
	var names []string
	for _, s := range catalog.Specs() {
		if has(s) {
			names = append(names, string(s.Kind))
		}
	}
	return names
}

// everyKind has the same value for each provider.
func everyKind[V any](v V) map[string]V {
	all := map[string]V{}
	for _, kind := range emulated.Kinds() {
		all[kind.Name] = v
	}
	return all
}

// webKinds are the providers that report over HTTP.
func webKinds() []string {
	var names []string
	for _, kind := range emulated.Kinds() {
		if !kind.SMTP {
			names = append(names, kind.Name)
		}
	}
	return names
}

// everywhere is one script for all providers.
func everywhere(faults ...emulator.Fault) map[string][]emulator.Fault { return everyKind(faults) }

// dialect is how a provider reports over HTTP, as its documentation describes it.
type dialect struct {
	message, word string        // paths in an event, to our id and to the provider's name for the event
	forge         func(s *shot) // spoils what makes a request authentic, and leaves the rest as it was
}

// dialects has each of webKinds.
func dialects() map[string]dialect {
	header := func(name, value string) func(*shot) { return func(s *shot) { s.header.Set(name, value) } }
	body := func(old, forged string) func(*shot) {
		return func(s *shot) { s.body = bytes.Replace(s.body, []byte(old), []byte(forged), 1) }
	}
	late := fmt.Sprint(time.Now().Unix() - 1000)
	return map[string]dialect{
		"sendgrid": {"gw_msg", "event", header("X-Twilio-Email-Event-Webhook-Timestamp", late)},
		"mailgun":  {"event-data user-variables gw_msg", "event-data event", body(`"token":"`, `"token":"x`)},
		"postmark": {"Metadata gw_msg", "RecordType", header("Authorization", "Basic c2VuZGdhdGU6Z3Vlc3NlZA==")},
		"resend":   {"data tags gw_msg", "type", header("Svix-Id", "msg_forged")},
		"ses":      {"Message mail tags gw_msg", "Message eventType", body("shop@", "shot@")},
	}
}

// dig follows a path into objects and into JSON that is a string. Of a list it takes the first text. It returns "" where there
// is none.
func dig(v any, path string) string {
	for name := range strings.FieldsSeq(path) {
		if text, ok := v.(string); ok {
			_ = json.Unmarshal([]byte(text), &v) // what can't be read has no fields
		}
		object, _ := v.(map[string]any)
		v = object[name]
	}
	if list, ok := v.([]any); ok && len(list) > 0 {
		v = list[0]
	}
	text, _ := v.(string)
	return text
}
