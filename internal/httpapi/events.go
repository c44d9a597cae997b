package httpapi

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// EventStore keeps the events that providers report.
type EventStore interface {
	// ReceiveEvents stores events and applies them. Errors: record.ErrReplayed, *record.Unavailable.
	ReceiveEvents(ctx context.Context, in record.Intake) (record.Taken, error)
	Events(ctx context.Context, f record.EventFilter) ([]mail.Event, error)
	// EventHead returns the position behind all events. EventsAfter returns events behind a position; no event is ever added
	// before one that was read. A position that is not valid is record.ErrNotFound. The list may be empty although more
	// events follow; next has then moved on.
	EventHead(ctx context.Context) (position string, err error)
	EventsAfter(ctx context.Context, f record.EventFilter, position string, limit int) (events []mail.Event, next string, err error)
	Stats(ctx context.Context, f record.StatsFilter) ([]record.Stat, error)

	HookHealth(ctx context.Context) ([]record.HookHealth, error)
	// RawEvents reads kept payloads by time of receipt, of one account, or of all if account is "".
	RawEvents(ctx context.Context, account string, since time.Time, after mail.ID, limit int) ([]record.RawEvent, error)
	// Reproject replaces the events that were once parsed from payloads by those that the parser finds in them today.
	Reproject(ctx context.Context, in []record.Reprojected, dryRun bool) (changed, messages int, err error)
}

// eventParameters are the filters that the list and the stream of events share; type may repeat.
var eventParameters = []string{"message_id", "recipient", "account", "stream"}

func (s *Server) listEvents(w http.ResponseWriter, r *http.Request) error {
	q, err := readRepeating(r, "type", append(eventParameters, "since", "until", "limit", "cursor")...)
	if err != nil {
		return err
	}
	f := q.events(principal(r).Tenant)
	f.Since, f.Until = q.moment("since"), q.moment("until")
	limit := q.limit()
	if err := q.err(); err != nil {
		return err
	}
	l := listing{name: "events", tenant: f.Tenant, filter: q.filter()}
	if f.Before, err = q.idCursor(s.cursors, l); err != nil {
		return err
	}
	f.Limit = limit + 1
	rows, err := s.store.Events(r.Context(), f)
	if err != nil {
		return err
	}
	rows, next := page(s.cursors, l, rows, limit, func(e *mail.Event) string { return e.ID.String() })
	return writeJSON(w, http.StatusOK, api.EventPage{Data: eventViews(rows), NextCursor: next})
}

// events reads the filter of the list and of the stream of events.
func (q *query) events(t mail.TenantID) record.EventFilter {
	f := record.EventFilter{
		Tenant: t, Recipient: q.email("recipient"), Account: q.text("account"), Stream: q.text("stream"), MessageID: q.id("message_id"),
	}
	for _, name := range q.values["type"] {
		if !slices.Contains(mail.EventTypes(), mail.EventType(name)) {
			q.complain("type", "unknown_type", "is not a type of event")
			return f
		}
		f.Types = append(f.Types, mail.EventType(name))
	}
	return f
}

func eventViews(events []mail.Event) []api.Event {
	out := make([]api.Event, 0, len(events))
	for i := range events {
		out = append(out, eventView(&events[i]))
	}
	return out
}

func eventView(e *mail.Event) api.Event {
	out := api.Event{
		ID: e.ID.String(), Type: string(e.Type), ProviderType: e.Name, At: e.At, ReceivedAt: e.ID.Time(), Recipient: e.Recipient,
		Account: e.Account, Provider: e.Provider, ProviderMessageID: e.ProviderMessageID, Stream: e.Stream, Tags: e.Tags,
		Source: string(e.Source), Bounce: bounceView(e.Bounce), URL: e.URL, Machine: e.Machine,
	}
	if !e.MessageID.IsZero() {
		out.MessageID = e.MessageID.String()
	}
	return out
}

func bounceView(b *mail.Bounce) *api.Bounce {
	if b == nil {
		return nil
	}
	return &api.Bounce{Class: string(b.Class), Reason: string(b.Reason), Rule: b.Rule, Code: b.Code, Enhanced: b.Enhanced, Text: b.Text}
}
