// Package postmark emulates the Postmark API, written from its developer documentation: "Email API", "API error codes",
// "Messages API", "Webhooks" and "Webhooks API".
//
// It decides what Postmark would answer and report, and leaves ledger, limits and faults to package emulator. The most likely
// mistake of a newcomer is to answer a bad message of a batch with an error: a batch is a 200 with one result per message.
package postmark

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/internal/emulator"
)

// Kind describes Postmark. A batch may have 50 MB; a single message has a lower cap of its own. The status of a partial fault is
// an ErrorCode.
func Kind() emulator.Kind {
	return emulator.Kind{
		Name: "postmark", MaxBody: 50 << 20, Lookups: true, Partial: [2]int{1, 9999}, Course: course, New: open,
		HookFields:  []string{"username", "password", "header", "token"},
		Credentials: map[string]string{"server_token": "e0000000-0000-4000-8000-00000000e000"},
	}
}

// api is Postmark in one emulator.
type api struct {
	host         *emulator.Host
	hookPassword string
	webhooks     emulator.Registry[webhook]
	lastID       int // of a webhook; guarded by the registry
}

func open(h *emulator.Host) (emulator.Provider, error) {
	a := &api{host: h, hookPassword: emulator.RandomHex(16)}
	h.Handle("POST /email", h.Send(a.read))
	h.Handle("POST /email/batch", h.Send(a.read))
	h.Handle("GET /messages/outbound", h.Lookup(a.searchOutbound))
	h.Handle("GET /messages/outbound/{id}/details", h.Lookup(a.details))
	a.registrations()
	h.Handle("/", h.Open(a.unknown))
	return a, nil
}

func (a *api) Account(at string) emulator.Account {
	return emulator.Account{
		Settings: map[string]any{"base_url": at, "webhook_username": hookUsername},
		Secrets:  map[string]string{"server_token": a.host.Credential("server_token"), "webhook_password": a.hookPassword},
	}
}

// Postmark's error codes that the emulator gives without a script.
const (
	badToken     = 10
	maintenance  = 100
	unexpected   = 101
	invalid      = 300
	badJSON      = 402
	wrongJSON    = 403
	allInactive  = 406
	tooManyBatch = 410
	attachment   = 411
)

const (
	maxBatch   = 500
	maxMessage = 10 << 20
	testToken  = "POSTMARK_API_TEST"
)

// result is the answer for one message.
type result struct {
	To          string `json:"To,omitempty"`
	Cc          string `json:"Cc,omitempty"`
	Bcc         string `json:"Bcc,omitempty"`
	SubmittedAt string `json:"SubmittedAt,omitempty"`
	MessageID   string `json:"MessageID,omitempty"`
	ErrorCode   int    `json:"ErrorCode"`
	Message     string `json:"Message"`
}

// refuse answers with an ErrorCode.
func refuse(status, code int, message string) *emulator.Reply {
	return emulator.JSON(status, result{ErrorCode: code, Message: message}).With("X-PM-ApiErrorCode", strconv.Itoa(code))
}

func (a *api) Authenticate(r *http.Request, _ []byte) *emulator.Reply {
	token := r.Header.Get("X-Postmark-Server-Token")
	switch {
	case token == "":
		return refuse(http.StatusUnauthorized, badToken, "No Account or Server API tokens were supplied in the "+
			"HTTP headers. Please add a header for either X-Postmark-Server-Token or X-Postmark-Account-Token.")
	case token != testToken && !emulator.Same(token, a.host.Credential("server_token")):
		return refuse(http.StatusUnauthorized, badToken, "Request does not contain a valid Server token.")
	}
	return nil
}

// Throttled has no body or header: Postmark documents neither a number nor a Retry-After.
func (*api) Throttled(*emulator.Full) *emulator.Reply {
	return &emulator.Reply{Status: http.StatusTooManyRequests}
}

func (*api) Failure(status int) *emulator.Reply {
	switch status {
	case http.StatusInternalServerError:
		return refuse(status, unexpected, "An unexpected error has occurred. Please try again.")
	case http.StatusServiceUnavailable:
		return refuse(status, maintenance, "Postmark is undergoing maintenance. Please try again later.")
	case http.StatusUnauthorized:
		return refuse(status, badToken, "Request does not contain a valid Server token.")
	case http.StatusUnprocessableEntity:
		return refuse(status, invalid, "Invalid email request.")
	case http.StatusRequestEntityTooLarge:
		return &emulator.Reply{Status: status}
	}
	return emulator.Text(status, http.StatusText(status))
}

func (*api) Decorate(*emulator.Reply) {}

func (*api) unknown(r *http.Request, _ []byte) *emulator.Reply {
	if r.URL.Path == "/postmark/email" || r.URL.Path == "/postmark/email/batch" {
		return emulator.Text(http.StatusMethodNotAllowed, "")
	}
	return emulator.Text(http.StatusNotFound, "")
}

// read parses a send request and checks it.
func (a *api) read(r *http.Request, body []byte) *emulator.Submission {
	isJSON := func(name string) bool {
		return strings.Contains(strings.ToLower(r.Header.Get(name)), "application/json")
	}
	if !isJSON("Accept") || !isJSON("Content-Type") {
		return emulator.Refuse(&emulator.Reply{Status: http.StatusUnsupportedMediaType})
	}
	test := r.Header.Get("X-Postmark-Server-Token") == testToken
	if strings.HasSuffix(r.URL.Path, "/batch") {
		return a.readBatch(body, test)
	}
	if len(body) > maxMessage {
		return emulator.Refuse(a.Failure(http.StatusRequestEntityTooLarge))
	}
	var m mail
	if p := decode(body, &m); p != nil {
		return emulator.Refuse(p)
	}
	return a.single(newItem(&m, a.host.Now(), test))
}

// decode answers broken JSON with 402, and JSON of the wrong form with 403.
func decode(body []byte, into any) *emulator.Reply {
	err := json.Unmarshal(body, into)
	if err == nil {
		return nil
	}
	if wrongType := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrongType) {
		return refuse(http.StatusUnprocessableEntity, wrongJSON,
			"The JSON data you provided is syntactically correct, but still isn't what was expected: "+wrongType.Field)
	}
	return refuse(http.StatusUnprocessableEntity, badJSON, "The JSON data you provided is syntactically incorrect.")
}

// single answers one message: an error is a 422.
func (a *api) single(it *item) *emulator.Submission {
	sub := &emulator.Submission{Cost: emulator.Cost{Requests: 1, Messages: 1, Recipients: len(it.all)}, To: it.all}
	settle := func() {
		sub.Refused, sub.Accepted, sub.Messages, sub.End = nil, emulator.JSON(http.StatusOK, it.result), it.messages(), it.end()
		if it.result.ErrorCode != 0 {
			sub.Refused = refuse(http.StatusUnprocessableEntity, it.result.ErrorCode, it.result.Message)
		}
	}
	settle()
	sub.Degrade = func(f *emulator.Fault) {
		if len(it.taken) > 0 {
			it.inactivate(func(i int, addr string) bool { return chosen(f, i, []string{addr}) })
			settle()
		}
	}
	return sub
}

// readBatch answers 200 with one result per item, in order, whatever the results are.
func (a *api) readBatch(body []byte, test bool) *emulator.Submission {
	var mails []mail
	if p := decode(body, &mails); p != nil {
		return emulator.Refuse(p)
	}
	if len(mails) > maxBatch {
		return emulator.Refuse(refuse(http.StatusUnprocessableEntity, tooManyBatch,
			"You've exceeded the 500 batch message limit."))
	}
	sub := &emulator.Submission{Cost: emulator.Cost{Requests: 1, Messages: len(mails)}}
	items := make([]*item, len(mails))
	for i := range mails {
		items[i] = newItem(&mails[i], a.host.Now(), test)
		sub.To = append(sub.To, items[i].all...)
	}
	sub.Cost.Recipients = len(sub.To)
	settleBatch(sub, items)
	sub.Degrade = func(f *emulator.Fault) {
		for i, it := range items {
			if it.result.ErrorCode == 0 && chosen(f, i, it.all) {
				it.refuse(batchFault(f))
			}
		}
		settleBatch(sub, items)
	}
	return sub
}

// settleBatch sets the answer, the messages and the end from the results of the items.
func settleBatch(sub *emulator.Submission, items []*item) {
	results := make([]result, len(items))
	sub.Messages, sub.End = nil, emulator.EndRejected
	for i, it := range items {
		results[i] = it.result
		sub.Messages = append(sub.Messages, it.messages()...)
		if it.result.ErrorCode == 0 {
			sub.End = it.end()
		}
	}
	sub.Accepted = emulator.JSON(http.StatusOK, results)
}

// chosen reports whether a partial fault refuses a part: one that matches, or without a pattern every second one.
func chosen(f *emulator.Fault, i int, to []string) bool {
	if f.Match == "" {
		return i%2 == 1
	}
	return f.Matches(to)
}

// batchFault returns the ErrorCode and Message of a partial fault, or the defaults.
func batchFault(f *emulator.Fault) (code int, message string) {
	code, message = f.Status, f.Body
	if code == 0 {
		code = invalid
	}
	if message == "" {
		message = "Invalid email request."
	}
	return code, message
}
