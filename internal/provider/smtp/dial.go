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
	command    time.Duration // RFC 5321 section 4.5.3.2 allows 5 minutes; a relay that needs so long is not healthy
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
	tokens *tokens                // nil except for auth xoauth2
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

// hostName is the name that we greet with when none is set. Servers compare it with DNS, so the machine's own name is the best
// guess. A machine without one uses an address literal, which is valid.
func hostName() string {
	if name, err := os.Hostname(); err == nil && isName(name) && !strings.Contains(name, "_") {
		return name
	}
	return "[127.0.0.1]"
}

// dial opens a session. If it fails, nothing of a message has been sent. If the relay refuses a token, dial gets a new one once
// and tries it on a new connection; only then does the refusal count.
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

// noLinkLocal implements net.Dialer.ControlContext. Relays are often in private networks, so those are allowed. Link-local
// addresses are not.
func noLinkLocal(_ context.Context, _, address string, _ syscall.RawConn) error {
	if to, err := netip.ParseAddrPort(address); err == nil && to.Addr().Unmap().IsLinkLocalUnicast() {
		return errLinkLocal
	}
	return nil
}

// open runs the dialogue up to the point at which MAIL FROM may follow.
func (d *dialer) open(ctx context.Context, w *wire, l login) (*session, *provider.Error) {
	conn, perr := d.protect(ctx, w)
	if perr != nil {
		return nil, perr
	}
	c := gosmtp.NewClient(conn)
	c.CommandTimeout, c.SubmissionTimeout = d.wait.command, d.wait.submission
	var heard strings.Builder // go-smtp keeps only one AUTH line, and no AUTH=
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

// protect sets up TLS as configured. It never falls back to plain text unless the configuration says none.
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

// startTLS reads the greeting and asks for TLS (RFC 3207). We do not use that of go-smtp for two reasons. Our first EHLO carries
// our name. And we refuse a reply with more bytes behind it: they came before TLS, so anyone on the path could have put them
// there (CVE-2011-0411 and similar).
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

// ask sends a command and reads the reply; a reply with another code than want is an error.
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

// untrusted reports a handshake that would fail again: the certificate, the protocol, or bytes that are not TLS.
func untrusted(err error) bool {
	var (
		cert   *tls.CertificateVerificationError
		record tls.RecordHeaderError
		op     *net.OpError
	)
	return errors.As(err, &cert) || errors.As(err, &record) ||
		(errors.As(err, &op) && op.Op == "remote error") // crypto/tls marks an alert of the peer in this way
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

// unreachable is the error for no answer before anything was sent. A line that is not SMTP comes from some other service at that
// host and port, so its text is not shown.
func unreachable(ctx context.Context, doing string, err error) *provider.Error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause // the error of the closed socket is only a symptom
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
