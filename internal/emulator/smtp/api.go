// Package smtp emulates an SMTP relay: a Postfix submission server with a transport for the bounce domain, after RFC 3461,
// RFC 3464, RFC 5321 and RFC 5965.
//
// It decides what the relay would reply and report, and leaves ledger, limits and faults to package emulator. The most likely
// mistake of a newcomer is to report every delivery: a relay reports failures and delays, and deliveries only if asked to.
package smtp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/sendgate/sendgate/internal/emulator"
)

// Kind describes the relay. With an empty username it requires no AUTH, like a relay on a local network.
func Kind() emulator.Kind {
	return emulator.Kind{
		Name: "smtp", SMTP: true, Partial: [2]int{400, 599}, Grouped: true, Deliver: deliver, New: open,
		Credentials: map[string]string{"username": "sendgate", "password": "local-development-only"},
	}
}

// relay is the relay of one emulator.
type relay struct {
	host    *emulator.Host
	server  *smtp.Server
	conns   *listener
	verpKey string
}

func open(h *emulator.Host) (emulator.Provider, error) {
	r := &relay{host: h, verpKey: emulator.RandomHex(32)}
	r.server = r.newServer()
	return r, nil
}

// Account includes a key for bounce addresses. Only the service needs it, and each emulator makes a new one.
func (r *relay) Account(at string) emulator.Account {
	host, port, _ := net.SplitHostPort(at) //nolint:errcheck // the address of a listener has a port
	number, _ := strconv.Atoi(port)        //nolint:errcheck // as above
	return emulator.Account{
		Settings: map[string]any{
			"host": host, "port": number, "tls": "none", "username": r.host.Credential("username"), "smtputf8": true,
			"bounce_domain": "bounces.sendgate.test",
		},
		Secrets: map[string]string{"password": r.host.Credential("password"), "verp_key": r.verpKey},
	}
}

// The relay has no HTTP calls to answer, and nobody registers with it.

func (*relay) Authenticate(*http.Request, []byte) *emulator.Reply { return nil }
func (*relay) Throttled(*emulator.Full) *emulator.Reply           { return nil }
func (*relay) Failure(int) *emulator.Reply                        { return nil }
func (*relay) Decorate(*emulator.Reply)                           {}
func (*relay) Keys() map[string]string                            { return nil }
func (*relay) CompleteHook(emulator.Hook) error                   { return nil }
func (*relay) Registered(*emulator.Event) []*emulator.Target      { return nil }
func (*relay) Forget()                                            {}

// The settings of a Postfix (message_size_limit, smtpd_recipient_limit), and how long a connection may be idle.
const (
	maxBytes      = 10_240_000
	maxRecipients = 1000
	maxIdle       = 5 * time.Minute
)

func (r *relay) newServer() *smtp.Server {
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		conn, ok := c.Conn().(*conn)
		if !ok {
			return nil, errors.New("emulator: unexpected connection type")
		}
		return &session{host: r.host, conn: conn, authed: r.host.Credential("username") == ""}, nil
	}))
	s.Domain = relayName
	s.MaxMessageBytes = maxBytes
	s.MaxRecipients = maxRecipients
	s.AllowInsecureAuth = true // the listener is on loopback, or the operator opened it with AllowRemote
	s.EnableSMTPUTF8 = true
	s.EnableDSN = true
	s.ReadTimeout, s.WriteTimeout = maxIdle, maxIdle
	s.ErrorLog = slog.NewLogLogger(r.host.Log().Handler(), slog.LevelDebug)
	return s
}

// Serve implements emulator.SMTPServer.
func (r *relay) Serve(l net.Listener) error {
	r.conns = newListener(l)
	return r.server.Serve(r.conns)
}

// Shutdown implements emulator.SMTPServer.
func (r *relay) Shutdown(grace context.Context) error {
	done := make(chan error, 1)
	go func() { done <- r.server.Shutdown(context.WithoutCancel(grace)) }()
	r.conns.closeAll(grace)
	return <-done
}
