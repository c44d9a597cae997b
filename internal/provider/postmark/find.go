package postmark

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
)

// maxBounces caps the bounces that a look-up reads.
const maxBounces = 5

// outbound is a line of GET /messages/outbound ("Messages API", outbound message search).
type outbound struct {
	MessageID string
	Metadata  map[string]json.RawMessage
}

// Find implements provider.Finder, by a search for our own metadata, which is exact. Without a stream Postmark searches only its
// default one. The stream of the message is not known here, so each one is searched. The finding includes what happened to the
// message, if that can be read; a failure there does not change the finding.
func (c *Client) Find(ctx context.Context, q *provider.Query) (provider.Finding, error) {
	for _, stream := range c.cfg.streams() {
		params := url.Values{
			"count": {"10"}, "offset": {"0"}, "messagestream": {stream}, "metadata_" + provider.MessageKey: {q.MessageID.String()},
		}
		var page struct{ Messages []outbound }
		if err := c.call(ctx, http.MethodGet, "/messages/outbound?"+params.Encode(), nil, &page); err != nil {
			return provider.Finding{}, esphttp.LookupError(err)
		}
		if page.Messages == nil { // other JSON, which must not prove that there is no message
			return provider.Finding{}, &provider.Error{
				Class: provider.Transient, Detail: "postmark: not an answer of the Messages API; check base_url",
			}
		}
		for _, m := range page.Messages {
			if m.MessageID != "" && fields(m.Metadata).text(provider.MessageKey) == q.MessageID.String() {
				return provider.Finding{
					Found: true, ProviderMessageID: provider.Cut(m.MessageID), Payloads: c.history(ctx, m.MessageID, q.MessageID),
				}, nil
			}
		}
	}
	return provider.Finding{}, nil
}

// history reads what happened to the message, as far as it can be read.
func (c *Client) history(ctx context.Context, id string, ours mail.ID) []mail.Payload {
	var details struct{ MessageEvents []json.RawMessage }
	if c.call(ctx, http.MethodGet, "/messages/outbound/"+url.PathEscape(id)+"/details", nil, &details) != nil {
		return nil
	}
	var found []mail.Payload
	bounces := 0
	for _, entry := range details.MessageEvents {
		raw := asWebhook(entry, messageEvent, id, ours)
		if number := bounceID(entry); number != "" {
			var bounce json.RawMessage
			bounces++
			if bounces > maxBounces || c.call(ctx, http.MethodGet, "/bounces/"+url.PathEscape(number), nil, &bounce) != nil {
				continue
			}
			raw = asWebhook(bounce, "Bounce", id, ours)
		}
		if e := parse(raw); e.Type != mail.EventUnmapped {
			found = append(found, mail.Payload{Raw: raw, Events: []mail.Event{e}})
		}
	}
	return found
}

// bounceID is the id of the entry in "Bounce API", or "" if it is not a bounce.
func bounceID(raw []byte) string {
	var entry, details fields
	if json.Unmarshal(raw, &entry) != nil || json.Unmarshal(entry["Details"], &details) != nil || entry.text("Type") != "Bounced" {
		return ""
	}
	return details.text("BounceID")
}

// asWebhook adds the fields that a webhook has and the API lacks, so that Parse reads both alike.
func asWebhook(raw []byte, record, id string, ours mail.ID) []byte {
	var f fields
	if json.Unmarshal(raw, &f) != nil || f == nil {
		return raw
	}
	add := map[string]any{"RecordType": record, "MessageID": id, "Metadata": map[string]string{provider.MessageKey: ours.String()}}
	for name, value := range add {
		text, err := json.Marshal(value)
		if err != nil {
			return raw
		}
		f[name] = text
	}
	full, err := json.Marshal(f)
	if err != nil {
		return raw
	}
	return full
}
