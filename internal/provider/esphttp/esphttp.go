// Package esphttp is the HTTP client of adapters and their SDKs: one client per account with timeouts, a cap on every answer,
// no redirects, no cookies, and a Trace that knows whether any byte of a request left.
//
// It decides what a call without a verdict means (Fail) and what a bare status means (ByStatus). The provider's own codes,
// which come first, are left to the adapter.
//
// The most likely mistake of a newcomer is to give an SDK another http.Client: without this one a POST may be sent twice.
// net/http replays a POST with an Idempotency-Key header, and over HTTP/2 it replays any POST whose stream the peer reset with
// PROTOCOL_ERROR. Here the header is removed (unless KeepIdempotencyKey is set) and the body can't be read a second time.
package esphttp

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/seal"
)

// The timeouts of one call. The context of the call should be tighter; these apply without it.
const (
	DialTimeout    = 5 * time.Second
	TLSTimeout     = 5 * time.Second
	HeaderTimeout  = 30 * time.Second
	IdleTimeout    = 30 * time.Second
	OverallTimeout = 30 * time.Second
)

// DefaultMaxResponse is the cap on a response body, in bytes, when Options names none.
const DefaultMaxResponse = 1 << 20

// maxHeader caps the header of a response, in bytes. Go's own default is 10 MB.
const maxHeader = 64 << 10

// Options shape a Client. The zero value works.
type Options struct {
	Concurrency int               // calls in flight, and how many idle connections are kept; default 16
	Secrets     []seal.Secret     // replaced by [secret] in every text that Scrub or Fail returns
	MaxResponse int64             // cap on any response body after decompression, in bytes; default DefaultMaxResponse
	Transport   http.RoundTripper // for tests; nil makes one

	// BaseURL is the address that an administrator set in place of the provider's own, "" for none. Reach.CheckBaseURL has
	// checked it. The addresses of its name are checked here, at each call. The provider's own name may lead into a private
	// network, because clouds offer it that way.
	BaseURL string
	Reach   Reach

	// KeepIdempotencyKey keeps the header Idempotency-Key, for a provider that supports it.
	KeepIdempotencyKey bool
}

// Client is the outgoing HTTP of one account. It is safe for concurrent use.
type Client struct {
	http    *http.Client
	base    http.RoundTripper
	secrets []string
}

// New makes a Client with a connection pool of its own.
func New(o Options) *Client {
	if o.Concurrency <= 0 {
		o.Concurrency = 16
	}
	if o.MaxResponse <= 0 {
		o.MaxResponse = DefaultMaxResponse
	}
	base := o.Transport
	if base == nil {
		base = newTransport(o)
	}
	return &Client{
		base:    base,
		secrets: secretForms(o.Secrets),
		http: &http.Client{
			Transport:     &onceTransport{base: base, max: o.MaxResponse, keepKey: o.KeepIdempotencyKey},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       OverallTimeout,
		},
	}
}

func newTransport(o Options) *http.Transport {
	dialer := &net.Dialer{Timeout: DialTimeout, KeepAlive: 15 * time.Second}
	if bars := o.bars(); bars != nil {
		dialer.ControlContext, dialer.Resolver = jail.Control(*bars), &net.Resolver{PreferGo: true}
	}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &countedConn{Conn: conn}, nil
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    TLSTimeout,
		ResponseHeaderTimeout:  HeaderTimeout,
		IdleConnTimeout:        IdleTimeout,
		MaxIdleConns:           2 * o.Concurrency,
		MaxIdleConnsPerHost:    o.Concurrency,
		MaxResponseHeaderBytes: maxHeader,
		ForceAttemptHTTP2:      true,
	}
}

// bars are the restrictions on the addresses that we call ourselves; nil means none. A proxy from the environment is the
// operator's choice, and is responsible for the addresses it calls.
func (o Options) bars() *jail.Options {
	base, err := url.Parse(o.BaseURL)
	if o.BaseURL == "" || err != nil {
		return nil
	}
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: base}); err != nil || proxy != nil {
		return nil
	}
	bars, _ := o.Reach.bars(base) // CheckBaseURL has checked the port
	return bars
}

// HTTP returns the client for SDKs. It follows no redirect (a 3xx is returned unchanged), keeps no cookies, and stops after
// OverallTimeout whatever the context says.
func (c *Client) HTTP() *http.Client { return c.http }

// Close closes the idle connections. It always returns nil.
func (c *Client) Close() error {
	if t, ok := c.base.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
	return nil
}

// onceTransport sends each request at most once and records what happened in the request's Trace.
type onceTransport struct {
	base    http.RoundTripper
	max     int64
	keepKey bool
}

// RoundTrip implements http.RoundTripper.
func (t *onceTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	tr := traceFrom(req.Context())
	leg := tr.begin()
	out := req.Clone(httptrace.WithClientTrace(req.Context(), leg.hooks()))
	out.GetBody = nil // what can't be read again can't be sent again
	out.Body = onlyRead(out.Body)
	if !t.keepKey { // if it is kept, net/http still can't replay the request: it has a body, and no GetBody
		dropReplayHeaders(out.Header)
	}

	resp, err := t.base.RoundTrip(out)
	tr.end(leg, resp)
	if err != nil {
		return nil, err
	}
	resp.Body = &cappedBody{body: resp.Body, left: t.max, trace: tr}
	return resp, nil
}

// onlyRead hides all methods of a request body except Read and Close. After a body, net/http checks for extra bytes, with WriteTo
// if there is one. It treats an error there as a failed write, and closes the connection before the answer is read. The AWS SDK
// closes its body as soon as the header of the answer has come, and its WriteTo then returns io.EOF.
func onlyRead(body io.ReadCloser) io.ReadCloser {
	if body == nil || body == http.NoBody { // net/http knows these two by identity
		return body
	}
	return struct{ io.ReadCloser }{body}
}

// CloseIdleConnections lets http.Client.CloseIdleConnections reach the pool.
func (t *onceTransport) CloseIdleConnections() {
	if b, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		b.CloseIdleConnections()
	}
}

// dropReplayHeaders removes the headers that make net/http treat a POST as replayable, in any spelling.
func dropReplayHeaders(h http.Header) {
	for key := range h {
		if strings.EqualFold(key, "Idempotency-Key") || strings.EqualFold(key, "X-Idempotency-Key") {
			delete(h, key)
		}
	}
}

// cappedBody ends after max bytes, like a response that ends there, and keeps its first bytes in the trace.
type cappedBody struct {
	body  io.ReadCloser
	left  int64
	trace *Trace
}

// Read implements io.Reader.
func (b *cappedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.body.Read(p)
	b.left -= int64(n)
	b.trace.keep(p[:n])
	return n, err
}

// Close implements io.Closer. If the body was not read to its end, the connection can't be reused.
func (b *cappedBody) Close() error { return b.body.Close() }
