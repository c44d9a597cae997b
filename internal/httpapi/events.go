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

func (s *Server) listEvents(r *http.Request) (out api.EventPage, err error) {
	q := readRepeating(r, "type", append(eventParameters, "since", "until", "limit", "cursor")...)
	f := q.events(principal(r).Tenant)
	f.Since, f.Until, f.Limit = q.moment("since"), q.moment("until"), q.limit()+1
	l := listing{name: "events", tenant: f.Tenant, filter: q.filter()}
	f.Before = position(q, s.cursors, l, mail.ParseID)
	if err := q.err(); err != nil {
		return out, err
	}
	rows, err := s.store.Events(r.Context(), f)
	return pageOf(s.cursors, l, rows, f.Limit, func(e *mail.Event) string { return e.ID.String() }, eventView), err
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

const (
	defaultStatsSpan = 24 * time.Hour
	maxStatsSpan     = 31 * 24 * time.Hour
	statsAtOnce      = 3 // per replica, 1 per tenant: counting is expensive, and others need the database too
)

// getStats counts the recipients of the tenant's messages, by account, stream or domain.
func (s *Server) getStats(r *http.Request) (out api.Stats, err error) {
	q := readQuery(r, "by", "since", "until", "limit")
	f := record.StatsFilter{Tenant: principal(r).Tenant, By: q.statsKey(), Limit: q.limit()}
	f.Since, f.Until = q.span(s.clock().UTC())
	if err := q.err(); err != nil {
		return out, err
	}
	place := s.stats.take(holder{tenant: f.Tenant}, 1, nil)
	if place == nil {
		return out, &record.Unavailable{Reason: "busy", RetryAfter: time.Second}
	}
	defer place.release()
	lines, err := s.store.Stats(r.Context(), f)
	return api.Stats{By: f.By, Since: f.Since, Until: f.Until, Data: views(lines, statView)}, err
}

func (q *query) statsKey() string {
	switch by := q.values.Get("by"); by {
	case "":
		return "account"
	case "account", "stream", "domain":
		return by
	}
	q.complain("by", "unknown_key", "must be account, stream or domain")
	return ""
}

// span reads the period to count: at most 31 days, by default the last 24 hours.
func (q *query) span(now time.Time) (since, until time.Time) {
	since, until = q.moment("since").UTC(), q.moment("until").UTC()
	if until.IsZero() {
		until = now
	}
	if since.IsZero() {
		since = until.Add(-defaultStatsSpan)
	}
	switch {
	case !since.Before(until):
		q.complain("since", "out_of_range", "must be before until")
	case until.Sub(since) > maxStatsSpan:
		q.complain("since", "out_of_range", "must be at most 31 days before until")
	}
	return since, until
}

func statView(s *record.Stat) api.Stat {
	out := api.Stat{
		Key: s.Key, Recipients: s.Recipients, Sent: s.Sent, Delivered: s.Delivered, Deferred: s.Deferred, Bounced: map[string]int64{},
		Complained: s.Complained, Suppressed: s.Suppressed, Failed: s.Failed, FailedUnknown: s.FailedUnknown, Unknown: s.Unknown, Opened: s.Opened, Clicked: s.Clicked,
		Unsubscribed:        s.Unsubscribed,
		AcceptToSentMS:      api.Quantiles{P50: s.SentP50.Milliseconds(), P95: s.SentP95.Milliseconds()},
		AcceptToDeliveredMS: api.Quantiles{P50: s.DeliveredP50.Milliseconds(), P95: s.DeliveredP95.Milliseconds()},
	}
	for class, n := range s.Bounced {
		out.Bounced[string(class)] = n
	}
	return out
}
