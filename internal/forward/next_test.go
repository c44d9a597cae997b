package forward

import (
	"math"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func TestNext(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	tests := map[string]struct {
		n       int
		failing time.Duration // how long
		status  int
		after   time.Duration
		err     string
		want    record.DeliveryResult // Outcome, Error, RetryIn, Disable
	}{
		"200":              {n: 1, status: 200, want: record.DeliveryResult{Outcome: record.DeliveryDone}},
		"204":              {n: 9, failing: 9 * day, status: 204, want: record.DeliveryResult{Outcome: record.DeliveryDone}},
		"299":              {n: 1, status: 299, want: record.DeliveryResult{Outcome: record.DeliveryDone}},
		"199 is no answer": {n: 1, status: 199, want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "not a 2xx", RetryIn: 5 * time.Second}},
		"301":              {n: 1, status: 301, want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "redirects are not followed", RetryIn: 5 * time.Second}},
		"304":              {n: 1, status: 304, want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "redirects are not followed", RetryIn: 5 * time.Second}},
		"400":              {n: 1, status: 400, want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "Bad Request", RetryIn: 5 * time.Second}},
		"500, second try":  {n: 2, failing: day, status: 500, want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "Internal Server Error", RetryIn: 5 * time.Minute}},
		"no answer":        {n: 3, err: "no answer in time", want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "no answer in time", RetryIn: 30 * time.Minute}},
		"fourth":           {n: 4, status: 500, want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "Internal Server Error", RetryIn: 2 * time.Hour}},
		"fifth":            {n: 5, status: 500, want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "Internal Server Error", RetryIn: 5 * time.Hour}},
		"sixth":            {n: 6, status: 500, want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "Internal Server Error", RetryIn: 10 * time.Hour}},
		"seventh":          {n: 7, status: 500, want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "Internal Server Error", RetryIn: 14 * time.Hour}},
		"eighth":           {n: 8, status: 500, want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "Internal Server Error", RetryIn: 20 * time.Hour}},
		"ninth":            {n: 9, status: 500, want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "Internal Server Error", RetryIn: 24 * time.Hour}},
		"the last":         {n: 10, status: 500, want: record.DeliveryResult{Outcome: record.DeliveryFailed, Error: "Internal Server Error"}},
		"after the last":   {n: 11, status: 500, after: time.Hour, want: record.DeliveryResult{Outcome: record.DeliveryFailed, Error: "Internal Server Error"}},

		"asks for more time": {n: 1, status: 429, after: time.Hour, want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "Too Many Requests", RetryIn: time.Hour}},
		"asks for less":      {n: 2, status: 503, after: time.Second, want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "Service Unavailable", RetryIn: 5 * time.Minute}},
		"asks for a year":    {n: 1, status: 503, after: 365 * day, want: record.DeliveryResult{Outcome: record.DeliveryRetry, Error: "Service Unavailable", RetryIn: day}},

		"gone": {n: 1, status: 410, after: time.Hour, want: record.DeliveryResult{
			Outcome: record.DeliveryDisabled, Error: "Gone", Disable: "the endpoint answered 410 Gone",
		}},
		"five days of failures": {n: 2, failing: 5 * day, status: 500, want: record.DeliveryResult{
			Outcome: record.DeliveryDisabled, Error: "Internal Server Error", Disable: "nothing but failures for 5 days",
		}},
		"five days, no answer": {n: 10, failing: 6 * day, err: "x", want: record.DeliveryResult{
			Outcome: record.DeliveryDisabled, Error: "x", Disable: "nothing but failures for 5 days",
		}},
		"five days, first try": {n: 1, failing: 50 * day, status: 500, want: record.DeliveryResult{
			Outcome: record.DeliveryRetry, Error: "Internal Server Error", RetryIn: 5 * time.Second,
		}},
		"almost five days": {n: 2, failing: 5*day - time.Second, status: 500, want: record.DeliveryResult{
			Outcome: record.DeliveryRetry, Error: "Internal Server Error", RetryIn: 5 * time.Minute,
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &record.Delivery{Endpoint: record.Endpoint{ID: mail.NewID()}, Event: mail.Event{ID: mail.NewID()}, N: tt.n}
			if tt.failing > 0 {
				d.Endpoint.FailingSince = at.Add(-tt.failing)
			}
			want := tt.want
			want.Endpoint, want.Event, want.N, want.At, want.Took, want.Status = d.Endpoint.ID, d.Event.ID, tt.n, at, time.Second, tt.status
			got := next(d, answer{at: at, took: time.Second, status: tt.status, retryAfter: tt.after, err: tt.err}, .5)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("next (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJitterIsAFifthEitherWay(t *testing.T) {
	t.Parallel()
	if low, high := wait(2, 0, 0), wait(2, 0, math.Nextafter(1, 0)); low != 4*time.Minute || high < 359*time.Second || high > 6*time.Minute {
		t.Errorf("five minutes are %s to %s, want 4m to 6m", low, high)
	}
	if got := wait(1, time.Minute, 1); got != time.Minute {
		t.Errorf("what the endpoint asked for became %s", got)
	}
}

func TestAllTriesTakeAboutThreeDays(t *testing.T) {
	t.Parallel()
	var all time.Duration
	for n := range delays {
		all += wait(n+1, 0, .5)
	}
	if want := 75*time.Hour + 35*time.Minute + 5*time.Second; all != want {
		t.Errorf("tries go on for %s, want %s", all, want)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tests := map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "-5": 0, "1.5": 0, "soon": 0, "99999999999999999999": 0, "2147483647": 2147483647 * time.Second,
		now.Add(time.Hour).Format(http.TimeFormat): time.Hour, now.Add(-time.Hour).Format(http.TimeFormat): 0,
	}
	for v, want := range tests {
		if got := retryAfter(v, now); got != want {
			t.Errorf("retryAfter(%q) = %s, want %s", v, got, want)
		}
	}
}

// FuzzRetryAfter: whatever an endpoint writes there, the wait stays within its bounds.
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "5", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "9223372036"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		got := wait(1, retryAfter(v, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)), 0)
		if got < 4*time.Second || got > maxRetryAfter {
			t.Errorf("%q makes us wait %s", v, got)
		}
	})
}
