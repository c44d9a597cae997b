package forward

import (
	"net/http"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// delays are the waits after each failed try except the last: about 75 hours in all, as Standard Webhooks recommends.
var delays = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour,
	20 * time.Hour, 24 * time.Hour,
}

const (
	maxRetryAfter = 24 * time.Hour
	patience      = 5 * 24 * time.Hour // with only failures, before an endpoint is disabled
)

// answer is the outcome of one try.
type answer struct {
	at         time.Time
	took       time.Duration
	status     int           // HTTP status, 0 when no answer came
	retryAfter time.Duration // that the endpoint asked for
	err        string        // why there is no status
}

// next decides what becomes of a delivery after a try. It is pure; jitter is a number in [0, 1), which moves the wait by
// at most a fifth either way. Only a 2xx is success. A redirect is a failure, because it leads to a place that nobody checked.
// 410 says that the endpoint is gone for good.
func next(d *record.Delivery, a answer, jitter float64) record.DeliveryResult {
	r := record.DeliveryResult{
		Endpoint: d.Endpoint.ID, Event: d.Event.ID, N: d.N, At: a.at, Took: a.took, Status: a.status, Error: a.err,
	}
	if a.status >= 200 && a.status < 300 {
		r.Outcome = record.DeliveryDone
		return r
	}
	if r.Error == "" {
		r.Error = reason(a.status)
	}
	failing := d.Endpoint.FailingSince
	switch {
	case a.status == http.StatusGone:
		r.Outcome, r.Disable = record.DeliveryDisabled, "the endpoint answered 410 Gone"
	case d.N > 1 && !failing.IsZero() && a.at.Sub(failing) >= patience: // d.N > 1: not for the first failure after a long silence
		r.Outcome, r.Disable = record.DeliveryDisabled, "nothing but failures for 5 days"
	case d.N > len(delays):
		r.Outcome = record.DeliveryFailed
	default:
		r.Outcome, r.RetryIn = record.DeliveryRetry, wait(d.N, a.retryAfter, jitter)
	}
	return r
}

// wait is the time until the next try. The endpoint may ask for more than the schedule says, up to a day, but not for less.
func wait(n int, retryAfter time.Duration, jitter float64) time.Duration {
	planned := time.Duration(float64(delays[n-1]) * (0.8 + 0.4*jitter))
	return max(planned, min(retryAfter, maxRetryAfter))
}

// reason says what was wrong with an answer.
func reason(status int) string {
	if status >= 300 && status < 400 {
		return "redirects are not followed"
	}
	if text := http.StatusText(status); text != "" {
		return text
	}
	return "not a 2xx"
}
