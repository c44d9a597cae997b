package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
)

// Metrics is everything that sendgate counts. All fields are safe for concurrent use. Label values are closed sets:
// kind, class and the values named at each field, routes as chi patterns, and account names.
type Metrics struct {
	Accepted      *prometheus.CounterVec   // result: accepted, replayed, invalid, conflict, unavailable, unknown, failed
	AcceptSeconds prometheus.Histogram     // from the checked message to the end of its commit
	HTTPRequests  *prometheus.CounterVec   // route, code
	HTTPSeconds   *prometheus.HistogramVec // route

	Attempts     *prometheus.CounterVec   // account, kind, class
	CallSeconds  *prometheus.HistogramVec // kind; one provider call
	Claimed      prometheus.Counter       // messages taken under a lease
	ClaimSeconds prometheus.Histogram     // one claim statement
	SlotsGranted *prometheus.CounterVec   // account
	SlotsUsed    *prometheus.CounterVec   // account; a call was made
	SlotsDropped *prometheus.CounterVec   // account; granted but not used for a call

	ReadyDepth prometheus.Gauge // messages due
	DeadRows   prometheus.Gauge // rows of the queue that the server has not cleaned up yet, all replicas
	Inflight   prometheus.Gauge // calls running in this process
	Unknown    prometheus.Gauge // messages whose outcome is not known, all replicas

	UnknownTotal     *prometheus.CounterVec   // kind, cause: answer, timeout, broken; attempts that ended Uncertain
	Resolved         *prometheus.CounterVec   // by: webhook, lookup, deadline, rescue, operator; verdict: sent, failed, resent
	Rescued          *prometheus.CounterVec   // kind: unstarted, started; attempts taken over from a dead lease
	DuplicateAccepts prometheus.Counter       // messages that turned out to be accepted twice
	BreakerState     *prometheus.GaugeVec     // account; 0 closed, 1 half open, 2 open
	Parked           *prometheus.GaugeVec     // account; 1 while it, or a sender on it, is parked
	BatchSize        *prometheus.HistogramVec // batch: accept, intent, record, events; rows in one transaction

	HookRequests *prometheus.CounterVec // account, result: stored, refused, unavailable, busy
	HookEvents   *prometheus.CounterVec // account, result: stored, duplicate, orphan, foreign, unmapped
	Lookups      *prometheus.CounterVec // kind, result: found, absent, unclear, failed
	Deliveries   *prometheus.CounterVec // outcome: delivered, retry, failed, disabled
	Streams      prometheus.Gauge       // event streams that are open in this process

	Sent        *prometheus.CounterVec   // account, stream; recipients that a provider took
	SentSeconds *prometheus.HistogramVec // account; from acceptance, or send_at, until a provider took the message
	Failovers   *prometheus.CounterVec   // account; messages that it took after another account failed them
	Suppressed  *prometheus.CounterVec   // stream; recipients that were suppressed at acceptance
	Paused      *prometheus.GaugeVec     // account; 1 while an operator has paused it

	// The replica that watches for incidents has these; the others do not. Streams are those that the configuration names.
	Delivered         *prometheus.CounterVec   // account, stream; recipients, as the provider reports
	Bounced           *prometheus.CounterVec   // account, stream, class: hard, soft, policy
	Complained        *prometheus.CounterVec   // account, stream
	Unsubscribed      *prometheus.CounterVec   // account, stream
	DeliveredSeconds  *prometheus.HistogramVec // account; from when the provider took a message until it was delivered
	DeliveriesPending *prometheus.GaugeVec     // deliveries to webhook endpoints that wait
	QueueAge          *prometheus.GaugeVec     // how long the oldest message waits, in seconds
	LimitUsed         *prometheus.GaugeVec     // account, limit; from 0 to 1
	WebhooksSilent    *prometheus.GaugeVec     // account; 1 while it sends and no events come
	Incidents         *prometheus.GaugeVec     // kind; incidents that last
	Notices           *prometheus.CounterVec   // channel; outcome: told, again, given_up

	Booked     *prometheus.GaugeVec // state: ready, unstarted, started, unknown; open messages at the last check of the books
	Violations *prometheus.GaugeVec // kind: queue.ViolationKinds; contradictions that this check found
	BooksAt    prometheus.Gauge     // when this process checked the books last, in Unix seconds
	UnknownAge prometheus.Gauge     // how long the oldest unknown message has been unknown, in seconds
}

// Label values of the fixed sets.
const (
	BatchAccept      = "accept"
	BatchIntent      = "intent"
	BatchRecord      = "record"
	BatchEvents      = "events"
	RescuedUnstarted = "unstarted"
	RescuedStarted   = "started"
)

const namespace = "sendgate"

// New makes the metrics and registers them. It panics if reg already has them, because two sets in one registry would hide
// each other.
func New(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		Accepted:      counters("accepted_total", "Messages submitted, those of batches each, by what their sender was told.", "result"),
		AcceptSeconds: histogram("accept_seconds", "Time to make an accepted message durable.", fast()),
		HTTPRequests:  counters("http_requests_total", "Requests answered.", "route", "code"),
		HTTPSeconds:   histograms("http_seconds", "Time to answer a request.", fast(), "route"),
		Attempts:      counters("attempts_total", "Provider calls by outcome.", "account", "kind", "class"),
		CallSeconds:   histograms("call_seconds", "Duration of one provider call.", slow(), "kind"),
		Claimed:       counter("claimed_total", "Messages claimed."),
		ClaimSeconds:  histogram("claim_seconds", "Time of one claim.", fast()),
		SlotsGranted:  counters("slots_granted_total", "Slots taken from the shared limits.", "account"),
		SlotsUsed:     counters("slots_used_total", "Slots that a call was made with.", "account"),
		SlotsDropped:  counters("slots_dropped_total", "Slots granted and never used.", "account"),
		ReadyDepth:    gauge("ready_depth", "Messages that are due and wait."),
		DeadRows:      gauge("queue_dead_rows", "Rows that left the queue and are not cleaned up yet, estimated."),
		Inflight:      gauge("inflight", "Provider calls running in this process."),
		Unknown:       gauge("unknown", "Messages whose outcome is not known."),
		UnknownTotal:  counters("unknown_total", "Calls that ended without a verdict.", "kind", "cause"),
		Resolved:      counters("resolved_total", "Unknown messages settled.", "by", "verdict"),
		Rescued:       counters("rescued_total", "Attempts taken over from a dead replica.", "kind"),
		BreakerState:  gauges("breaker_state", "0 closed, 1 half open, 2 open.", "account"),
		Parked:        gauges("parked", "1 while the account, or a sender on it, is parked.", "account"),
		BatchSize:     histograms("batch_size", "Rows in one batched transaction.", sizes(), "batch"),
	}
	m.HookRequests = counters("hook_requests_total", "Requests of providers by result.", "account", "result")
	m.HookEvents = counters("hook_events_total", "Events of providers by what became of them.", "account", "result")
	m.Lookups = counters("lookups_total", "Look-ups of unknown messages at their provider.", "kind", "result")
	m.Deliveries = counters("deliveries_total", "Tries to tell a webhook endpoint.", "outcome")
	m.Streams = gauge("event_streams", "Event streams that are open.")
	m.DuplicateAccepts = counter("duplicate_accepts_total", "Messages that turned out to be accepted twice.")
	m.Sent = counters("sent_total", "Recipients whose mail a provider took.", "account", "stream")
	m.SentSeconds = histograms("sent_seconds", "Time from acceptance, or from send_at, until a provider took the message.", waits(), "account")
	m.Failovers = counters("failovers_total", "Messages that the account took after another one failed them.", "account")
	m.Suppressed = counters("suppressed_total", "Recipients that were suppressed at acceptance.", "stream")
	m.Paused = gauges("paused", "1 while an operator has paused the account.", "account")
	m.Delivered = counters("delivered_total", "Recipients whose mail was delivered, as their provider reports.", "account", "stream")
	m.Bounced = counters("bounced_total", "Recipients whose mail bounced, by class.", "account", "stream", "class")
	m.Complained = counters("complained_total", "Recipients who complained.", "account", "stream")
	m.Unsubscribed = counters("unsubscribed_total", "Recipients who unsubscribed at their provider.", "account", "stream")
	m.DeliveredSeconds = histograms("delivered_seconds", "Time from when a provider took a message until it was delivered, by its report; a sample if there are many.", waits(), "account")
	m.DeliveriesPending = gauges("deliveries_pending", "Events that wait for a webhook endpoint, counted up to 100,000.")
	m.QueueAge = gauges("queue_age_seconds", "For how long the oldest message waits that is due or was put off.")
	m.LimitUsed = gauges("limit_used_ratio", "How much of a limit is used, from 0 to 1.", "account", "limit")
	m.WebhooksSilent = gauges("webhooks_silent", "1 while the account sends and its provider reports nothing.", "account")
	m.Incidents = gauges("incidents", "Incidents that last.", "kind")
	m.Notices = counters("notices_total", "Tries to tell an incident by a notify rule.", "channel", "outcome")
	m.Booked = gauges("booked_messages", "Open messages by state when the books were last checked, all replicas.", "state")
	m.Violations = gauges("invariant_violations", "Contradictions in the books when they were last checked. Anything but 0 is an alarm.", "kind")
	m.BooksAt = gauge("books_checked_timestamp_seconds", "When this process last checked the books.")
	m.UnknownAge = gauge("unknown_age_seconds", "For how long the oldest unknown message has been unknown.")
	reg.MustRegister(m.all()...)
	m.zero()
	return m
}

// Know makes the counters of an account, so that the first event raises them from 0: an increase over a series that did not
// exist is not seen.
func (m *Metrics) Know(account, kind string, classes, streams []string) {
	for _, class := range classes {
		m.Attempts.WithLabelValues(account, kind, class)
	}
	for _, stream := range streams {
		m.Sent.WithLabelValues(account, stream)
	}
	for _, cause := range []string{"answer", "timeout", "broken"} {
		m.UnknownTotal.WithLabelValues(kind, cause)
	}
	m.Failovers.WithLabelValues(account)
}

// KnowReports is Know for what the replica that watches counts.
func (m *Metrics) KnowReports(account string, streams, bounces []string) {
	for _, stream := range streams {
		m.Delivered.WithLabelValues(account, stream)
		m.Complained.WithLabelValues(account, stream)
		m.Unsubscribed.WithLabelValues(account, stream)
		for _, class := range bounces {
			m.Bounced.WithLabelValues(account, stream, class)
		}
	}
}

// AcceptedTotal returns how many messages this process has accepted.
func (m *Metrics) AcceptedTotal() float64 { return valueOf(m.Accepted.WithLabelValues("accepted")) }

// SentTotal returns how many messages the provider of an account has accepted from this process.
func (m *Metrics) SentTotal(account, kind string) float64 {
	return valueOf(m.Attempts.WithLabelValues(account, kind, "accepted"))
}

func valueOf(c prometheus.Counter) float64 {
	var d dto.Metric
	if err := c.Write(&d); err != nil { // never for a counter
		return 0
	}
	return d.GetCounter().GetValue()
}

// Forget drops the series of an account that was deleted.
func (m *Metrics) Forget(account string) {
	label := prometheus.Labels{"account": account}
	m.Attempts.DeletePartialMatch(label)
	m.SlotsGranted.DeletePartialMatch(label)
	m.SlotsUsed.DeletePartialMatch(label)
	m.SlotsDropped.DeletePartialMatch(label)
	m.BreakerState.DeletePartialMatch(label)
	m.Parked.DeletePartialMatch(label)
	m.HookRequests.DeletePartialMatch(label)
	m.HookEvents.DeletePartialMatch(label)
	m.Sent.DeletePartialMatch(label)
	m.SentSeconds.DeletePartialMatch(label)
	m.Failovers.DeletePartialMatch(label)
	m.Paused.DeletePartialMatch(label)
	m.Delivered.DeletePartialMatch(label)
	m.DeliveredSeconds.DeletePartialMatch(label)
	m.Bounced.DeletePartialMatch(label)
	m.Complained.DeletePartialMatch(label)
	m.Unsubscribed.DeletePartialMatch(label)
	m.LimitUsed.DeletePartialMatch(label)
	m.WebhooksSilent.DeletePartialMatch(label)
}

// Unwatched drops the gauges of the replica that watches for incidents: another one has them now. Its counters stay.
func (m *Metrics) Unwatched() {
	m.DeliveriesPending.Reset()
	m.QueueAge.Reset()
	m.LimitUsed.Reset()
	m.WebhooksSilent.Reset()
	m.Incidents.Reset()
}

// NewRegistry returns a registry with the metrics of the Go runtime, the process and the build.
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	return reg
}

// all lists all metrics, to register them.
func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.Accepted, m.AcceptSeconds, m.HTTPRequests, m.HTTPSeconds, m.Attempts, m.CallSeconds, m.Claimed, m.ClaimSeconds,
		m.SlotsGranted, m.SlotsUsed, m.SlotsDropped, m.ReadyDepth, m.DeadRows, m.Inflight, m.Unknown, m.UnknownTotal, m.Resolved, m.Rescued,
		m.BreakerState, m.Parked, m.BatchSize, m.HookRequests, m.HookEvents, m.Lookups, m.Deliveries, m.Streams,
		m.DuplicateAccepts, m.Booked, m.Violations, m.BooksAt, m.UnknownAge,
		m.Sent, m.SentSeconds, m.Failovers, m.Suppressed, m.Paused, m.Delivered, m.Bounced, m.Complained, m.Unsubscribed,
		m.DeliveredSeconds, m.DeliveriesPending, m.QueueAge, m.LimitUsed, m.WebhooksSilent, m.Incidents, m.Notices,
	}
}

// zero makes the series of the fixed sets, so that a rate over them exists before the first event.
func (m *Metrics) zero() {
	for _, channel := range []string{"webhook", "slack", "mail"} {
		for _, outcome := range []string{"told", "again", "given_up"} {
			m.Notices.WithLabelValues(channel, outcome)
		}
	}
	for _, result := range []string{"accepted", "replayed", "invalid", "conflict", "unavailable", "unknown", "failed"} {
		m.Accepted.WithLabelValues(result)
	}
	for _, batch := range []string{BatchAccept, BatchIntent, BatchRecord, BatchEvents} {
		m.BatchSize.WithLabelValues(batch)
	}
	for _, kind := range []string{RescuedUnstarted, RescuedStarted} {
		m.Rescued.WithLabelValues(kind)
	}
}

// fast covers work that should take milliseconds: 0.5 ms to 10 s.
func fast() []float64 {
	return []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}
}

// slow covers a call over the internet: 5 ms to 60 s.
func slow() []float64 { return []float64{.005, .01, .025, .05, .1, .2, .5, 1, 2, 5, 10, 20, 30, 60} }

// waits covers the time that a message may wait: 10 ms to a day.
func waits() []float64 {
	return []float64{.01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400}
}

// sizes covers batches of 1 to 1,024 rows.
func sizes() []float64 { return prometheus.ExponentialBuckets(1, 2, 11) }

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
}

func gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
}

func histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(
		prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
}
