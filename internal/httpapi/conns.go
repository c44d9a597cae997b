package httpapi

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
)

// MaxConns caps the connections of a listener, so that one process does not run out of file descriptors.
const MaxConns = 4096

// Listener bounds the connections of a listener to n, and gives each address its share of them. Connections of trusted proxies
// have no share, since they belong to many clients; withShare counts the requests of those. A connection that is idle, or has
// not sent a request yet, can be closed for others. Serve it with a server of HTTPServer.
func Listener(l net.Listener, n int64, trusted []netip.Prefix) net.Listener {
	return &listener{l, newPool(n, 0), trusted}
}

type listener struct {
	net.Listener
	places  *pool
	trusted []netip.Prefix
}

// Accept implements net.Listener. It closes connections of an address that is over its share.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if x := l.places.take(l.holder(c), 1, sync.OnceFunc(func() { _ = c.Close() })); x != nil {
			return &conn{c, x}, nil
		}
		_ = c.Close()
	}
}

// holder returns the holder of a connection: nobody for a trusted proxy, else the network of the peer.
func (l *listener) holder(c net.Conn) holder {
	peer, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return holder{}
	}
	ip := peer.Addr().Unmap().WithZone("")
	if within(l.trusted, ip) {
		return holder{}
	}
	return network(ip)
}

// within reports whether one of the networks contains ip.
func within(list []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// conn is a connection with its place.
type conn struct {
	net.Conn
	place *place
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.place.release()
	return c.Conn.Close()
}

// watchConn notes whether a connection waits for a request.
func watchConn(c net.Conn, state http.ConnState) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	ours, ok := c.(*conn)
	if !ok {
		return
	}
	switch state {
	case http.StateNew, http.StateIdle:
		ours.place.awaits()
	case http.StateActive:
		ours.place.heard(slowest * int(patience.Seconds())) // restores its full patience
	case http.StateHijacked, http.StateClosed:
	}
}
