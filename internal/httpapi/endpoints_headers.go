package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/seal"
)

const (
	maxEndpointHeaders     = 10
	maxEndpointHeaderName  = 64
	maxEndpointHeaderValue = 2048
	authorization          = "Authorization"
)

// oursOrTheTransports are headers that an endpoint's owner can't set: we or the HTTP transport set them.
var oursOrTheTransports = []string{
	"Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host", "Keep-Alive", "Proxy-Authorization",
	"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "User-Agent",
}

// checkHeaders checks the headers that an owner wants to be sent. It does not repeat their values, which are secrets.
func checkHeaders(in *api.WebhookEndpointRequest) (fields []mail.Field) {
	complain := func(field, code, message string) {
		fields = append(fields, mail.Field{Field: field, Code: code, Message: message})
	}
	if in.BasicAuth != nil {
		if in.BasicAuth.Username == "" || strings.Contains(in.BasicAuth.Username, ":") || !clean(in.BasicAuth.Username) {
			complain("basic_auth.username", "invalid", "must be text without colons and control characters")
		}
		if !clean(in.BasicAuth.Password) || len(in.BasicAuth.Username)+len(in.BasicAuth.Password) > maxEndpointHeaderValue/2 {
			complain("basic_auth.password", "invalid", "must be text without control characters; with the name at most 1024 bytes")
		}
	}
	if in.Headers == nil {
		return fields
	}
	if len(*in.Headers) > maxEndpointHeaders {
		complain("headers", "too_many", "must be at most 10")
		return fields
	}
	for _, name := range slices.Sorted(maps.Keys(*in.Headers)) {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case len(name) > maxEndpointHeaderName || !httpguts.ValidHeaderFieldName(name):
			complain("headers", "invalid_name", "has a name that is not a token of at most 64 bytes")
		case slices.Contains(oursOrTheTransports, canonical) || strings.HasPrefix(canonical, "Webhook-"):
			complain("headers."+name, "reserved", "is set by the call itself")
		case canonical == authorization && in.BasicAuth != nil:
			complain("headers."+name, "ambiguous", "and basic_auth set the same header: give one of them")
		case len((*in.Headers)[name]) > maxEndpointHeaderValue || !visible((*in.Headers)[name]):
			complain("headers."+name, "invalid_value", "must have at most 2048 characters, all of them visible ASCII or spaces")
		}
	}
	return fields
}

// visible reports whether a header's value is visible ASCII, with spaces only inside (RFC 9110 section 5.5).
func visible(v string) bool {
	return strings.TrimSpace(v) == v && !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' })
}

// ownersHeaders returns the headers of the request, by their canonical names.
func ownersHeaders(in *api.WebhookEndpointRequest) map[string]string {
	all := map[string]string{}
	if in.Headers != nil {
		for name, value := range *in.Headers {
			all[http.CanonicalHeaderKey(name)] = value
		}
	}
	if in.BasicAuth != nil {
		all[authorization] = "Basic " + base64.StdEncoding.EncodeToString([]byte(in.BasicAuth.Username+":"+in.BasicAuth.Password))
	}
	return all
}

// endpointHeaders returns the headers as they are stored: nil if the request does not mention them, the zero secret for none.
func endpointHeaders(in *api.WebhookEndpointRequest) *seal.Secret {
	if in.Headers == nil && in.BasicAuth == nil {
		return nil
	}
	all := ownersHeaders(in)
	if len(all) == 0 {
		return &seal.Secret{}
	}
	b, err := json.Marshal(all)
	if err != nil { // can't happen: strings only
		panic(err)
	}
	secret := seal.NewSecret(string(b))
	return &secret
}

// sameOrigin reports whether two URLs have the same scheme, host and port.
func sameOrigin(a, b string) bool {
	x, err := url.Parse(a)
	if err != nil {
		return false
	}
	y, err := url.Parse(b)
	return err == nil && x.Scheme == y.Scheme && strings.EqualFold(x.Host, y.Host)
}
