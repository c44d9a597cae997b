// Package resend emulates the Resend API, written from its documentation: "Send Email", "Send Batch Emails", "Batch Validation
// Modes", "Idempotency Keys", "Errors", "List Sent Emails", "Retrieve Sent Email", "Event Types", "Verify Webhooks Requests" and "Create Webhook".
//
// It decides what Resend would answer and report, and leaves ledger, limits and faults to package emulator. The most likely
// mistake of a newcomer is to remember an idempotency key before its email is in the ledger: a call that is refused, or fails,
// may be repeated with the same key.
package resend

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sendgate/sendgate/internal/emulator"
)

// Kind describes Resend. An email may have 40 MB, including its attachments in base64.
func Kind() emulator.Kind {
	return emulator.Kind{
		Name: "resend", MaxBody: 40 << 20, Lookups: true, HookFields: []string{"secret"}, Course: course, New: open,
		Credentials: map[string]string{"api_key": "re_emulator_00000000000000000000000000"},
	}
}

// api is Resend in one emulator.
type api struct {
	host     *emulator.Host
	secret   string // for webhooks that the operator set
	webhooks emulator.Registry[webhook]
	keys     keyring
}

func open(h *emulator.Host) (emulator.Provider, error) {
	a := &api{host: h, secret: newSecret()}
	h.Handle("POST /emails", a.keys.guard(h.Send(a.read)))
	h.Handle("POST /emails/batch", a.keys.guard(h.Send(a.readBatch)))
	h.Handle("GET /emails", h.Lookup(a.list))
	h.Handle("GET /emails/{id}", h.Lookup(a.retrieve))
	a.registrations()
	h.Handle("/", h.Call(func(*http.Request, []byte) *emulator.Reply {
		return refuse(http.StatusNotFound, "not_found", "The requested endpoint does not exist.")
	}))
	return a, nil
}

func (a *api) Account(at string) emulator.Account {
	return emulator.Account{
		Settings: map[string]any{"base_url": at},
		Secrets:  map[string]string{"api_key": a.host.Credential("api_key"), "webhook_secret": a.secret},
	}
}

// refuse answers with a documented error.
func refuse(status int, name, message string) *emulator.Reply {
	return emulator.JSON(status, map[string]any{"statusCode": status, "name": name, "message": message})
}

func (a *api) Authenticate(r *http.Request, _ []byte) *emulator.Reply {
	key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case r.Header.Get("User-Agent") == "":
		return refuse(http.StatusForbidden, "validation_error", "The request has no User-Agent.")
	case !ok || key == "":
		return refuse(http.StatusUnauthorized, "missing_api_key", "Missing API Key")
	case !emulator.Same(key, a.host.Credential("api_key")):
		return refuse(http.StatusUnauthorized, "validation_error", "API key is invalid")
	}
	return nil
}

// Throttled describes the window in the headers of "Usage Limits".
func (a *api) Throttled(f *emulator.Full) *emulator.Reply {
	wait := strconv.Itoa(int(max(f.Until.Sub(a.host.Now())+time.Second-1, time.Second) / time.Second))
	p := refuse(http.StatusTooManyRequests, "rate_limit_exceeded", "Too many requests. You can only make "+
		strconv.Itoa(f.N)+" requests per "+f.Per.String()+".")
	return p.With("retry-after", wait).With("ratelimit-limit", strconv.Itoa(f.N)).With("ratelimit-remaining", "0").With("ratelimit-reset", wait)
}

func (*api) Failure(status int) *emulator.Reply {
	names := map[int]string{
		http.StatusUnauthorized: "missing_api_key", http.StatusForbidden: "validation_error", http.StatusConflict: "concurrent_idempotent_requests",
		http.StatusUnprocessableEntity: "validation_error", http.StatusBadRequest: "validation_error",
		http.StatusTooManyRequests: "rate_limit_exceeded", http.StatusInternalServerError: "internal_server_error",
	}
	if name, ok := names[status]; ok {
		return refuse(status, name, http.StatusText(status))
	}
	return emulator.Text(status, http.StatusText(status))
}

func (*api) Decorate(*emulator.Reply) {}

// keyed answers a send request by its idempotency key alone, or returns nil. For a known key it gives the first answer again, and
// makes no second email.
func (a *api) keyed(k key, body []byte) *emulator.Submission {
	switch known := a.keys.find(k, a.host.Now()); {
	case len(k.text) > maxKey || k.given && k.text == "":
		return emulator.Refuse(refuse(http.StatusBadRequest, "invalid_idempotency_key", "The key must be between 1-256 chars."))
	case k.busy:
		return emulator.Refuse(refuse(http.StatusConflict, "concurrent_idempotent_requests",
			"Another request with the same idempotency key is in progress."))
	case known != nil && known.body != digest(body):
		return emulator.Refuse(refuse(http.StatusConflict, "invalid_idempotent_request",
			"The same idempotency key was used with a different request payload."))
	case known != nil:
		return &emulator.Submission{Cost: emulator.Cost{Requests: 1}, Accepted: known.answer, End: emulator.EndTested}
	}
	return nil
}

// read parses a request for one email and checks it.
func (a *api) read(r *http.Request, body []byte) *emulator.Submission {
	k := keyOf(r)
	if sub := a.keyed(k, body); sub != nil {
		return sub
	}
	var m email
	if err := json.Unmarshal(body, &m); err != nil {
		return emulator.Refuse(refuse(http.StatusUnprocessableEntity, "validation_error", "The request body is not valid JSON of an email."))
	}
	sub := &emulator.Submission{}
	refused := m.check()
	sub.To = m.all
	sub.Cost = emulator.Cost{Requests: 1, Messages: 1, Recipients: len(m.all)}
	if refused != nil {
		sub.Refused = refused
		return sub
	}
	id := uuid.NewString()
	sub.Messages, sub.Accepted = []*emulator.Message{m.message(id)}, emulator.JSON(http.StatusOK, created{id})
	sub.Taken = func() { a.keys.keep(k, digest(body), sub.Accepted, a.host.Now()) }
	return sub
}

// created is an email in an answer.
type created struct {
	ID string `json:"id"`
}
