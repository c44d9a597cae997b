package esphttp_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestByStatusCoversEveryStatus(t *testing.T) {
	t.Parallel()
	named := map[int]provider.Class{
		401: provider.Misconfigured, 402: provider.Misconfigured, 403: provider.Misconfigured, 404: provider.Misconfigured,
		405: provider.Misconfigured, 406: provider.Misconfigured, 407: provider.Misconfigured, 415: provider.Misconfigured,
		426: provider.Misconfigured, 408: provider.Transient, 421: provider.Transient, 425: provider.Transient,
		429: provider.Throttled, 503: provider.Transient, 303: provider.Uncertain,
	}
	ranges := func(status int) provider.Class {
		switch {
		case status >= 100 && status < 200, status >= 300 && status < 400:
			return provider.Misconfigured
		case status >= 200 && status < 300:
			return provider.Accepted
		case status >= 400 && status < 500:
			return provider.Rejected
		default:
			return provider.Uncertain
		}
	}
	for status := -1; status < 1000; status++ {
		want, ok := named[status]
		if !ok {
			want = ranges(status)
		}
		if got := esphttp.ByStatus(status); got != want {
			t.Errorf("ByStatus(%d) = %s, want %s", status, got, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"7":                             7 * time.Second,
		" 90 ":                          90 * time.Second,
		"-5":                            0,
		"1.5":                           0,
		"soon":                          0,
		"86401":                         esphttp.MaxRetryAfter,
		strings.Repeat("9", 40):         esphttp.MaxRetryAfter,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2026 03:04:04 GMT": 0,
		"Fri, 02 Jan 2099 03:04:04 GMT": esphttp.MaxRetryAfter,
	} {
		h := http.Header{}
		h.Set("Retry-After", value)
		if got := esphttp.RetryAfter(h, now); got != want {
			t.Errorf("RetryAfter(%q) = %s, want %s", value, got, want)
		}
	}
	if got := esphttp.RetryAfter(nil, now); got != 0 {
		t.Errorf("RetryAfter without a header = %s, want 0", got)
	}
}

func TestFailSeesTrustFailuresAsOurConfiguration(t *testing.T) {
	t.Parallel()
	c := esphttp.New(esphttp.Options{})
	for _, cause := range []error{
		x509.UnknownAuthorityError{},
		x509.HostnameError{Certificate: &x509.Certificate{}, Host: "api.example.com"},
		x509.CertificateInvalidError{Reason: x509.Expired},
		&tls.CertificateVerificationError{Err: errors.New("no")},
	} {
		_, tr := esphttp.Track(t.Context())
		err := &url.Error{Op: "Post", URL: "https://api.example.com/x", Err: fmt.Errorf("handshake: %w", cause)}
		if got := c.Fail(tr, err).Class; got != provider.Misconfigured {
			t.Errorf("Fail(%T) = %s, want misconfigured", cause, got)
		}
	}
}

func TestFailKeepsTheCauseAndDropsQueryAndUser(t *testing.T) {
	t.Parallel()
	c := esphttp.New(esphttp.Options{Secrets: []seal.Secret{seal.NewSecret("hunter2")}})
	_, tr := esphttp.Track(t.Context())
	err := c.Fail(tr, &url.Error{
		Op: "Post", URL: "https://api:hunter2@api.example.com/v3/send?to=ann@example.org", Err: context.DeadlineExceeded,
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error("the cause is not in the chain")
	}
	want := "post https://api.example.com/v3/send: context deadline exceeded"
	if err.Detail != want {
		t.Errorf("Detail = %q, want %q", err.Detail, want)
	}
	if text := fmt.Sprintf("%v %+v %+v", err, err, *err); strings.Contains(text, "hunter2") || strings.Contains(text, "ann@") {
		t.Errorf("error text leaks: %s", text)
	}
}

func TestFailWithoutAnErrorIsNoAcceptance(t *testing.T) {
	t.Parallel()
	_, tr := esphttp.Track(t.Context())
	if got := esphttp.New(esphttp.Options{}).Fail(tr, nil); got.Class == provider.Accepted || got.Class == "" {
		t.Errorf("Fail(nil) = %v", got)
	}
}
