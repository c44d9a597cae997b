package httpapi

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

const (
	maxEndpointURL         = 2048
	maxEndpointDescription = 200
	maxEndpointFilter      = 20
)

// checkEndpoint checks the fields that are set and collects all mistakes.
func (s *Server) checkEndpoint(in *api.WebhookEndpointRequest) error {
	var bad complaints
	if in.URL != nil {
		if why := s.refuseURL(*in.URL); why != "" {
			bad.complain("url", "invalid_url", why)
		}
	}
	if in.Description != nil && (len(*in.Description) > maxEndpointDescription || !clean(*in.Description)) {
		bad.complain("description", "invalid_description", "must have at most 200 bytes and no control characters")
	}
	isType := func(t string) bool { return slices.Contains(mail.EventTypes(), mail.EventType(t)) }
	checkList(&bad, "types", "unknown_type", "is not a type of event", in.Types, isType)
	checkHeaders(&bad, in)
	checkList(&bad, "streams", "invalid_name", "is not the name of a stream", in.Streams, mail.IsName)
	return bad.err()
}

// refuseURL returns why a URL can't be called, "" if it can.
func (s *Server) refuseURL(raw string) string {
	switch {
	case len(raw) > maxEndpointURL || !clean(raw):
		return "must have at most 2048 bytes and no control characters"
	case s.webhooks.CheckWebhookURL == nil:
		return "no address may be called"
	}
	if err := s.webhooks.CheckWebhookURL(raw); err != nil {
		return err.Error()
	}
	return ""
}

func checkList(bad *complaints, field, code, message string, list *[]string, ok func(string) bool) {
	if list == nil {
		return
	}
	if len(*list) > maxEndpointFilter {
		bad.complain(field, "too_many", "must be at most 20")
		return
	}
	for i, v := range *list {
		if !ok(v) {
			bad.complain(fmt.Sprintf("%s[%d]", field, i), code, message)
		}
	}
}

// applyEndpoint copies the fields that are set in the request.
func applyEndpoint(e *record.Endpoint, in *api.WebhookEndpointRequest) {
	if in.URL != nil {
		e.URL = *in.URL
	}
	if in.Description != nil {
		e.Description = *in.Description
	}
	if in.Types != nil {
		e.Types = nil
		for _, t := range *in.Types {
			if !slices.Contains(e.Types, mail.EventType(t)) {
				e.Types = append(e.Types, mail.EventType(t))
			}
		}
	}
	if in.Streams != nil {
		e.Streams = slices.Compact(slices.Sorted(slices.Values(*in.Streams)))
	}
	if in.Disabled != nil {
		e.Disabled = *in.Disabled
	}
	if in.Headers != nil || in.BasicAuth != nil {
		e.HeaderNames = slices.Sorted(maps.Keys(ownersHeaders(in)))
	}
}

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
func checkHeaders(bad *complaints, in *api.WebhookEndpointRequest) {
	if in.BasicAuth != nil {
		if in.BasicAuth.Username == "" || strings.Contains(in.BasicAuth.Username, ":") || !clean(in.BasicAuth.Username) {
			bad.complain("basic_auth.username", "invalid", "must be text without colons and control characters")
		}
		if !clean(in.BasicAuth.Password) || len(in.BasicAuth.Username)+len(in.BasicAuth.Password) > maxEndpointHeaderValue/2 {
			bad.complain("basic_auth.password", "invalid", "must be text without control characters; with the name at most 1024 bytes")
		}
	}
	if in.Headers == nil {
		return
	}
	if len(*in.Headers) > maxEndpointHeaders {
		bad.complain("headers", "too_many", "must be at most 10")
		return
	}
	for _, name := range slices.Sorted(maps.Keys(*in.Headers)) {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case len(name) > maxEndpointHeaderName || !httpguts.ValidHeaderFieldName(name):
			bad.complain("headers", "invalid_name", "has a name that is not a token of at most 64 bytes")
		case slices.Contains(oursOrTheTransports, canonical) || strings.HasPrefix(canonical, "Webhook-"):
			bad.complain("headers."+name, "reserved", "is set by the call itself")
		case canonical == authorization && in.BasicAuth != nil:
			bad.complain("headers."+name, "ambiguous", "and basic_auth set the same header: give one of them")
		case len((*in.Headers)[name]) > maxEndpointHeaderValue || !visible((*in.Headers)[name]):
			bad.complain("headers."+name, "invalid_value", "must have at most 2048 characters, all of them visible ASCII or spaces")
		}
	}
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
