package dash

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

// statuses are those of a message, in the order of its life.
var statuses = []string{
	"scheduled", "queued", "sending", "deferred", "unknown", "sent", "delivered", "bounced", "complained", "failed", "failed_unknown", "suppressed", "cancelled", "expired",
}

// found is a page of messages, and what was asked for.
type found struct {
	Query    api.MessageQuery
	Q        string // the words of the one field
	Since    string // as the form has them
	Until    string
	Statuses []string
	Messages []api.Message
	Next     string // cursor
	Filter   []string
}

// findMessages searches. What looks like an id leads to its message, and what has an @ is a recipient.
func findMessages(v *visit) error {
	x := found{
		Q: v.field("q"), Since: v.field("since"), Until: v.field("until"), Statuses: statuses,
		Query: api.MessageQuery{
			Status: v.field("status"), To: v.field("to"), From: v.field("from"), Tag: v.field("tag"), Stream: v.field("stream"),
			Account: v.field("account"), Cursor: v.field("cursor"), Limit: 50,
		},
	}
	switch id, err := uuid.Parse(x.Q); {
	case x.Q == "":
	case err == nil && id.Version() == 7: // ours; Postmark and Resend give ids of version 4
		http.Redirect(v.w, v.r, link(v.tenant, "/messages/"+x.Q), http.StatusSeeOther)
		return nil
	case strings.Contains(x.Q, "@"):
		x.Query.To = x.Q
	default:
		x.Query.ProviderMessageID = x.Q
	}
	var err error
	if x.Query.Since, err = formTime("since", x.Since); err != nil {
		return err
	}
	if x.Query.Until, err = formTime("until", x.Until); err != nil {
		return err
	}
	page, err := v.api.Messages(v.r.Context(), x.Query)
	if err != nil {
		return err
	}
	x.Messages, x.Next = page.Data, page.NextCursor
	x.Filter = []string{
		"q", x.Q, "status", x.Query.Status, "to", v.field("to"), "from", x.Query.From, "tag", x.Query.Tag, "stream", x.Query.Stream,
		"account", x.Query.Account, "since", x.Since, "until", x.Until,
	}
	return v.show(http.StatusOK, "messages", "messages", "Messages", &x)
}

// More is the path to the next page.
func (f *frame) More(path, cursor string, filter []string) string {
	return f.Link(path, append(append([]string{}, filter...), "cursor", cursor)...)
}

// formTime reads a field of the type datetime-local, in UTC.
func formTime(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339, "2006-01-02"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, &api.Problem{
		Status: http.StatusUnprocessableEntity, Title: "Invalid", Code: "invalid", Detail: "A time can't be read.",
		Errors: []api.FieldProblem{{Field: name, Message: "must be like 2026-01-31T08:30, in UTC"}},
	}
}

// maxSuppressions is for how many recipients of a message the page looks up whether they are suppressed.
const maxSuppressions = 3

// told is a message with what its page adds.
type told struct {
	*api.Message
	Tries       []try
	Suppressed  map[string][]api.Suppression
	Unchecked   bool // there are more recipients than the page looks up
	Tab         string
	Force       bool // a resend may mail somebody twice, and has to be confirmed
	CanCancel   bool
	CanResend   bool
	RawDecision string
}

// try is an attempt with its decision.
type try struct {
	api.Attempt
	Why *api.Decision // nil if none is kept
}

func messagePath(id string) string { return "/messages/" + url.PathEscape(id) }

func showMessage(v *visit) error { return v.message(http.StatusOK, false) }

// message shows a message. It makes one call to the API, and one for each recipient that it looks up.
func (v *visit) message(status int, force bool) error {
	m, err := v.api.Message(v.r.Context(), v.param("id"))
	if err != nil {
		return err
	}
	x := told{Message: m, Force: force, Tab: v.r.URL.Query().Get("tab"), Suppressed: map[string][]api.Suppression{}}
	if x.Tab == "" && m.HTML == "" {
		x.Tab = "text"
	}
	for _, a := range m.Attempts {
		x.Tries = append(x.Tries, try{Attempt: a, Why: decision(a.Decision)})
	}
	switch m.Status {
	case "queued", "scheduled":
		x.CanCancel = v.may(record.ScopeSend)
	case "failed", "failed_unknown":
		x.CanResend = v.may(record.ScopeSend)
	}
	for _, r := range m.Recipients { // one of several may have failed
		x.CanResend = x.CanResend || strings.HasPrefix(r.Status, "failed") && v.may(record.ScopeSend)
	}
	x.Unchecked = len(m.Recipients) > maxSuppressions
	if v.may(record.ScopeSuppressionsRead) && !x.Unchecked {
		for _, r := range m.Recipients {
			if x.Suppressed[r.Email], err = v.api.Suppressed(v.r.Context(), r.Email, m.Stream); err != nil {
				return err
			}
		}
	}
	return v.show(status, "message", "messages", "Message", &x)
}

// decision reads a stored decision.
func decision(raw json.RawMessage) *api.Decision {
	d := &api.Decision{}
	if len(raw) == 0 || json.Unmarshal(raw, d) != nil {
		return nil
	}
	return d
}

// previewPolicy lets a body show its text, its own style and its inline pictures. Nothing in it runs, is sent or is fetched, and it can
// reach neither the page around it nor the session.
const previewPolicy = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

// previewHTML serves the HTML body of a message, for the frame on its page.
func previewHTML(v *visit) error {
	m, err := v.api.Message(v.r.Context(), v.param("id"))
	if err != nil {
		return err
	}
	h := v.w.Header()
	h.Set("Content-Security-Policy", previewPolicy)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Dns-Prefetch-Control", "off")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	_, _ = v.w.Write([]byte(m.HTML)) //nolint:gosec // the policy above is for that
	return nil
}

func cancelMessage(v *visit) error {
	if _, err := v.api.Cancel(v.r.Context(), v.param("id")); err != nil {
		return err
	}
	return v.back(messagePath(v.param("id")), "cancelled")
}

// resendMessage sends a failed message again. If a provider may have it, the page asks first.
func resendMessage(v *visit) error {
	id := v.param("id")
	again := v.api.Resend
	if v.field("force") == "yes" {
		again = v.api.ResendAnyway
	}
	if _, err := again(v.r.Context(), id); is(err, "maybe_sent") {
		return v.message(http.StatusConflict, true)
	} else if err != nil {
		return err
	}
	return v.back(messagePath(id), "resent")
}
