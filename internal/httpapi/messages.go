package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

// MessageStore shows messages, and changes what has not been sent.
type MessageStore interface {
	Message(ctx context.Context, t mail.TenantID, id mail.ID) (*record.View, error)
	Waiting(ctx context.Context, id mail.ID) (*queue.Waiting, error)           // of any tenant
	Messages(ctx context.Context, f record.Filter) ([]record.View, error)      // without Attempts
	Cancel(ctx context.Context, t mail.TenantID, id mail.ID) error             // record.ErrConflict: too late
	Resend(ctx context.Context, t mail.TenantID, id mail.ID, force bool) error // ErrConflict: not failed; ErrMaybeSent: needs force
}

// messageID reads the id in the path. Text that is not an id gets the same 404 as an id that does not exist or belongs to
// another tenant.
func messageID(r *http.Request) (mail.ID, error) {
	id, err := mail.ParseID(pathParam(r, "id"))
	if err != nil {
		return mail.ID{}, errNoMessage()
	}
	return id, nil
}

func errNoMessage() error {
	return refuse(http.StatusNotFound, "not_found", "There is no such message.")
}

func (s *Server) getMessage(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	id, err := messageID(r)
	if err != nil {
		return err
	}
	return s.showMessage(w, r, id)
}

func (s *Server) showMessage(w http.ResponseWriter, r *http.Request, id mail.ID) error {
	v, err := s.store.Message(r.Context(), principal(r).Tenant, id)
	if err != nil {
		return missing(err, "There is no such message.")
	}
	out := messageDetail(v)
	out.Waiting = s.waitingView(v, s.clock())
	if err := s.addMessageIDs(r.Context(), v, out.Attempts); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

// addMessageIDs adds the Message-ID header that recipients see to each attempt that was accepted, or may have been.
func (s *Server) addMessageIDs(ctx context.Context, v *record.View, out []api.Attempt) error {
	for i, a := range v.Attempts {
		if a.Class != string(provider.Accepted) && a.Class != string(provider.Uncertain) {
			continue
		}
		var failed error
		settings := func() []byte {
			c, err := s.store.Config(ctx)
			if err != nil {
				failed = err
				return nil
			}
			if acc := c.Account(a.Account); acc != nil && string(acc.Kind) == a.Provider {
				return acc.Settings
			}
			return nil
		}
		out[i].MessageIDHeader = s.kinds.MessageIDHeader(provider.Kind(a.Provider), settings, v.Message.MessageID(), a.ProviderMessageID)
		if failed != nil {
			return failed
		}
	}
	return nil
}

func (s *Server) listMessages(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(r, "status", "to", "from", "tag", "stream", "account", "since", "until", "limit", "cursor")
	if err != nil {
		return err
	}
	f := record.Filter{
		Tenant: principal(r).Tenant, Status: q.status("status"), To: q.email("to"), From: q.email("from"),
		Tag: q.text("tag"), Stream: q.text("stream"), Account: q.text("account"),
		Since: q.moment("since"), Until: q.moment("until"),
	}
	limit := q.limit()
	if err := q.err(); err != nil {
		return err
	}
	l := listing{name: "messages", tenant: f.Tenant, filter: q.filter()}
	if f.Before, err = q.idCursor(s.cursors, l); err != nil {
		return err
	}
	f.Limit = limit + 1
	views, err := s.store.Messages(r.Context(), f)
	if err != nil {
		return err
	}
	views, next := page(s.cursors, l, views, limit, func(v *record.View) string { return v.Message.ID.String() })
	out := api.MessagePage{Data: make([]api.Message, 0, len(views)), NextCursor: next}
	for i := range views {
		out.Data = append(out.Data, messageView(&views[i]))
	}
	return writeJSON(w, http.StatusOK, out)
}

func (q *query) idCursor(c *cursors, l listing) (mail.ID, error) {
	last, err := q.cursor(c, l)
	if err != nil || last == "" {
		return mail.ID{}, err
	}
	id, err := mail.ParseID(last)
	if err != nil {
		return mail.ID{}, errCursor()
	}
	return id, nil
}

func (s *Server) cancelMessage(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	id, err := messageID(r)
	if err != nil {
		return err
	}
	if err := s.store.Cancel(r.Context(), principal(r).Tenant, id); err != nil {
		return conflict(missing(err, "There is no such message."), "too_late",
			"It is too late to cancel: the message is being sent or has ended.")
	}
	return afterStore(s.showMessage(w, r, id))
}

func (s *Server) resendMessage(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(r, "force")
	if err != nil {
		return err
	}
	force := q.flag("force")
	if err := q.err(); err != nil {
		return err
	}
	id, err := messageID(r)
	if err != nil {
		return err
	}
	err = s.store.Resend(r.Context(), principal(r).Tenant, id, force)
	if errors.Is(err, record.ErrMaybeSent) {
		return &refusal{
			status: http.StatusConflict, code: "maybe_sent", cause: err,
			detail: "A provider may have sent this message already. Repeat the request with ?force=true to risk a second copy.",
		}
	}
	if err != nil {
		return conflict(missing(err, "There is no such message."), "not_failed",
			"Only a message that failed can be sent again.")
	}
	return afterStore(s.showMessage(w, r, id))
}

// messageView is a message in a listing: without attempts, events, headers or bodies.
func messageView(v *record.View) api.Message {
	m := v.Message
	out := api.Message{
		ID: m.ID.String(), Status: string(v.Status), CreatedAt: m.CreatedAt, UpdatedAt: v.UpdatedAt,
		SendAt: optional(m.SendAt), ExpiresAt: optional(m.ExpiresAt), From: address(m.From), Subject: m.Subject,
		Stream: m.Stream, Tags: m.Tags, Metadata: m.Metadata, OnAmbiguous: string(m.OnAmbiguous), Account: m.Account,
	}
	for _, rc := range v.Recipients {
		out.Recipients = append(out.Recipients, api.Recipient{
			Email: rc.Address.Email, Name: rc.Address.Name, Kind: string(rc.Kind), Status: string(rc.Status),
			Detail: rc.Detail, Bounce: bounceView(rc.Bounce), UpdatedAt: rc.UpdatedAt,
		})
	}
	return out
}

// messageDetail is a message with all its stored data, except the content of its attachments.
func messageDetail(v *record.View) api.Message {
	out := messageView(v)
	m := v.Message
	out.Text, out.HTML = m.Text, m.HTML
	for _, a := range m.ReplyTo {
		out.ReplyTo = append(out.ReplyTo, address(a))
	}
	for _, h := range m.Headers {
		if out.Headers == nil {
			out.Headers = map[string]string{}
		}
		out.Headers[h.Name] = h.Value
	}
	if m.Calendar != nil {
		out.Calendar = &api.Calendar{Method: m.Calendar.Method, Content: m.Calendar.Content}
	}
	for _, a := range m.Attachments {
		out.Attachments = append(out.Attachments, api.AttachmentInfo{
			Filename: a.Filename, ContentType: a.ContentType, ContentID: a.ContentID, Size: len(a.Content),
		})
	}
	out.Attempts, out.Events = make([]api.Attempt, 0, len(v.Attempts)), eventViews(v.Events)
	for i := range v.Attempts {
		out.Attempts = append(out.Attempts, attemptView(&v.Attempts[i]))
	}
	return out
}

func attemptView(a *record.Attempt) api.Attempt {
	return api.Attempt{
		N: a.N, Account: a.Account, Provider: a.Provider, Decision: a.Decision, Class: a.Class,
		StartedAt: a.StartedAt, TookMS: took(a.StartedAt, a.FinishedAt),
		ProviderMessageID: a.ProviderMessageID, VerdictSource: a.VerdictSource, Status: a.Status, Code: a.Code,
		Error: a.Error,
	}
}

// took returns the duration of a finished call in whole milliseconds, never negative, or nil if it has not finished.
func took(start, end time.Time) *int64 {
	if start.IsZero() || end.IsZero() {
		return nil
	}
	ms := max(end.Sub(start).Milliseconds(), 0)
	return &ms
}

func address(a mail.Address) api.Address { return api.Address{Email: a.Email, Name: a.Name} }
