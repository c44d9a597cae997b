package emulator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Emulator runs the providers of one process. Its methods are safe for concurrent use.
type Emulator struct {
	opt    Options
	log    *slog.Logger
	now    func() time.Time
	hosts  []*Host
	mux    *http.ServeMux
	faults *script
	ledger *ledger
	mails  mails
	hooks  sync.RWMutex // guards Host.hook
	client *http.Client // of hooks

	stopping chan struct{} // closed when Stop begins: wakes requests that a fault holds
	gate     sync.RWMutex  // HTTP handlers hold it for reading; the end of Stop takes it permanently
	serving  sync.WaitGroup
	sending  sync.WaitGroup // the hook queues

	mu       sync.Mutex
	state    state
	stopped  chan struct{} // closed when Stop is done
	httpSrv  *http.Server
	httpAddr string
	smtpSide net.Listener
	smtp     []SMTPServer
}

// SMTPServer is a provider of a kind with SMTP.
type SMTPServer interface {
	// Serve accepts connections until the listener is closed.
	Serve(l net.Listener) error
	// Shutdown is called after that. It closes the connections when their messages are done, or when grace ends.
	Shutdown(grace context.Context) error
}

type state int

const (
	stateNew state = iota
	stateRunning
	stateStopped
)

// New checks the options and makes the providers of these kinds. At most one of them has SMTP. It opens nothing.
func New(kinds []Kind, opt Options) (*Emulator, error) {
	if err := opt.complete(); err != nil {
		return nil, err
	}
	e := &Emulator{
		opt:      opt,
		log:      opt.Log,
		now:      time.Now,
		mux:      http.NewServeMux(),
		faults:   &script{},
		ledger:   newLedger(),
		client:   newHookClient(),
		stopping: make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	e.control(e.mux)
	if err := e.newHosts(kinds); err != nil {
		return nil, err
	}
	return e, e.SetHooks(opt.Hooks)
}

// Start reads the ledger, binds both listeners and serves until Stop. The context bounds only the start itself. An
// Emulator starts once.
func (e *Emulator) Start(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.state != stateNew {
		return errors.New("start emulator: already started once")
	}
	hl, sl, err := e.acquire(ctx)
	if err != nil {
		e.state = stateStopped
		close(e.stopped)
		return err
	}
	e.httpAddr = hl.Addr().String()
	e.httpSrv = &http.Server{
		Handler:           closeChunked(e.handler()),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
	}
	e.smtpSide = sl
	e.serve("http", func() error { return e.httpSrv.Serve(hl) })
	for _, h := range e.hosts {
		if s, ok := h.provider.(SMTPServer); ok {
			e.smtp = append(e.smtp, s)
			e.serve("smtp", func() error { return s.Serve(sl) })
		}
	}
	e.runQueues()
	e.state = stateRunning
	e.log.InfoContext(ctx, "emulator started", "http", e.httpAddr, "smtp", sl.Addr().String(), "ledger_entries", len(e.ledger.snapshot()))
	return nil
}

// closeChunked closes the connection after a request with a Transfer-Encoding. net/http hides a Content-Length next to it, so the
// bytes after it may be a smuggled request. No adapter sends one.
func closeChunked(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// acquire opens the ledger and binds both listeners. On an error it leaves nothing open.
func (e *Emulator) acquire(ctx context.Context) (httpSide, smtpSide net.Listener, err error) {
	if err := e.ledger.open(e.opt.LedgerPath); err != nil {
		return nil, nil, err
	}
	var lc net.ListenConfig
	httpSide, err = lc.Listen(ctx, "tcp", e.opt.Listen)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen for emulator http: %w", err), e.ledger.close())
	}
	smtpSide, err = lc.Listen(ctx, "tcp", e.opt.SMTPListen)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen for emulator smtp: %w", err), httpSide.Close(), e.ledger.close())
	}
	return httpSide, smtpSide, nil
}

// runQueues sends events until Stop begins.
func (e *Emulator) runQueues() {
	ctx, cancel := context.WithCancel(context.Background())
	for _, h := range e.hosts {
		e.sending.Go(func() { h.queue.run(ctx) })
	}
	e.sending.Go(func() {
		<-e.stopping
		cancel()
	})
}

func (e *Emulator) serve(name string, run func() error) {
	e.serving.Go(func() {
		if err := run(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			e.log.Error("emulator listener ended", "listener", name, "error", err)
		}
	})
}

// stopGrace is how long Stop waits for answers in progress before it closes their connections.
const stopGrace = time.Second

// Stop ends faults that hold requests, drops the events that are not sent yet and closes the listeners. It lets answers in
// progress finish for up to a second and closes the ledger. When it returns nil, no goroutine is left. Further calls wait for
// the first and return nil.
func (e *Emulator) Stop(ctx context.Context) error {
	e.mu.Lock()
	before := e.state
	e.state = stateStopped
	e.mu.Unlock()
	switch before {
	case stateNew:
		close(e.stopped)
		return nil
	case stateStopped:
		select {
		case <-e.stopped:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("stop emulator: %w", ctx.Err())
		}
	case stateRunning:
	}
	defer close(e.stopped)
	close(e.stopping)
	return e.shutdown(ctx)
}

// shutdown stops the servers and queues, and then closes the ledger, so that accepted messages are still written.
func (e *Emulator) shutdown(ctx context.Context) error {
	grace, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	if err := e.httpSrv.Shutdown(grace); err != nil {
		_ = e.httpSrv.Close()
	}
	err := e.smtpSide.Close()
	e.serving.Wait()      // no listener accepts connections any more
	_ = e.httpSrv.Close() // the last one may have come too late for Shutdown
	for _, s := range e.smtp {
		err = errors.Join(err, s.Shutdown(grace))
	}
	e.sending.Wait()
	e.client.CloseIdleConnections()
	e.gate.Lock() // handlers of closed connections may still run: wait for them, and let no new one in
	if err := errors.Join(err, e.ledger.close()); err != nil {
		return fmt.Errorf("stop emulator: %w", err)
	}
	return nil
}

// URL is the base of the HTTP side, such as http://127.0.0.1:40123. A provider's base URL is this plus "/sendgrid" and so on. It
// is "" before Start.
func (e *Emulator) URL() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.httpAddr == "" {
		return ""
	}
	return "http://" + e.httpAddr
}

// SMTPAddr is host:port of the SMTP side, "" before Start.
func (e *Emulator) SMTPAddr() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.smtpSide == nil {
		return ""
	}
	return e.smtpSide.Addr().String()
}

// Accounts describes an account at each provider with the addresses after Start, in the order of the kinds.
func (e *Emulator) Accounts() []Account {
	var all []Account
	for _, h := range e.hosts {
		a := h.provider.Account(h.At())
		a.Kind = h.kind.Name
		all = append(all, a)
	}
	return all
}

// Secret is one secret of the account at a kind of provider, "" if there is none of that name.
func (e *Emulator) Secret(kind, name string) string {
	for _, a := range e.Accounts() {
		if a.Kind == kind {
			return a.Secrets[name]
		}
	}
	return ""
}

// Ledger lists the accepted messages, in order of acceptance. The caller must not change the entries' To.
func (e *Emulator) Ledger() []Entry {
	return append([]Entry(nil), e.ledger.snapshot()...)
}

// Taken is how many messages Ledger lists.
func (e *Emulator) Taken() int { return len(e.ledger.snapshot()) }
