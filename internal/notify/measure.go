package notify

import (
	"slices"

	"github.com/sendgate/sendgate/internal/incident"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// count adds what was reported to the counters. Only the replica that watches counts, so the sum over all is right.
func (e *Engine) count(c *route.Config, counted record.Counted) {
	streams := c.Streams()
	for i := range c.Accounts {
		e.Metrics.KnowReports(c.Accounts[i].Name, streams, []string{string(mail.Hard), string(mail.Soft), string(mail.PolicyClass)})
	}
	for _, d := range counted.Delivered {
		e.Metrics.DeliveredSeconds.WithLabelValues(d.Account).Observe(d.After.Seconds())
	}
	for i := range counted.Outcomes {
		o := &counted.Outcomes[i]
		stream := c.KnownStream(o.Stream)
		switch mail.EventType(o.Type) { //nolint:exhaustive // the store counts no others
		case mail.EventDelivered:
			e.Metrics.Delivered.WithLabelValues(o.Account, stream).Add(float64(o.N))
		case mail.EventBounced:
			e.Metrics.Bounced.WithLabelValues(o.Account, stream, bounceClass(o.Bounce)).Add(float64(o.N))
		case mail.EventComplained:
			e.Metrics.Complained.WithLabelValues(o.Account, stream).Add(float64(o.N))
		case mail.EventUnsubscribed:
			e.Metrics.Unsubscribed.WithLabelValues(o.Account, stream).Add(float64(o.N))
		}
	}
}

// bounceClass is the class of a bounce as a label. A bounce without one is hard, as in the statistics.
func bounceClass(class string) string {
	if c := mail.BounceClass(class); c == mail.Soft || c == mail.PolicyClass {
		return class
	}
	return string(mail.Hard)
}

// measure sets the figures that only the replica that watches has.
func (e *Engine) measure(f *incident.Facts, found []incident.Finding, now []incident.Incident) {
	m := e.Metrics
	m.QueueAge.Reset()
	m.QueueAge.WithLabelValues().Set(f.QueueAge.Seconds())
	m.DeliveriesPending.WithLabelValues().Set(float64(f.Pending))
	m.LimitUsed.Reset()
	m.WebhooksSilent.Reset()
	for i := range f.Accounts {
		a := &f.Accounts[i]
		for _, s := range a.Limits {
			m.LimitUsed.WithLabelValues(a.Name, s.Window.String()).Set(float64(s.Used) / float64(max(s.Window.N, 1)))
		}
		silent := slices.ContainsFunc(found, func(f incident.Finding) bool { return f.Kind == incident.WebhooksSilent && f.Account == a.Name })
		m.WebhooksSilent.WithLabelValues(a.Name).Set(map[bool]float64{true: 1}[silent])
	}
	open := map[incident.Kind]int{}
	for i := range now {
		if !now[i].Began.IsZero() && now[i].Ended.IsZero() {
			open[now[i].Kind]++
		}
	}
	for _, kind := range incident.Kinds() {
		m.Incidents.WithLabelValues(string(kind)).Set(float64(open[kind]))
	}
}
