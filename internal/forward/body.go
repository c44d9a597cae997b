package forward

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
)

// payload is the body of a webhook, in the shape that Standard Webhooks recommends.
type payload struct {
	Type      string `json:"type"`
	Timestamp moment `json:"timestamp"` // when it happened
	Data      event  `json:"data"`
}

// event is an event as the API shows it everywhere: the same fields, in the same form, as in GET /v1/events.
type event struct {
	ID                string           `json:"id"`
	Type              mail.EventType   `json:"type"`
	ProviderType      string           `json:"provider_type,omitempty"`
	At                moment           `json:"at"`
	ReceivedAt        moment           `json:"received_at"`
	MessageID         string           `json:"message_id,omitempty"`
	Recipient         string           `json:"recipient,omitempty"`
	Account           string           `json:"account,omitempty"`
	Provider          string           `json:"provider,omitempty"`
	ProviderMessageID string           `json:"provider_message_id,omitempty"`
	Stream            string           `json:"stream,omitempty"`
	Tags              []string         `json:"tags,omitempty"`
	Source            mail.EventSource `json:"source"`
	Bounce            *mail.Bounce     `json:"bounce,omitempty"`
	URL               string           `json:"url,omitempty"`
	Machine           bool             `json:"machine,omitempty"`
}

// moment is a time as the API writes it: RFC 3339 in UTC with milliseconds.
type moment time.Time

// MarshalText implements encoding.TextMarshaler.
func (m moment) MarshalText() ([]byte, error) {
	return time.Time(m).UTC().AppendFormat(nil, "2006-01-02T15:04:05.000Z"), nil
}

// TypeOf is the type of the webhook for an event, for example "message.delivered" or "endpoint.disabled".
func TypeOf(t mail.EventType) string {
	switch t {
	case mail.EventEndpointDisabled:
		return "endpoint.disabled"
	case mail.EventUnmapped:
		return "message.unmapped"
	case mail.EventAccepted, mail.EventDeferred, mail.EventDelivered, mail.EventBounced, mail.EventRejected, mail.EventComplained,
		mail.EventUnsubscribed, mail.EventOpened, mail.EventClicked, mail.EventFailedUnknown:
	}
	return "message." + string(t)
}

// Body is the body of the POST for an event. It is the same for every try.
func Body(e *mail.Event) ([]byte, error) {
	data := event{
		ID: e.ID.String(), Type: e.Type, ProviderType: e.Name, At: moment(e.At), ReceivedAt: moment(e.ID.Time()),
		Recipient: e.Recipient, Account: e.Account, Provider: e.Provider, ProviderMessageID: e.ProviderMessageID,
		Stream: e.Stream, Tags: e.Tags, Source: e.Source, Bounce: e.Bounce, URL: e.URL, Machine: e.Machine,
	}
	if !e.MessageID.IsZero() {
		data.MessageID = e.MessageID.String()
	}
	raw, err := json.Marshal(payload{Type: TypeOf(e.Type), Timestamp: data.At, Data: data})
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return raw, nil
}
