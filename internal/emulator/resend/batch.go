package resend

import (
	"encoding/json"
	"net/http"

	"github.com/google/uuid"

	"github.com/sendgate/sendgate/internal/emulator"
)

// maxBatch is the cap of "Send Batch Emails" on emails.
const maxBatch = 100

// itemError says in the permissive mode why an email was not created.
type itemError struct {
	Index   int    `json:"index"`
	Message string `json:"message"`
}

// readBatch parses a request for several emails. The strict mode, which is the default, takes all of them or none. The permissive
// mode takes those that are valid, and lists the others as errors.
func (a *api) readBatch(r *http.Request, body []byte) *emulator.Submission {
	k := keyOf(r)
	if sub := a.keyed(k, body); sub != nil {
		return sub
	}
	var emails []json.RawMessage
	if err := json.Unmarshal(body, &emails); err != nil || len(emails) == 0 {
		return emulator.Refuse(refuse(http.StatusUnprocessableEntity, "validation_error", "The request body is not a JSON array with emails."))
	}
	permissive := r.Header.Get("X-Batch-Validation") == "permissive"
	sub := &emulator.Submission{Cost: emulator.Cost{Requests: 1, Messages: len(emails)}, End: emulator.EndRejected}
	data, faults := []created{}, []itemError{}
	for i, raw := range emails {
		var m email
		fault := m.readItem(i, raw)
		sub.To = append(sub.To, m.all...)
		switch {
		case fault != nil && !permissive:
			sub.Refused = fault
		case fault != nil:
			faults = append(faults, itemError{i, messageOf(fault)})
		default:
			id := uuid.NewString()
			data, sub.Messages, sub.End = append(data, created{id}), append(sub.Messages, m.message(id)), emulator.EndAccepted
		}
		if sub.Refused != nil {
			break
		}
	}
	sub.Cost.Recipients = len(sub.To)
	answer := map[string]any{"data": data}
	if permissive {
		answer["errors"] = faults
	}
	sub.Accepted = emulator.JSON(http.StatusOK, answer)
	if len(data) > 0 {
		sub.Taken = func() { a.keys.keep(k, digest(body), sub.Accepted, a.host.Now()) }
	}
	return sub
}

// readItem reads the email at a position of a batch and checks it. A batch has fewer fields than a single email.
func (m *email) readItem(at int, raw []byte) *emulator.Reply {
	switch err := json.Unmarshal(raw, m); {
	case err != nil:
		return refuse(http.StatusUnprocessableEntity, "validation_error", "The email is not valid JSON of an email.")
	case at >= maxBatch:
		return refuse(http.StatusUnprocessableEntity, "validation_error", "The batch contains more than 100 emails.")
	case len(m.Attachments) > 0:
		return refuse(http.StatusUnprocessableEntity, "validation_error", "The `attachments` field is not supported in a batch.")
	case m.ScheduledAt != "":
		return refuse(http.StatusUnprocessableEntity, "validation_error", "The `scheduled_at` field is not supported in a batch.")
	}
	return m.check()
}

// messageOf is the message of a documented error.
func messageOf(p *emulator.Reply) string {
	var got struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(p.Body, &got) // it is our own
	return got.Message
}
