package esphttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/provider"
)

// MaxRetryAfter caps the wait that a provider may ask for.
const MaxRetryAfter = 24 * time.Hour

// NotTheirs is the text that adapters report for an answer without their provider's documented form. The body is not reported: a
// base_url may lead to another service, whose answers are not for readers of mail logs.
const NotTheirs = "an answer that is not in the provider's form"

// ByStatus is the class of an HTTP status (RFC 9110 section 15) if the provider's own code says nothing. Accepted only means that
// the status is 2xx; the adapter checks whether the body holds an acceptance. A status that can come after the message was
// taken is Uncertain.
func ByStatus(status int) provider.Class {
	switch {
	case status == http.StatusSeeOther:
		return provider.Uncertain // the outcome of the action is at another address, section 15.4.4
	case status >= 100 && status < 200, status >= 300 && status < 400:
		return provider.Misconfigured // no send API redirects: the base URL is wrong
	case status >= 200 && status < 300:
		return provider.Accepted
	}
	switch status {
	case http.StatusTooManyRequests:
		return provider.Throttled
	case http.StatusServiceUnavailable,
		http.StatusRequestTimeout,     // the request did not arrive completely, section 15.5.9
		http.StatusMisdirectedRequest, // wrong connection, section 15.5.20
		http.StatusTooEarly:           // not processed, RFC 8470 section 5.2
		return provider.Transient
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden, http.StatusNotFound,
		http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusProxyAuthRequired,
		http.StatusUnsupportedMediaType, http.StatusUpgradeRequired:
		return provider.Misconfigured
	}
	if status >= 400 && status < 500 {
		return provider.Rejected
	}
	return provider.Uncertain
}

// RetryAfter reads the Retry-After header (RFC 9110 section 10.2.3), seconds or a date. It returns 0 if there is no valid one,
// never less, and at most MaxRetryAfter.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0
	}
	if strings.Trim(v, "0123456789") == "" {
		s, err := strconv.ParseInt(v, 10, 64)
		if err != nil || s > int64(MaxRetryAfter/time.Second) {
			return MaxRetryAfter
		}
		return time.Duration(s) * time.Second
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), MaxRetryAfter)
}

// Fail turns a call without a verdict into an Error. If nothing was written, it is Transient, or Misconfigured if the server's
// certificate can't be trusted or the address is forbidden. If something may have been written, it is Uncertain. The text holds
// no secret and no query.
func (c *Client) Fail(tr *Trace, err error) *provider.Error {
	if err == nil {
		err = errNoVerdict
	}
	detail := c.Scrub(words(err))
	return &provider.Error{Class: failClass(tr, err), Detail: detail, Err: &scrubbedError{text: detail, err: err}}
}

var errNoVerdict = errors.New("no verdict from the provider")

// failClass is the class of a call without a verdict, as Fail documents it.
func failClass(tr *Trace, err error) provider.Class {
	switch {
	case tr.Wrote() && !peerDisowned(err):
		return provider.Uncertain
	case badCertificate(err), errors.Is(err, jail.ErrForbidden):
		return provider.Misconfigured
	default:
		return provider.Transient
	}
}

// peerDisowned reports whether the peer confirmed that it did nothing with the HTTP/2 stream: REFUSED_STREAM, or a graceful
// GOAWAY below the stream (RFC 9113 sections 6.8 and 8.7). Load balancers do the latter routinely. net/http wants to replay
// such a request, finds no GetBody and says so with these words; it has no error value for it.
func peerDisowned(err error) bool {
	text := err.Error()
	return strings.Contains(text, "http2: Transport: cannot retry err [") &&
		(strings.Contains(text, "REFUSED_STREAM") || strings.Contains(text, "graceful shutdown GOAWAY"))
}

// badCertificate reports a handshake that failed because of the server's certificate: a wrong base URL, a missing CA, or someone
// in between.
func badCertificate(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		authority    x509.UnknownAuthorityError
		hostname     x509.HostnameError
		invalid      x509.CertificateInvalidError
	)
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &hostname) || errors.As(err, &invalid)
}

// words is the error's text, with the URL of a url.Error cut to scheme, host and path. Only texts of our own or of the network
// are reported: net/http quotes bytes that came in place of an answer, and SDKs quote answers. If base_url leads somewhere
// else, that may be a secret.
func words(err error) string {
	target := ""
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		target = "request: "
		if u, perr := url.Parse(wrapped.URL); perr == nil {
			target = strings.ToLower(wrapped.Op) + " " + (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String() + ": "
		}
		err = wrapped.Err
	}
	switch {
	case errors.Is(err, jail.ErrForbidden):
		return target + "the host leads to an address that is not public: set allow_private if a private network is meant"
	case networks(err):
		return target + err.Error()
	}
	return target + "no answer of HTTP that can be read"
}

// networks reports an error whose text quotes no part of an answer.
func networks(err error) bool {
	var (
		network net.Error // of package net, and all timeouts
		record  tls.RecordHeaderError
		alert   tls.AlertError
	)
	for _, known := range []error{errNoVerdict, context.Canceled, io.EOF, io.ErrUnexpectedEOF, http.ErrSchemeMismatch} {
		if errors.Is(err, known) {
			return true
		}
	}
	return errors.As(err, &network) || errors.As(err, &record) || errors.As(err, &alert) || badCertificate(err)
}

// scrubbedError prints the scrubbed text and lets errors.Is and errors.As see the cause.
type scrubbedError struct {
	text string
	err  error
}

// Error implements error.
func (e *scrubbedError) Error() string { return e.text }

// Unwrap returns the cause, whose own text is not scrubbed.
func (e *scrubbedError) Unwrap() error { return e.err }
