package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// Send sends one message. A nil error means that the server has stored it durably. A request that is repeated with the same
// idempotencyKey ("" for none) is accepted only once.
func (c *Client) Send(ctx context.Context, m SendRequest, idempotencyKey string) (*SendResult, error) {
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return c.SendRaw(ctx, raw, idempotencyKey)
}

// SendRaw is Send with a body that is JSON already.
func (c *Client) SendRaw(ctx context.Context, body []byte, idempotencyKey string) (*SendResult, error) {
	k := call{method: http.MethodPost, path: "/v1/send", body: json.RawMessage(body), header: http.Header{}}
	if idempotencyKey != "" {
		k.header.Set("Idempotency-Key", idempotencyKey)
	}
	return into[SendResult](ctx, c, k)
}

// SendBatch sends up to 1,000 messages, each on its own. The results are in the order of the messages, and each says
// whether its message was accepted.
func (c *Client) SendBatch(ctx context.Context, b BatchRequest) (*BatchResult, error) {
	return into[BatchResult](ctx, c, call{method: http.MethodPost, path: "/v1/send/batch", body: b})
}

// Message returns one message with its recipients and attempts.
func (c *Client) Message(ctx context.Context, id string) (*Message, error) {
	return get[Message](ctx, c, messagePath(id), nil)
}

// Messages returns one page of messages, newest first.
func (c *Client) Messages(ctx context.Context, q MessageQuery) (*MessagePage, error) {
	return get[MessagePage](ctx, c, "/v1/messages", q.values())
}

func (q MessageQuery) values() url.Values {
	v := pageQuery(q.Cursor, q.Limit)
	for name, value := range map[string]string{
		"status": q.Status, "to": q.To, "from": q.From, "tag": q.Tag, "stream": q.Stream, "account": q.Account,
		"provider_message_id": q.ProviderMessageID,
	} {
		if value != "" {
			v.Set(name, value)
		}
	}
	for name, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			v.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	return v
}

// Cancel stops a message that is not being sent yet. A *Problem with status 409 says that it is too late.
func (c *Client) Cancel(ctx context.Context, id string) (*Message, error) {
	return into[Message](ctx, c, call{method: http.MethodPost, path: messagePath(id) + "/cancel"})
}

// Resend queues the failed recipients of a message again. A *Problem with status 409 says that the message has not failed or,
// with the code maybe_sent, that a provider may have sent it already.
func (c *Client) Resend(ctx context.Context, id string) (*Message, error) {
	return into[Message](ctx, c, call{method: http.MethodPost, path: messagePath(id) + "/resend"})
}

// ResendAnyway is Resend for a message that a provider may have sent already: its recipients may get a second copy.
func (c *Client) ResendAnyway(ctx context.Context, id string) (*Message, error) {
	return into[Message](ctx, c, call{method: http.MethodPost, path: messagePath(id) + "/resend", query: url.Values{"force": {"true"}}})
}

func messagePath(id string) string { return "/v1/messages/" + url.PathEscape(id) }

// Suppressions returns one page of suppressed addresses. With an email it returns only the suppressions of that address.
func (c *Client) Suppressions(ctx context.Context, email, cursor string, limit int) (*SuppressionPage, error) {
	q := pageQuery(cursor, limit)
	if email != "" {
		q.Set("email", email)
	}
	return get[SuppressionPage](ctx, c, "/v1/suppressions", q)
}

// Suppress stops mail to an address.
func (c *Client) Suppress(ctx context.Context, s SuppressionRequest) (*Suppression, error) {
	return into[Suppression](ctx, c, call{method: http.MethodPost, path: "/v1/suppressions", body: s})
}

// Unsuppress allows mail to an address again.
func (c *Client) Unsuppress(ctx context.Context, email string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: "/v1/suppressions/" + url.PathEscape(email)})
}
