// Package jail makes the HTTP client for addresses that strangers choose: webhook endpoints of tenants, and addresses in
// a provider's notification. Dialers of other transports ask it (Control) if an administrator chooses the address. It
// decides which addresses may be called at all, and limits what an answer can cost. Its users decide what is sent and what
// an answer means.
//
// A name is judged by the address that is dialled, after the look-up. So a name server that answers differently the second
// time gains nothing. CheckURL lets people know early; the client checks again for each call.
//
// A newcomer's likeliest mistake is to copy the client and change its Transport, or to set a proxy: then at most the
// proxy's address is checked.
package jail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ErrForbidden says that an address may not be called.
var ErrForbidden = errors.New("address not allowed")

// Limits of a call.
const (
	MaxAnswer = 64 << 10 // bytes of an answer's body; reading more is an *http.MaxBytesError

	connectTimeout = 5 * time.Second
	callTimeout    = 15 * time.Second
	maxHeader      = 32 << 10 // bytes of an answer's headers
)

// Target is an exception: addresses of a network, at one port.
type Target struct {
	Prefix netip.Prefix
	Port   uint16
}

// Options shape a client. The zero value is the strictest: https to public addresses at port 443.
type Options struct {
	Allow    []Target       // exceptions, for tests and for operators who know what they do; http is allowed there
	Ports    []uint16       // beside 443; http is allowed there
	Deny     []netip.Prefix // public addresses that are off limits too
	Resolver *net.Resolver  // for tests; nil is the pure Go resolver
	RootCAs  *x509.CertPool // nil is the system's
	Timeout  time.Duration  // of a whole call, the answer's body included; default 15 s
}

// New makes a client that calls only public addresses. It follows no redirect (the 3xx is the answer), keeps no cookies,
// knows no proxy and is safe for concurrent use. A call to a forbidden address fails with ErrForbidden, before anything
// was sent.
func New(o Options) *http.Client {
	if o.Timeout <= 0 {
		o.Timeout = callTimeout
	}
	resolver := o.Resolver
	if resolver == nil {
		// Not the C library's: it takes 127.1 and 0x7f000001 for addresses, and may ask other sources than DNS.
		resolver = &net.Resolver{PreferGo: true}
	}
	w := warder{Options: o, own: net.InterfaceAddrs}
	dialer := &net.Dialer{Timeout: connectTimeout, Resolver: resolver, ControlContext: w.control}
	return &http.Client{
		Timeout:       o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &cage{options: o, inner: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
			TLSHandshakeTimeout:    connectTimeout,
			ResponseHeaderTimeout:  o.Timeout,
			MaxResponseHeaderBytes: maxHeader,
			DisableCompression:     true, // a few bytes could unpack to many
			MaxIdleConns:           128,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        30 * time.Second,
			ForceAttemptHTTP2:      true, // with a dialer of its own, net/http would not try HTTP/2
			HTTP2: &http.HTTP2Config{
				MaxReceiveBufferPerConnection: 4 * MaxAnswer,
				MaxReceiveBufferPerStream:     MaxAnswer,
				WriteByteTimeout:              connectTimeout,
			},
		}},
	}
}

// Control applies Options to the net.Dialer of another transport, as its ControlContext: it refuses addresses after the
// look-up, just before they are called. It checks no URLs and limits no answers.
func Control(o Options) func(ctx context.Context, network, address string, conn syscall.RawConn) error {
	return warder{Options: o, own: net.InterfaceAddrs}.control
}

// Loopback returns exceptions for the addresses of this machine that no other can reach, at one port.
func Loopback(port uint16) []Target {
	return []Target{{netip.MustParsePrefix("127.0.0.0/8"), port}, {netip.MustParsePrefix("::1/128"), port}}
}

// IsLoopback reports whether a host, as it stands in a URL or in a setting, is this machine and no other.
func IsLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}

// cage checks the URL of each request and caps each answer.
type cage struct {
	options Options
	inner   *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (c *cage) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := check(req.URL, c.options); err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	resp, err := c.inner.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, MaxAnswer)
	return resp, nil
}

// CloseIdleConnections is for http.Client, which calls it.
func (c *cage) CloseIdleConnections() { c.inner.CloseIdleConnections() }

// warder judges the addresses that are dialled.
type warder struct {
	Options
	own func() ([]net.Addr, error) // the addresses of this machine
}

// control implements net.Dialer.ControlContext: it sees the address after the look-up, just before the connection is made.
func (w warder) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("%w: not TCP", ErrForbidden)
	}
	return w.judge(to)
}

// judge refuses an address or port that may not be called.
func (w warder) judge(to netip.AddrPort) error {
	addr := to.Addr().Unmap()
	switch {
	case w.excepted(addr, to.Port()):
		return nil
	case !w.open(to.Port()):
		return fmt.Errorf("%w: port %d", ErrForbidden, to.Port())
	case !public(addr) || w.denied(addr):
		return ErrForbidden // the error does not show the address to the one who chose the name
	}
	return w.foreign(addr)
}

// foreign refuses the addresses of this machine: services there may trust local callers.
func (w warder) foreign(addr netip.Addr) error {
	own, err := w.own()
	if err != nil {
		return fmt.Errorf("%w: own addresses are not known: %w", ErrForbidden, err)
	}
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == addr {
			return ErrForbidden
		}
	}
	return nil
}

func (o Options) excepted(addr netip.Addr, port uint16) bool {
	return slices.ContainsFunc(o.Allow, func(t Target) bool { return t.Port == port && t.Prefix.Contains(addr) })
}

func (o Options) denied(addr netip.Addr) bool {
	return slices.ContainsFunc(o.Deny, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// open reports whether public addresses may be called at the port.
func (o Options) open(port uint16) bool { return port == 443 || slices.Contains(o.Ports, port) }

// named reports whether there is an exception at the port, for whatever address.
func (o Options) named(port uint16) bool {
	return slices.ContainsFunc(o.Allow, func(t Target) bool { return t.Port == port })
}
