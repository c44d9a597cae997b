package smtp

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/sendgate/sendgate/internal/provider"
)

// timeouts bound the steps of a call; its context bounds the whole.
type timeouts struct {
	dial       time.Duration
	command    time.Duration // RFC 5321 section 4.5.3.2 allows 5 minutes; a relay that needs one is not healthy
	write      time.Duration // per write
	submission time.Duration // final dot to reply, RFC 5321 section 4.5.3.2.6
}

func defaultTimeouts() timeouts {
	return timeouts{dial: 15 * time.Second, command: time.Minute, write: 30 * time.Second, submission: 10 * time.Minute}
}

// dialer opens sessions: connection, TLS, EHLO, authentication.
type dialer struct {
	cfg    Config
	tls    *tls.Config
	helo   string
	wait   timeouts
	tokens *tokens                // nil but for auth xoauth2
	works  atomic.Pointer[string] // the mechanism that logged in last
}

func newDialer(cfg Config) *dialer {
	d := &dialer{cfg: cfg, helo: cfg.Helo, wait: defaultTimeouts()}
	d.tls = &tls.Config{ServerName: cfg.ServerName, MinVersion: tls.VersionTLS12}
	if cfg.CAPEM != "" {
		d.tls.RootCAs = x509.NewCertPool()
		d.tls.RootCAs.AppendCertsFromPEM([]byte(cfg.CAPEM))
	}
	if d.helo == "" {
		d.helo = hostName()
	}
	if cfg.Auth == authXOAUTH2 {
		d.tokens = newTokens(cfg)
	}
	return d
}

// hostName is what we greet with when nothing is set: servers compare it with DNS, so the machine's own name is the
// best guess, and an address literal the valid one where it has none.
func hostName() string {
	if name, err := os.Hostname(); err == nil && isName(name) && !strings.Contains(name, "_") {
		return name
	}
	return "[127.0.0.1]"
}

// dial opens a session. Nothing of a message has been sent when it fails. A token that the relay refuses is replaced once,
// on a connection of its own, before the refusal counts.
func (d *dialer) dial(ctx context.Context) (*session, *provider.Error) {
	if d.tokens == nil {
		return d.connect(ctx, login{d.cfg.Username, d.cfg.Password.Reveal()})
	}
	token, again, perr := d.tokens.get(ctx, "")
	if perr != nil {
		return nil, perr
	}
	s, refusal := d.connect(ctx, login{d.cfg.Username, token})
	if refusal == nil || !again || !refusesLogin(refusal) {
		return s, refusal
	}
	if token, _, perr = d.tokens.get(ctx, token); perr != nil {
		return nil, perr
	}
	return d.connect(ctx, login{d.cfg.Username, token})
}

// connect opens a connection and logs in.
func (d *dialer) connect(ctx context.Context, l login) (*session, *provider.Error) {
	dialCtx, cancel := context.WithTimeout(ctx, d.wait.dial)
	defer cancel()
	conn, err := (&net.Dialer{ControlContext: noLinkLocal}).DialContext(dialCtx, "tcp", net.JoinHostPort(d.cfg.Host, strconv.Itoa(d.cfg.Port)))
	if errors.Is(err, errLinkLocal) {
		return nil, refuse("connect: " + errLinkLocal.Error())
	}
	if err != nil {
		return nil, unreachable(ctx, "connect", err)
	}
	w := &wire{Conn: conn, writeTimeout: d.wait.write}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	s, perr := d.open(ctx, w, l)
	if perr != nil {
		_ = conn.Close()
		return nil, perr
	}
	return s, nil
}

var errLinkLocal = errors.New("the host has a link-local address, where clouds keep what they tell their machines and no relay is")

// noLinkLocal implements net.Dialer.ControlContext. Relays are commonly in private networks, so those are open; the addresses
// of a network card are not.
func noLinkLocal(_ context.Context, _, address string, _ syscall.RawConn) error {
	if to, err := netip.ParseAddrPort(address); err == nil && to.Addr().Unmap().IsLinkLocalUnicast() {
		return errLinkLocal
	}
	return nil
}

// open speaks up to the point where MAIL FROM may follow.
func (d *dialer) open(ctx context.Context, w *wire, l login) (*session, *provider.Error) {
	conn, perr := d.protect(ctx, w)
	if perr != nil {
		return nil, perr
	}
	c := gosmtp.NewClient(conn)
	c.CommandTimeout, c.SubmissionTimeout = d.wait.command, d.wait.submission
	var heard strings.Builder // go-smtp keeps one AUTH line only, and no AUTH=
	c.DebugWriter = &heard
	if err := c.Hello(d.helo); err != nil {
		return nil, d.failed(ctx, atConnect, err)
	}
	c.DebugWriter = nil
	if l.user != "" {
		if perr := d.authenticate(ctx, c, conn, offered(heard.String()), l); perr != nil {
			return nil, perr
		}
	}
	return &session{client: c, wire: w}, nil
}

// protect brings up TLS as configured. There is no way from here to plain text that the configuration did not name.
func (d *dialer) protect(ctx context.Context, w *wire) (net.Conn, *provider.Error) {
	switch d.cfg.TLS {
	case Implicit:
		return d.handshake(ctx, w)
	case StartTLS:
		if perr := d.startTLS(ctx, w); perr != nil {
			return nil, perr
		}
		conn, perr := d.handshake(ctx, w)
		if perr != nil {
			return nil, perr
		}
		return &greeted{Conn: conn, greeting: strings.NewReader("220 tls\r\n")}, nil
	case None:
	}
	return w, nil
}

// startTLS reads the greeting and asks for TLS (RFC 3207). It is ours and not go-smtp's for two reasons: the first EHLO
// carries our name, and a server reply after which more bytes are waiting is refused: they came before TLS, so anyone
// on the path could have put them there (CVE-2011-0411 and its kin).
func (d *dialer) startTLS(ctx context.Context, w *wire) *provider.Error {
	if err := w.SetDeadline(time.Now().Add(d.wait.command)); err != nil {
		return d.failed(ctx, atConnect, err)
	}
	br := bufio.NewReader(io.LimitReader(w, maxReplies))
	tr := textproto.NewReader(br)
	if _, _, err := tr.ReadResponse(220); err != nil {
		return d.failed(ctx, atConnect, err)
	}
	offer, err := ask(w, tr, 250, "EHLO "+d.helo)
	if err != nil {
		return d.failed(ctx, atConnect, err)
	}
	if !offersStartTLS(offer) {
		return refuse("server offers no STARTTLS: set tls to none or implicit if that is meant, else someone stripped it")
	}
	if _, err := ask(w, tr, 220, "STARTTLS"); err != nil {
		return d.failed(ctx, atConnect, err)
	}
	if br.Buffered() > 0 {
		return refuse("server sent data between its STARTTLS reply and TLS: someone on the path may have injected it")
	}
	return nil
}

func ask(w io.Writer, r *textproto.Reader, want int, line string) (string, error) {
	if _, err := io.WriteString(w, line+"\r\n"); err != nil {
		return "", fmt.Errorf("write command: %w", err)
	}
	_, text, err := r.ReadResponse(want)
	return text, err
}

func offersStartTLS(ehlo string) bool {
	for line := range strings.SplitSeq(ehlo, "\n") {
		if strings.EqualFold(strings.TrimSpace(line), "STARTTLS") {
			return true
		}
	}
	return false
}

func (d *dialer) handshake(ctx context.Context, w *wire) (net.Conn, *provider.Error) {
	ctx, cancel := context.WithTimeout(ctx, d.wait.command)
	defer cancel()
	conn := tls.Client(w, d.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		if untrusted(err) {
			return nil, refuse("tls handshake: " + err.Error())
		}
		return nil, unreachable(ctx, "tls handshake", err)
	}
	_ = w.SetDeadline(time.Time{}) // a socket that can't do this fails at its next use
	return conn, nil
}

// untrusted reports a handshake that failed for good: the certificate, the protocol, or bytes that are not TLS.
func untrusted(err error) bool {
	var (
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
		op     *net.OpError
	)
	return errors.As(err, &cert) || errors.As(err, &record) ||
		(errors.As(err, &op) && op.Op == "remote error") // crypto/tls marks an alert of the peer so
}

// failed classifies what went wrong while a session was opened.
func (d *dialer) failed(ctx context.Context, at stage, err error) *provider.Error {
	if p, ok := replyOf(err); ok && ctx.Err() == nil {
		e, _ := judge(at, p)
		e.Err = err
		return e
	}
	return unreachable(ctx, at.String(), err)
}

// unreachable is the absence of an answer before anything was sent. A line that is not SMTP is of some other service that the
// host and port lead to, and is not told.
func unreachable(ctx context.Context, doing string, err error) *provider.Error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause // the closed socket is only how it shows
	}
	text := err.Error()
	if _, foreign := errors.AsType[textproto.ProtocolError](err); foreign {
		text = "an answer that is not SMTP"
		err = errors.New(text)
	}
	return &provider.Error{Class: provider.Transient, Detail: doing + ": " + text, Err: err}
}

func refuse(why string) *provider.Error {
	return &provider.Error{Class: provider.Misconfigured, Detail: why}
}
