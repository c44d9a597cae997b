package httpapi

import (
	"fmt"
	"maps"
	"slices"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

const (
	maxEndpointURL         = 2048
	maxEndpointDescription = 200
	maxEndpointFilter      = 20
)

// checkEndpoint checks the fields that are set and collects all mistakes.
func (s *Server) checkEndpoint(in *api.WebhookEndpointRequest) error {
	bad := &mail.Invalid{}
	complain := func(field, code, message string) {
		bad.Fields = append(bad.Fields, mail.Field{Field: field, Code: code, Message: message})
	}
	if in.URL != nil {
		if why := s.refuseURL(*in.URL); why != "" {
			complain("url", "invalid_url", why)
		}
	}
	if in.Description != nil && (len(*in.Description) > maxEndpointDescription || !clean(*in.Description)) {
		complain("description", "invalid_description", "must have at most 200 bytes and no control characters")
	}
	isType := func(t string) bool { return slices.Contains(mail.EventTypes(), mail.EventType(t)) }
	bad.Fields = append(bad.Fields, checkList("types", "unknown_type", "is not a type of event", in.Types, isType)...)
	bad.Fields = append(bad.Fields, checkHeaders(in)...)
	bad.Fields = append(bad.Fields, checkList("streams", "invalid_name", "is not the name of a stream", in.Streams, mail.IsName)...)
	if len(bad.Fields) > 0 {
		return bad
	}
	return nil
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

func checkList(field, code, message string, list *[]string, ok func(string) bool) []mail.Field {
	if list == nil {
		return nil
	}
	if len(*list) > maxEndpointFilter {
		return []mail.Field{{Field: field, Code: "too_many", Message: "must be at most 20"}}
	}
	var fields []mail.Field
	for i, v := range *list {
		if !ok(v) {
			fields = append(fields, mail.Field{Field: fmt.Sprintf("%s[%d]", field, i), Code: code, Message: message})
		}
	}
	return fields
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
