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

// pathID reads the id in the path. Text that is not an id gets the same 404 as an id that does not exist or belongs to
// another tenant.
func pathID(r *http.Request, missing string) (mail.ID, error) {
	id, err := mail.ParseID(pathParam(r, "id"))
	if err != nil {
		return mail.ID{}, refuse(http.StatusNotFound, "not_found", missing)
	}
	return id, nil
}

const noMessage = "There is no such message."

func (s *Server) getMessage(r *http.Request) (out api.Message, err error) {
	id, err := pathID(r, noMessage)
	if err != nil {
		return out, err
	}
	v, err := s.store.Message(r.Context(), principal(r).Tenant, id)
	if err != nil {
		return out, missing(err, noMessage)
	}
	out = messageDetail(v)
	if out.Text != "" || out.HTML != "" || len(out.Attachments) > 0 {
		s.reads.note(principal(r).ID, record.CallerOf(r.Context()), id, s.clock())
	}
	out.Waiting = s.waitingView(v, s.clock())
	return out, s.addMessageIDs(r.Context(), v, out.Attempts)
}

// changedMessage shows the message after a change of it.
func (s *Server) changedMessage(r *http.Request) (api.Message, error) {
	out, err := s.getMessage(r)
	return out, afterStore(err)
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

func (s *Server) listMessages(r *http.Request) (out api.MessagePage, err error) {
	q := readQuery(r, "status", "to", "from", "tag", "stream", "account", "provider_message_id", "since", "until", "limit", "cursor")
	f := record.Filter{
		Tenant: principal(r).Tenant, Status: q.status("status"), To: q.email("to"), From: q.email("from"),
		Tag: q.text("tag"), Stream: q.text("stream"), Account: q.text("account"), ProviderMessageID: q.text("provider_message_id"),
		Since: q.moment("since"), Until: q.moment("until"), Limit: q.limit() + 1,
	}
	l := listing{name: "messages", tenant: f.Tenant, filter: q.filter()}
	f.Before = position(q, s.cursors, l, mail.ParseID)
	if err := q.err(); err != nil {
		return out, err
	}
	rows, err := s.store.Messages(r.Context(), f)
	return pageOf(s.cursors, l, rows, f.Limit, func(v *record.View) string { return v.Message.ID.String() }, messageView), err
}

func (s *Server) cancelMessage(r *http.Request) (out api.Message, err error) {
	id, err := pathID(r, noMessage)
	if err != nil {
		return out, err
	}
	if err := s.store.Cancel(r.Context(), principal(r).Tenant, id); err != nil {
		return out, conflict(missing(err, noMessage), "too_late", "It is too late to cancel: the message is being sent or has ended.")
	}
	return s.changedMessage(r)
}

func (s *Server) resendMessage(r *http.Request) (out api.Message, err error) {
	q := readQuery(r, "force")
	force := q.flag("force")
	if err := q.err(); err != nil {
		return out, err
	}
	id, err := pathID(r, noMessage)
	if err != nil {
		return out, err
	}
	err = s.store.Resend(r.Context(), principal(r).Tenant, id, force)
	if errors.Is(err, record.ErrMaybeSent) {
		return out, &refusal{
			status: http.StatusConflict, code: "maybe_sent", cause: err,
			detail: "A provider may have sent this message already. Repeat the request with ?force=true to risk a second copy.",
		}
	}
	if err != nil {
		return out, conflict(missing(err, noMessage), "not_failed", "Only a message that failed can be sent again.")
	}
	return s.changedMessage(r)
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
	out.Attempts, out.Events = views(v.Attempts, attemptView), views(v.Events, eventView)
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
