package httpapi

import (
	"net/http"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

const (
	defaultStatsSpan = 24 * time.Hour
	maxStatsSpan     = 31 * 24 * time.Hour
	statsAtOnce      = 3 // per replica, 1 per tenant: counting is expensive, and others need the database too
)

// getStats counts the recipients of the tenant's messages, by account, stream or domain.
func (s *Server) getStats(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(r, "by", "since", "until", "limit")
	if err != nil {
		return err
	}
	f := record.StatsFilter{Tenant: principal(r).Tenant, By: q.statsKey(), Limit: q.limit()}
	f.Since, f.Until = q.span(s.clock().UTC())
	if err := q.err(); err != nil {
		return err
	}
	place := s.stats.take(holder{tenant: f.Tenant}, 1, nil)
	if place == nil {
		return &record.Unavailable{Reason: "busy", RetryAfter: time.Second}
	}
	defer place.release()
	lines, err := s.store.Stats(r.Context(), f)
	if err != nil {
		return err
	}
	out := api.Stats{By: f.By, Since: f.Since, Until: f.Until, Data: make([]api.Stat, 0, len(lines))}
	for i := range lines {
		out.Data = append(out.Data, statView(&lines[i]))
	}
	return writeJSON(w, http.StatusOK, out)
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
