package postgres

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
)

// redactor replaces an address in texts, in whatever letter case, also as it stands in the query of a link. In lists of addresses it
// removes the name too.
type redactor struct {
	folded  string
	address *regexp.Regexp
}

func newRedactor(address string) *redactor {
	folded := mail.FoldAddress(address)
	var any []string
	for _, a := range []string{address, folded} {
		local, domain, _ := strings.Cut(a, "@")
		for _, form := range []string{a, local + "%40" + domain, url.QueryEscape(a)} {
			any = append(any, regexp.QuoteMeta(form))
		}
	}
	return &redactor{folded: folded, address: regexp.MustCompile("(?i)" + strings.Join(any, "|"))}
}

func (r *redactor) text(s string) string { return r.address.ReplaceAllString(s, erasedAddress) }

// json replaces the address in all strings of a JSON text, and in what is in base64 in a field "content".
func (r *redactor) json(raw []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("redact: %w", err)
	}
	return json.Marshal(r.value(v))
}

func (r *redactor) value(v any) any {
	switch v := v.(type) {
	case string:
		return r.text(v)
	case []any:
		for i := range v {
			v[i] = r.value(v[i])
		}
	case map[string]any:
		if email, ok := v["email"].(string); ok && mail.FoldAddress(email) == r.folded {
			delete(v, "name")
		}
		out := make(map[string]any, len(v))
		for k, field := range v {
			s, ok := field.(string)
			if content, err := base64.StdEncoding.DecodeString(s); ok && k == "content" && err == nil && r.address.Match(content) {
				field = base64.StdEncoding.EncodeToString(r.address.ReplaceAll(content, []byte(erasedAddress)))
			}
			out[r.text(k)] = r.value(field)
		}
		return out
	}
	return v
}
