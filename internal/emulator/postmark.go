package emulator

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// postmark answers POST /email and /email/batch as the pages "Email API" and "API error codes" of the Postmark developer
// documentation say.
type postmark struct{ e *Emulator }

func (postmark) kind() string { return kindPostmark }

// maxBody is the 50 MB of a batch; a single message has its own, lower cap.
func (postmark) maxBody() int64 { return 50 << 20 }

// Postmark's error codes, as far as the emulator gives them by itself.
const (
	postmarkBadToken     = 10
	postmarkMaintenance  = 100
	postmarkUnexpected   = 101
	postmarkInvalid      = 300
	postmarkBadJSON      = 402
	postmarkWrongJSON    = 403
	postmarkInactive     = 406
	postmarkTooManyBatch = 410
	postmarkAttachment   = 411
)

const (
	postmarkMaxBatch   = 500
	postmarkMaxMessage = 10 << 20
	postmarkTestToken  = "POSTMARK_API_TEST"
)

// postmarkResult is the answer for one message.
type postmarkResult struct {
	To          string `json:"To,omitempty"`
	Cc          string `json:"Cc,omitempty"`
	Bcc         string `json:"Bcc,omitempty"`
	SubmittedAt string `json:"SubmittedAt,omitempty"`
	MessageID   string `json:"MessageID,omitempty"`
	ErrorCode   int    `json:"ErrorCode"`
	Message     string `json:"Message"`
}

func postmarkFailure(status, code int, message string) *reply {
	return jsonReply(status, postmarkResult{ErrorCode: code, Message: message}).with("X-PM-ApiErrorCode", strconv.Itoa(code))
}

func (g postmark) authenticate(r *http.Request, _ []byte) *reply {
	token := r.Header.Get("X-Postmark-Server-Token")
	switch {
	case token == "":
		return postmarkFailure(http.StatusUnauthorized, postmarkBadToken, "No Account or Server API tokens were supplied in the "+
			"HTTP headers. Please add a header for either X-Postmark-Server-Token or X-Postmark-Account-Token.")
	case token != postmarkTestToken && !same(token, g.e.opt.Credentials.PostmarkToken):
		return postmarkFailure(http.StatusUnauthorized, postmarkBadToken, "Request does not contain a valid Server token.")
	}
	return nil
}

// throttled is bare: Postmark documents neither a number nor a Retry-After.
func (postmark) throttled(*full, time.Time) *reply { return &reply{status: http.StatusTooManyRequests} }

func (postmark) tooLarge() *reply {
	return &reply{status: http.StatusRequestEntityTooLarge}
}

func (postmark) failure(status int) *reply {
	switch status {
	case http.StatusInternalServerError:
		return postmarkFailure(status, postmarkUnexpected, "An unexpected error has occurred. Please try again.")
	case http.StatusServiceUnavailable:
		return postmarkFailure(status, postmarkMaintenance, "Postmark is undergoing maintenance. Please try again later.")
	case http.StatusUnauthorized:
		return postmarkFailure(status, postmarkBadToken, "Request does not contain a valid Server token.")
	case http.StatusUnprocessableEntity:
		return postmarkFailure(status, postmarkInvalid, "Invalid email request.")
	}
	return textReply(status, http.StatusText(status))
}

func (postmark) decorate(*reply) {}

func (postmark) unknown(r *http.Request) *reply {
	if r.URL.Path == "/postmark/email" || r.URL.Path == "/postmark/email/batch" {
		return textReply(http.StatusMethodNotAllowed, "")
	}
	return textReply(http.StatusNotFound, "")
}

func (g postmark) read(r *http.Request, body []byte) *submission {
	isJSON := func(name string) bool {
		return strings.Contains(strings.ToLower(r.Header.Get(name)), "application/json")
	}
	if !isJSON("Accept") || !isJSON("Content-Type") {
		return refusal(&reply{status: http.StatusUnsupportedMediaType})
	}
	test := r.Header.Get("X-Postmark-Server-Token") == postmarkTestToken
	if strings.HasSuffix(r.URL.Path, "/batch") {
		return g.readBatch(body, test)
	}
	if len(body) > postmarkMaxMessage {
		return refusal(g.tooLarge())
	}
	var m postmarkMail
	if p := decodePostmark(body, &m); p != nil {
		return refusal(p)
	}
	return g.single(newPostmarkItem(&m, g.e.now(), test))
}

// decodePostmark tells broken JSON (402) from JSON of another shape (403).
func decodePostmark(body []byte, into any) *reply {
	err := json.Unmarshal(body, into)
	if err == nil {
		return nil
	}
	if wrongType := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrongType) {
		return postmarkFailure(http.StatusUnprocessableEntity, postmarkWrongJSON,
			"The JSON data you provided is syntactically correct, but still isn't what was expected: "+wrongType.Field)
	}
	return postmarkFailure(http.StatusUnprocessableEntity, postmarkBadJSON, "The JSON data you provided is syntactically incorrect.")
}

// single answers one message: an error is a 422.
func (g postmark) single(it *postmarkItem) *submission {
	sub := &submission{cost: cost{1, 1, len(it.all)}, to: it.all}
	settle := func() {
		sub.refused, sub.accepted, sub.entries, sub.end = nil, jsonReply(http.StatusOK, it.result), it.entries(), it.end()
		if it.result.ErrorCode != 0 {
			sub.refused = postmarkFailure(http.StatusUnprocessableEntity, it.result.ErrorCode, it.result.Message)
		}
	}
	settle()
	sub.degrade = func(f *Fault) {
		if len(it.taken) > 0 {
			it.inactivate(func(i int, addr string) bool { return chosen(f, i, []string{addr}) })
			settle()
		}
	}
	return sub
}

// readBatch answers 200 with one result per item, in order, whatever became of them.
func (g postmark) readBatch(body []byte, test bool) *submission {
	var mails []postmarkMail
	if p := decodePostmark(body, &mails); p != nil {
		return refusal(p)
	}
	if len(mails) > postmarkMaxBatch {
		return refusal(postmarkFailure(http.StatusUnprocessableEntity, postmarkTooManyBatch,
			"You've exceeded the 500 batch message limit."))
	}
	sub := &submission{cost: cost{requests: 1, messages: len(mails)}}
	items := make([]*postmarkItem, len(mails))
	for i := range mails {
		items[i] = newPostmarkItem(&mails[i], g.e.now(), test)
		sub.to = append(sub.to, items[i].all...)
	}
	sub.cost.recipients = len(sub.to)
	sub.settleBatch(items)
	sub.degrade = func(f *Fault) {
		for i, it := range items {
			if it.result.ErrorCode == 0 && chosen(f, i, it.all) {
				it.refuse(batchFault(f))
			}
		}
		sub.settleBatch(items)
	}
	return sub
}

func (sub *submission) settleBatch(items []*postmarkItem) {
	results := make([]postmarkResult, len(items))
	sub.entries, sub.end = nil, endRejected
	for i, it := range items {
		results[i] = it.result
		sub.entries = append(sub.entries, it.entries()...)
		if it.result.ErrorCode == 0 {
			sub.end = it.end()
		}
	}
	sub.accepted = jsonReply(http.StatusOK, results)
}

// chosen tells which parts a partial fault refuses: those that match, or without a pattern every second one.
func chosen(f *Fault, i int, to []string) bool {
	if f.Match == "" {
		return i%2 == 1
	}
	return f.matches(to)
}

func batchFault(f *Fault) (code int, message string) {
	code, message = f.Status, f.Body
	if code == 0 {
		code = postmarkInvalid
	}
	if message == "" {
		message = "Invalid email request."
	}
	return code, message
}
