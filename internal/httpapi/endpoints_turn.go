package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

const (
	defaultOverlap = 24 * time.Hour
	maxOverlap     = 7 * 24 * time.Hour
	maxReplay      = 31 * 24 * time.Hour
	replayWait     = 50 * time.Second // less than answerTime

	// These are per replica. One tenant alone may have one of the replays and half of the tests at a time.
	replaysAtOnce = 3
	testsAtOnce   = 16
)

// rotateEndpoint answers with the new secret, which is never shown again.
func (s *Server) rotateEndpoint(r *http.Request, in api.WebhookRotateRequest) (out api.WebhookEndpoint, err error) {
	id, err := pathID(r, noEndpoint)
	if err != nil {
		return out, err
	}
	overlap, err := overlapOf(in.OverlapSeconds)
	if err != nil {
		return out, err
	}
	secret := newWebhookSecret()
	e, err := s.webhooks.Endpoints.RotateEndpoint(r.Context(), principal(r).ID, principal(r).Tenant, id, secret, overlap)
	if err != nil {
		return out, missing(err, noEndpoint)
	}
	out = endpointView(e)
	out.Secret = secret.Reveal()
	return out, nil
}

// overlapOf returns how long a rotated key or secret stays valid beside the new one.
func overlapOf(seconds *int) (time.Duration, error) {
	switch {
	case seconds == nil:
		return defaultOverlap, nil
	case *seconds < 0 || *seconds > int(maxOverlap/time.Second):
		return 0, invalid("overlap_seconds", "out_of_range", "must be 0 to 604800")
	}
	return time.Duration(*seconds) * time.Second, nil
}

// replayEndpoint queues past events. A span that takes too long is a 503; events queued by then stay queued.
func (s *Server) replayEndpoint(r *http.Request, in api.WebhookReplayRequest) (out api.WebhookReplayResult, err error) {
	id, err := pathID(r, noEndpoint)
	if err != nil {
		return out, err
	}
	until := s.clock()
	if in.Until != nil && in.Until.Before(until) {
		until = *in.Until
	}
	switch {
	case in.Since.Year() < 1970:
		return out, invalid("since", "missing", "must say from when on")
	case !in.Since.Before(until):
		return out, invalid("since", "out_of_range", "must be before until, and in the past")
	case until.Sub(in.Since) > maxReplay:
		return out, invalid("since", "out_of_range", "must be at most 31 days before until")
	}
	place := s.replays.take(holder{tenant: principal(r).Tenant}, 1, nil)
	if place == nil {
		return out, &record.Unavailable{Reason: "busy", RetryAfter: 5 * time.Second}
	}
	defer place.release()
	ctx, cancel := context.WithTimeout(r.Context(), replayWait)
	defer cancel()
	out.Queued, err = s.webhooks.Endpoints.ReplayEndpoint(ctx, principal(r).ID, principal(r).Tenant, id, in.Since, until)
	return out, missing(err, noEndpoint)
}

// testEndpoint sends an example event and waits for the result.
func (s *Server) testEndpoint(r *http.Request) (out api.WebhookDelivery, err error) {
	id, err := pathID(r, noEndpoint)
	if err != nil {
		return out, err
	}
	place := s.tests.take(holder{tenant: principal(r).Tenant}, 1, nil)
	if place == nil {
		return out, &record.Unavailable{Reason: "busy", RetryAfter: 5 * time.Second}
	}
	defer place.release()
	result, err := s.webhooks.TestDelivery.Test(r.Context(), principal(r).Tenant, id)
	return deliveryView(&record.DeliveryEntry{ID: result.Event, DeliveryResult: result}), missing(err, noEndpoint)
}

func (s *Server) listDeliveries(r *http.Request) (out api.WebhookDeliveryPage, err error) {
	id, err := pathID(r, noEndpoint)
	if err != nil {
		return out, err
	}
	q := readQuery(r, "limit", "cursor")
	limit := q.limit() + 1
	l := listing{name: "deliveries", tenant: principal(r).Tenant, filter: id.String()}
	before := position(q, s.cursors, l, mail.ParseID)
	if err := q.err(); err != nil {
		return out, err
	}
	rows, err := s.webhooks.Endpoints.Deliveries(r.Context(), l.tenant, id, before, limit)
	out = pageOf(s.cursors, l, rows, limit, func(d *record.DeliveryEntry) string { return d.ID.String() }, deliveryView)
	return out, missing(err, noEndpoint)
}

func deliveryView(d *record.DeliveryEntry) api.WebhookDelivery {
	return api.WebhookDelivery{
		ID: d.ID.String(), EventID: d.Event.String(), Try: d.N, At: d.At, TookMS: max(d.Took.Milliseconds(), 0),
		Status: d.Status, Outcome: d.Outcome, Error: d.Error,
	}
}
