package httpapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
)

// SubjectStore finds and erases what is stored about one person. An unknown tenant is record.ErrNotFound.
type SubjectStore interface {
	CountSubject(ctx context.Context, q record.SubjectQuery) (record.SubjectCount, error)
	// ExportSubject and EraseSubject work in steps: next is the cursor of the following one, "" after the last.
	ExportSubject(ctx context.Context, actor string, q record.SubjectQuery) (rows []record.SubjectRow, next string, err error)
	EraseSubject(ctx context.Context, actor string, q record.SubjectQuery) (e record.Erased, next string, err error)
	// BeginErasure stops all mail to the address. If messages to it are open, it is record.ErrConflict unless cancel is set.
	BeginErasure(ctx context.Context, actor string, q record.SubjectQuery, cancel bool) (cancelled int, err error)
}

// subject checks a request, and opens its cursor.
func (s *Server) subject(call string, in api.SubjectRequest) (record.SubjectQuery, listing, error) {
	l := listing{name: "subject " + call, filter: in.Address + "\n" + in.Tenant}
	a, err := mail.ParseAddress(in.Address)
	if err != nil {
		return record.SubjectQuery{}, l, invalid("address", "invalid_address", "must be one email address")
	}
	if len(in.Tenant) > maxParameter || !clean(in.Tenant) {
		return record.SubjectQuery{}, l, invalid("tenant", "unknown_tenant", "is not the name of a tenant")
	}
	at, err := cursorAt(s.cursors, l, in.Cursor, func(at string) (string, error) { return at, nil })
	return record.SubjectQuery{Address: a.Email, Tenant: in.Tenant, Cursor: at}, l, err
}

// subjectError gives the answer for an error of the store.
func subjectError(err error) error {
	switch {
	case errors.Is(err, record.ErrNotFound):
		return invalid("tenant", "unknown_tenant", "is not the name of a tenant")
	case errors.Is(err, record.ErrConflict):
		return refuse(http.StatusConflict, "subject_waiting",
			"Messages to this address wait, are being sent, or have no known outcome. Nothing was changed. Wait, or set cancel_waiting.")
	}
	return err
}

func (s *Server) countSubject(r *http.Request, in api.SubjectRequest) (out api.SubjectCount, err error) {
	q, _, err := s.subject("count", in)
	if err != nil {
		return out, err
	}
	c, err := s.store.CountSubject(r.Context(), q)
	out = api.SubjectCount{Messages: c.Messages, Open: c.Open, Suppressions: c.Suppressions, Events: c.Events}
	out.Accounts = views(c.Accounts, func(a *record.SubjectAccount) api.SubjectAccount {
		spec, _ := s.kinds.Spec(provider.Kind(a.Kind))
		p := spec.Privacy
		return api.SubjectAccount{Account: a.Name, Kind: a.Kind, Messages: a.Messages, Keeps: p.Keeps, Erase: p.Erase, Sources: p.Sources, Read: p.Read}
	})
	return out, subjectError(err)
}

func (s *Server) exportSubject(r *http.Request, in api.SubjectRequest) (out api.SubjectPage, err error) {
	q, l, err := s.subject("export", in)
	if err != nil {
		return out, err
	}
	rows, next, err := s.store.ExportSubject(r.Context(), principal(r).ID, q)
	out.Data = views(rows, func(row *record.SubjectRow) api.SubjectRow { return api.SubjectRow{Kind: row.Kind, Row: row.Row} })
	if next != "" {
		out.Cursor = s.cursors.seal(l, next)
	}
	return out, subjectError(err)
}

// subjectBegun is the place after the first step of an erasure.
const subjectBegun = "begun"

func (s *Server) eraseSubject(r *http.Request, in api.SubjectErasure) (out api.SubjectErased, err error) {
	q, l, err := s.subject("erase", api.SubjectRequest{Address: in.Address, Tenant: in.Tenant, Cursor: in.Cursor})
	if err != nil {
		return out, err
	}
	if q.Cursor == "" {
		out.Cancelled, err = s.store.BeginErasure(r.Context(), principal(r).ID, q, in.CancelWaiting)
		out.Cursor = s.cursors.seal(l, subjectBegun)
		return out, subjectError(err)
	}
	if q.Cursor == subjectBegun {
		q.Cursor = ""
	}
	e, next, err := s.store.EraseSubject(r.Context(), principal(r).ID, q)
	out.Messages, out.Events, out.Open = e.Messages, e.Events, e.Open
	if next != "" {
		out.Cursor = s.cursors.seal(l, next)
	}
	return out, subjectError(err)
}
