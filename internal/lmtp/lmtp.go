// Package lmtp receives bounces over LMTP (RFC 2033), the protocol in which a mail server hands mail to a program and gets an
// answer for each recipient. It decides what is refused before a body is read, the limits, and which reply follows from an
// error. The functions in Options decide whose an address is and what a message means.
//
// A newcomer's likeliest mistake is to answer 250 before the message is stored: the mail server deletes it then, and the bounce
// is lost. 250 is sent only after Receive returned nil; 451 makes the mail server try again. Receive must accept repetitions,
// because a reply may be lost.
package lmtp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
	"golang.org/x/net/netutil"

	"github.com/sendgate/sendgate/internal/provider"
)

// Caps. Postfix sends at most 50 recipients a transaction (postconf(5) default_destination_recipient_limit) over at most
// 20 connections (default_destination_concurrency_limit), and waits 10 minutes for a reply (lmtp_data_done_timeout).
const (
	DefaultMaxBytes = 32 << 20 // bytes of the largest message that is accepted

	maxConns       = 50
	maxRecipients  = 100
	maxLine        = 16 << 10 // bytes; above the 1000 of RFC 5321 section 4.5.3.1.6, because returned originals have longer lines
	readTimeout    = 5 * time.Minute
	writeTimeout   = time.Minute
	receiveTimeout = time.Minute
)

// Options say where to listen and what to do with the mail.
type Options struct {
	Listen      string // host:port, or unix:/path of a socket: all users who may enter its folder may connect
	AllowRemote bool   // allows an address that other machines can reach: LMTP has no authentication
	Domain      string // our own name; default localhost
	MaxBytes    int64  // larger messages are refused; default DefaultMaxBytes

	// Receive takes one message for one recipient. mailFrom is "" for the null address. body has at most provider.MaxHook
	// bytes: the rest of a longer message is cut off; in a report that is the returned original. Several goroutines call it at
	// a time, with a context that ends after a minute or when Stop gives up. A *provider.HookError with a 4xx status other than
	// 429 refuses the message for good; after any other error the mail server tries again.
	Receive func(ctx context.Context, mailFrom, rcptTo string, body []byte) error

	// Knows says whether there is such a recipient. Mail to others is refused before its body is sent. Nil means all exist.
	Knows func(rcptTo string) bool

	Log *slog.Logger
}

// Server is a listener. Its methods are safe for concurrent use.
type Server struct {
	opt    Options
	smtp   *smtp.Server
	ctx    context.Context // for Receive; ends when Stop gives up
	cancel context.CancelFunc

	mu       sync.Mutex
	ln       net.Listener // nil before Start
	stopping bool
	busy     sync.WaitGroup // messages being received; none is added once stopping is set
	served   chan struct{}  // closed when no connection is accepted any more
	ended    chan struct{}  // closed when Stop is done
}

// New checks the options and makes a server that does not listen yet.
func New(opt Options) (*Server, error) {
	if opt.Receive == nil || opt.Log == nil {
		return nil, errors.New("lmtp: Receive and Log are required")
	}
	if _, _, err := address(opt.Listen, opt.AllowRemote); err != nil {
		return nil, err
	}
	if opt.MaxBytes == 0 {
		opt.MaxBytes = DefaultMaxBytes
	}
	if opt.MaxBytes < 0 {
		return nil, errors.New("lmtp: MaxBytes is negative")
	}
	if opt.Domain == "" {
		opt.Domain = "localhost"
	}
	s := &Server{opt: opt, served: make(chan struct{}), ended: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.smtp = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{s: s}, nil }))
	s.smtp.LMTP, s.smtp.Domain = true, opt.Domain
	s.smtp.EnableSMTPUTF8 = true // reports about addresses of RFC 6531 come with it
	s.smtp.MaxMessageBytes, s.smtp.MaxRecipients, s.smtp.MaxLineLength = opt.MaxBytes, maxRecipients, maxLine
	s.smtp.ReadTimeout, s.smtp.WriteTimeout = readTimeout, writeTimeout
	s.smtp.ErrorLog = slog.NewLogLogger(opt.Log.Handler(), slog.LevelWarn)
	return s, nil
}

// address splits Listen into network and address. An address that other machines could reach is an error without remote.
func address(listen string, remote bool) (network, addr string, err error) {
	if path, ok := strings.CutPrefix(listen, "unix:"); ok {
		if path == "" {
			return "", "", errors.New("lmtp: want unix:/path/of/socket")
		}
		return "unix", path, nil
	}
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return "", "", fmt.Errorf("lmtp: listen on %q: want host:port or unix:/path", listen)
	}
	ip := net.ParseIP(host)
	if local := host == "localhost" || ip != nil && ip.IsLoopback(); !local && !remote {
		return "", "", fmt.Errorf("lmtp: listen on %q: LMTP has no authentication, so anything but loopback has to be allowed expressly", listen)
	}
	return "tcp", listen, nil
}

// Start listens, and serves until Stop. It returns an error if it can't listen on the address.
func (s *Server) Start() error {
	network, addr, err := address(s.opt.Listen, s.opt.AllowRemote)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln != nil || s.stopping {
		return errors.New("lmtp: started before")
	}
	ln, err := listen(network, addr)
	if err != nil {
		return fmt.Errorf("lmtp: %w", err)
	}
	s.ln = netutil.LimitListener(&mortal{ln, s.ctx}, maxConns)
	go func() {
		defer close(s.served)
		if err := s.smtp.Serve(s.ln); err != nil && !errors.Is(err, net.ErrClosed) {
			s.opt.Log.Error("lmtp stopped listening", "error", err)
		}
	}()
	return nil
}

// mortal is a listener whose connections are closed when ctx ends. go-smtp closes only those that it knows, and it learns of a
// connection a moment after that was accepted.
type mortal struct {
	net.Listener
	ctx context.Context //nolint:containedctx // the life of the connections
}

// Accept implements net.Listener.
func (l *mortal) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &mortalConn{c, context.AfterFunc(l.ctx, func() { _ = c.Close() })}, nil
}

// mortalConn is a connection of mortal; forget drops its hook on the context.
type mortalConn struct {
	net.Conn
	forget func() bool
}

// Close implements net.Conn.
func (c *mortalConn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// listen opens a socket. It replaces the socket of a process that is gone; anything else at its path stays.
func listen(network, addr string) (net.Listener, error) {
	if network != "unix" {
		return net.Listen(network, addr)
	}
	if info, err := os.Lstat(addr); err == nil && info.Mode().Type() == os.ModeSocket {
		conn, err := net.DialTimeout("unix", addr, time.Second)
		if err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("listen on %s: another process does", addr)
		}
		if err := os.Remove(addr); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen("unix", addr)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(addr, 0o666); err != nil { //nolint:gosec // as with a port on loopback: the folder says who may connect
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// Addr is the address on which the server listens, nil before Start.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln == nil {
		return nil
	}
	return s.ln.Addr()
}

// Stop refuses new messages, waits for those being received until the context ends, and closes all connections. If the reply
// to a received message was cut off, the mail server sends it again. Further calls wait for the first and return nil, or the
// context's error if that ends before.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	first := !s.stopping
	s.stopping = true
	started := s.ln != nil
	s.mu.Unlock()
	if !first {
		select {
		case <-s.ended:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("lmtp: stop: %w", ctx.Err())
		}
	}
	defer close(s.ended)
	if !started {
		s.cancel()
		return nil
	}
	idle := make(chan struct{})
	go func() {
		s.busy.Wait()
		close(idle)
	}()
	var err error
	select {
	case <-idle:
	case <-ctx.Done():
		err = fmt.Errorf("lmtp: messages were still being received: %w", ctx.Err())
	}
	// go-smtp closes the listener only if it has begun to serve, which Start does not wait for.
	err = errors.Join(err, s.ln.Close())
	<-s.served               // no connection is accepted any more
	s.cancel()               // ends all connections, and calls of Receive
	_ = s.smtp.Shutdown(ctx) // waits until they are gone; it returns an error because the listener is closed already
	return err
}

// begin counts a message as being received. It reports false if the server is stopping.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.busy.Add(1)
	return true
}

// receive gives one message to Receive and turns the outcome into a reply.
func (s *Server) receive(mailFrom, rcptTo string, body []byte) error {
	ctx, cancel := context.WithTimeout(s.ctx, receiveTimeout)
	defer cancel()
	err := s.opt.Receive(ctx, mailFrom, rcptTo, body)
	if err == nil {
		return nil
	}
	refusal, ok := errors.AsType[*provider.HookError](err)
	switch {
	case ok && refusal.Status == 413:
		return reply(552, 5, 3, 4, "Message too large")
	case ok && refusal.Status >= 400 && refusal.Status < 500 && refusal.Status != 429:
		return reply(550, 5, 7, 1, "Refused: "+refusal.Reason)
	}
	_, domain, _ := strings.Cut(rcptTo, "@")
	s.opt.Log.Warn("lmtp message left to be sent again", "domain", domain, "error", err)
	return reply(451, 4, 3, 0, "Not stored, try again later")
}

// reply is an SMTP reply with its enhanced status code (RFC 3463).
func reply(code, class, subject, detail int, text string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{class, subject, detail}, Message: text}
}
