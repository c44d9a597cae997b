package forward

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

const (
	maxDrain  = 64 << 10 // bytes of an answer that are read at most, so that its connection can be used again
	userAgent = "sendgate-webhooks/1"
)

// tell makes one signed call. An error is part of the answer.
func (e *Engine) tell(ctx context.Context, target string, event *mail.Event, secrets map[string]seal.Secret) answer {
	ctx, cancel := context.WithTimeout(ctx, longCall)
	defer cancel()
	start, at := e.Now(), e.Clock()
	a := answer{at: at.UTC()}
	resp, err := e.post(ctx, target, event, secrets, at)
	a.took = e.Now().Sub(start)
	if err != nil {
		a.err = provider.Cut(failure(err))
		return a
	}
	defer resp.Body.Close() //nolint:errcheck // only its status counts
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxDrain))
	a.status, a.retryAfter = resp.StatusCode, retryAfter(resp.Header.Get("Retry-After"), e.Clock())
	return a
}

// post signs and sends one request.
func (e *Engine) post(ctx context.Context, target string, event *mail.Event, secrets map[string]seal.Secret, at time.Time) (*http.Response, error) {
	body, err := Body(event)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if err := setHeaders(req.Header, secrets[record.EndpointHeaders]); err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", userAgent)
	if err := sign(req.Header, event.ID.String(), at, body, secrets); err != nil {
		return nil, err
	}
	return e.Client.Do(req)
}

// setHeaders sets the headers that the owner of the endpoint configured. Ours are set later and override them.
func setHeaders(h http.Header, owners seal.Secret) error {
	if owners.IsZero() {
		return nil
	}
	var values map[string]string
	if err := json.Unmarshal([]byte(owners.Reveal()), &values); err != nil {
		return errHeaders // without err, which may hold a part of them
	}
	for name, value := range values {
		h.Set(name, value)
	}
	return nil
}

// failure says why a call failed, for the owner of the endpoint. It shows neither the IP addresses of the endpoint nor those
// of our name servers.
func failure(err error) string {
	var (
		dns      *net.DNSError
		timeout  net.Error
		untrusty *tls.CertificateVerificationError
		op       *net.OpError
		call     *url.Error
	)
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "the host name does not exist"
	case errors.As(err, &dns):
		return "the host name could not be looked up"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	case errors.As(err, &untrusty):
		return "the certificate is not trusted: " + untrusty.Unwrap().Error()
	case errors.As(err, &op) && op.Err != nil:
		return op.Op + ": " + op.Err.Error()
	case errors.As(err, &call):
		return call.Err.Error()
	}
	return err.Error()
}

// retryAfter reads the header Retry-After: seconds, or a date (RFC 9110 section 10.2.3). Anything else means no wait.
func retryAfter(v string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second //nolint:gosec // 31 bits
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
