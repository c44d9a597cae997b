package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// refusal is an error that carries its own answer. Handlers make one with refuse. Errors of the store and of package mail
// get their answer from refusalOf.
type refusal struct {
	status     int
	code       string // stable: callers branch on it
	detail     string // a sentence for people, never with a secret or a full address
	fields     []mail.Field
	retryAfter time.Duration // 0: no Retry-After
	header     http.Header   // further headers of the answer
	cause      error
}

// refuse makes a refusal.
func refuse(status int, code, detail string) *refusal {
	return &refusal{status: status, code: code, detail: detail}
}

// Error implements error.
func (e *refusal) Error() string {
	if e.detail == "" {
		return e.code
	}
	return e.code + ": " + e.detail
}

// Unwrap returns the cause.
func (e *refusal) Unwrap() error { return e.cause }

// invalid makes the 422 for one field.
func invalid(field, code, message string) *mail.Invalid {
	return &mail.Invalid{Fields: []mail.Field{{Field: field, Code: code, Message: message}}}
}

// complaints collects the mistakes in the fields of a request.
type complaints []mail.Field

func (c *complaints) complain(field, code, message string) {
	*c = append(*c, mail.Field{Field: field, Code: code, Message: message})
}

// err returns the 422 for all mistakes, or nil.
func (c *complaints) err() error {
	if len(*c) == 0 {
		return nil
	}
	return &mail.Invalid{Fields: *c}
}

// refusalOf is the one table from errors to answers (RFC 9457); problemTypes explains their codes. Any other error is a 500
// without details.
func refusalOf(err error) *refusal {
	var (
		own         *refusal
		bad         *mail.Invalid
		unknown     *record.OutcomeUnknown
		unavailable *record.Unavailable
		tooLarge    *http.MaxBytesError
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &bad):
		return &refusal{
			status: http.StatusUnprocessableEntity, code: "invalid", detail: "Some fields can't be accepted.",
			fields: bad.Fields, cause: err,
		}
	case errors.As(err, &unknown):
		return &refusal{
			status: http.StatusGatewayTimeout, code: "outcome_unknown", cause: err, retryAfter: jitter(time.Second),
			detail: "This may have taken effect, wholly or in part: the database did not confirm it. " +
				"Repeat a send with the same Idempotency-Key, which stores nothing twice. Look before you repeat anything else.",
		}
	case errors.As(err, &unavailable):
		return &refusal{
			status: http.StatusServiceUnavailable, code: unavailableCode(unavailable.Reason), cause: err,
			detail: "Nothing was stored. Try again later.", retryAfter: jitter(unavailable.RetryAfter),
		}
	case errors.As(err, &tooLarge):
		return refuse(http.StatusRequestEntityTooLarge, "too_large",
			"The body is over the cap of "+strconv.FormatInt(tooLarge.Limit, 10)+" bytes.")
	}
	e := &refusal{status: http.StatusInternalServerError, code: "internal"}
	switch {
	case errors.Is(err, record.ErrNotFound):
		e = refuse(http.StatusNotFound, "not_found", "")
	case errors.Is(err, record.ErrConflict):
		e = refuse(http.StatusConflict, "conflict", "")
	case errors.Is(err, record.ErrStale):
		e = refuse(http.StatusPreconditionFailed, "stale", "It was changed by someone else. Read it again and repeat your change.")
	case errors.Is(err, record.ErrMismatch):
		e = refuse(http.StatusUnprocessableEntity, "idempotency_mismatch", "This Idempotency-Key was used with another request body.")
	case errors.Is(err, record.ErrForbidden):
		e = refuse(http.StatusForbidden, "forbidden", "")
	case errors.Is(err, context.DeadlineExceeded):
		e = refuse(http.StatusGatewayTimeout, "timeout", "The request took too long. It may have taken effect.")
		e.retryAfter = jitter(time.Second)
	}
	e.cause = err
	return e
}

// unavailableCode limits the codes of 503 to those in problemTypes.
func unavailableCode(reason string) string {
	if problemTypes[reason].status == http.StatusServiceUnavailable {
		return reason
	}
	return "unavailable"
}

// setHeaders sets the headers that belong to the answer.
func (e *refusal) setHeaders(h http.Header) {
	maps.Copy(h, e.header)
	if e.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((e.retryAfter+time.Second-1)/time.Second), 10))
	}
}

// problem returns the body of an error answer. Batch items hold it too, without a request id.
func (e *refusal) problem() api.Problem {
	p := api.Problem{
		Type: typeOf(e.code), Title: title(e.code),
		Status: e.status, Code: e.code, Detail: e.detail,
	}
	for _, f := range e.fields {
		p.Errors = append(p.Errors, api.FieldProblem{Field: f.Field, Code: f.Code, Message: f.Message})
	}
	return p
}

// problemOf returns the body of the answer to any error.
func problemOf(err error) api.Problem { return refusalOf(err).problem() }

// title turns "idempotency_mismatch" into "Idempotency mismatch". By RFC 9457 section 3.1.3 a title belongs to the type and
// does not change from one answer to the next.
func title(code string) string {
	words := strings.ReplaceAll(code, "_", " ")
	if words == "" {
		return ""
	}
	return strings.ToUpper(words[:1]) + words[1:]
}

// writeProblem answers a request with an error and logs it: 5xx as errors, everything else for debugging.
func (s *Server) writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	e := refusalOf(err)
	p := e.problem()
	p.RequestID = requestID(r.Context())
	h := w.Header()
	e.setHeaders(h)
	if e.status == http.StatusRequestEntityTooLarge {
		h.Set("Connection", "close")
	}
	h.Del("Etag")
	h.Del("Location")
	s.logProblem(r, e, err)
	body, _ := encode(p) // strings and numbers always encode
	write(w, e.status, "application/problem+json", body)
}

// logProblem logs the cause of a 5xx. For mistakes of the caller it logs codes only: details and field paths hold names that
// the caller chose, which may be addresses. Two kinds of 5xx count as such mistakes, since strangers can cause them and must
// not fill the log: a busy receiver of events, which a metric counts, and a key that could not be looked up.
func (s *Server) logProblem(r *http.Request, e *refusal, err error) {
	level, why := slog.LevelError, slog.Any("error", err)
	_, stranger := errors.AsType[errUnverified](err)
	if e.status < http.StatusInternalServerError || stranger || errors.Is(err, errHookBusy) {
		level, why = slog.LevelDebug, slog.Any("field_codes", e.fieldCodes())
	}
	s.log.LogAttrs(r.Context(), level, "request refused",
		slog.String("request_id", requestID(r.Context())), slog.String("method", methodLabel(r.Method)),
		slog.String("route", routeOf(r)), slog.Int("status", e.status), slog.String("code", e.code), why)
}

func (e *refusal) fieldCodes() []string {
	codes := make([]string, len(e.fields))
	for i, f := range e.fields {
		codes[i] = f.Code
	}
	return codes
}

// missing gives record.ErrNotFound a sentence; other errors pass.
func missing(err error, detail string) error {
	if !errors.Is(err, record.ErrNotFound) {
		return err
	}
	return &refusal{status: http.StatusNotFound, code: "not_found", detail: detail, cause: err}
}

// conflict gives record.ErrConflict a code and a sentence; other errors pass.
func conflict(err error, code, detail string) error {
	if !errors.Is(err, record.ErrConflict) {
		return err
	}
	return &refusal{status: http.StatusConflict, code: code, detail: detail, cause: err}
}

// afterStore is for an error that came after something was stored: the answer must not say that nothing was.
func afterStore(err error) error {
	if _, away := errors.AsType[*record.Unavailable](err); away {
		return &record.OutcomeUnknown{Err: err}
	}
	return err
}

// jitter spreads a wait of d over d..d+2 s in whole seconds, so that refused callers do not return all at once.
func jitter(d time.Duration) time.Duration {
	whole := max(d.Round(time.Second), time.Second)
	return whole + time.Duration(rand.IntN(3))*time.Second //nolint:gosec // spreading load needs no secrecy
}
