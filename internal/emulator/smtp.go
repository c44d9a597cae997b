package emulator

import (
	"errors"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// The sink behaves as a Postfix submission server: its message_size_limit, smtpd_recipient_limit and reply texts.
const (
	sinkMaxBytes      = 10_240_000
	sinkMaxRecipients = 1000
	sinkIdle          = 5 * time.Minute
)

func (e *Emulator) newSink() *smtp.Server {
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		conn, ok := c.Conn().(*sinkConn)
		if !ok {
			return nil, errors.New("emulator: unexpected connection type")
		}
		return &sinkSession{e: e, m: e.meters[kindSMTP], conn: conn, authed: e.opt.Credentials.SMTPUser == ""}, nil
	}))
	s.Domain = relayName
	s.MaxMessageBytes = sinkMaxBytes
	s.MaxRecipients = sinkMaxRecipients
	s.AllowInsecureAuth = true // the listener is on loopback, or the operator opened it with AllowRemote
	s.EnableSMTPUTF8 = true
	s.EnableDSN = true
	s.ReadTimeout, s.WriteTimeout = sinkIdle, sinkIdle
	s.ErrorLog = slog.NewLogLogger(e.log.Handler(), slog.LevelDebug)
	return s
}

// sinkSession is one connection; a transaction lasts from MAIL to Reset.
type sinkSession struct {
	e    *Emulator
	m    *meter
	conn *sinkConn

	mu     sync.Mutex // go-smtp calls Data from a goroutine of its own when the message comes by BDAT
	authed bool

	open  bool // a transaction has begun and is not counted as ended
	at    time.Time
	from  string
	utf8  bool
	to    []string
	env   *envelope
	asked int // RCPT commands of this transaction
	last  end // how it ends if no message follows
}

func sinkReply(code, class, subject, detail int, text string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{class, subject, detail}, Message: text}
}

// Mail opens a transaction: it is a request and a message for the windows.
func (s *sinkSession) Mail(from string, opts *smtp.MailOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close(endRejected)
	if !s.authed {
		s.m.arrive()
		s.m.finish(endRejected)
		return sinkReply(530, 5, 7, 0, "Authentication required")
	}
	s.open, s.at, s.from, s.to, s.asked, s.last = true, s.e.now(), from, nil, 0, endRejected
	s.utf8 = opts != nil && opts.UTF8
	s.env = &envelope{sender: from, to: map[string]wish{}}
	if opts != nil {
		s.env.id = opts.EnvelopeID
	}
	s.conn.busy.Store(true)
	s.m.arrive()
	charge := cost{requests: 1, messages: 1}
	s.m.see(s.e.now, charge)
	if err := s.fault(stageMail, nil, atMail); err != nil {
		s.close(s.last)
		return err
	}
	if f := s.m.admit(s.e.now, charge); f != nil {
		s.close(endThrottled)
		return sinkReply(450, 4, 7, 1, "Error: too much mail from "+s.conn.host())
	}
	if from != "" && (!bareAddress(from) || !s.utf8 && !asciiLocal(from)) {
		s.close(endRejected)
		return sinkReply(501, 5, 1, 7, "Bad sender address syntax")
	}
	return nil
}

// Rcpt takes one recipient, which is what recipient windows count.
func (s *sinkSession) Rcpt(to string, opts *smtp.RcptOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	charge := cost{recipients: 1}
	s.m.see(s.e.now, charge)
	if err := s.fault(stageRcpt, []string{to}, s.atRcpt); err != nil {
		return err
	}
	if f := s.m.admit(s.e.now, charge); f != nil {
		s.last = endThrottled
		return sinkReply(450, 4, 7, 1, "Error: too many recipients from "+s.conn.host())
	}
	switch {
	case !bareAddress(to):
		return sinkReply(501, 5, 1, 3, "Bad recipient address syntax")
	case !s.utf8 && !isASCII(to):
		return sinkReply(553, 5, 6, 7, "Must have SMTPUTF8 to use a non-ASCII address")
	case OutcomeOf(to) == outcomeReject, OutcomeOf(to) == outcomeSuppressed: // a relay has no suppression list of its own
		return sinkReply(550, 5, 1, 1, "<"+to+">: Recipient address rejected: User unknown in virtual mailbox table")
	}
	s.to = append(s.to, to)
	if opts != nil {
		w := wish{notify: opts.Notify}
		if opts.OriginalRecipient != "" {
			w.original = strings.ToLower(string(opts.OriginalRecipientType)) + ";" + opts.OriginalRecipient
		}
		s.env.to[to] = w
	}
	return nil
}

// Data reads the message to its final dot, writes the ledger and answers with a queue id.
func (s *sinkSession) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err // too large (go-smtp's 552 5.3.4), or the client has left
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fault(stageData, s.to, atData); err != nil {
		s.close(s.last)
		return err
	}
	entry := s.entry(raw)
	s.env.header = headerOf(raw)
	if err := s.e.ledger.append([]Entry{entry}); err != nil {
		s.e.log.Error("message not accepted", "provider", kindSMTP, "error", err)
		return sinkReply(451, 4, 3, 0, "Error: queue file write error")
	}
	s.close(endAccepted)
	s.e.schedule([]*letter{{Entry: entry, envelope: s.env}})
	if f := s.e.faults.take(kindSMTP, s.to, s.e.now(), afterAccept); f != nil {
		s.failAfter(f)
	}
	return sinkReply(250, 2, 0, 0, "Ok: queued as "+entry.ProviderMessageID)
}

// entry describes the message. Like a relay it takes what it can't parse; such a line has no subject.
func (s *sinkSession) entry(raw []byte) Entry {
	n := Entry{
		Provider: kindSMTP, At: s.at.UTC().Truncate(time.Microsecond), ProviderMessageID: queueID(),
		From: s.from, To: s.to, Outcome: gravest(s.to),
	}
	if h, err := readMIMEHead(raw); err == nil {
		n.MessageID, _, _ = strings.Cut(h.messageID, "@")
		n.Subject, n.Calendar = h.subject, h.calendar
		if h.from != "" {
			n.From = h.from
		}
	}
	return n
}

// Reset ends the transaction: go-smtp calls it after DATA was answered, and for RSET and EHLO.
func (s *sinkSession) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close(s.last)
	s.to, s.from = nil, ""
	s.conn.busy.Store(false)
}

// Logout implements smtp.Session.
func (s *sinkSession) Logout() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close(s.last)
	return nil
}

// close counts the end of an open transaction.
func (s *sinkSession) close(how end) {
	if s.open {
		s.open = false
		s.m.finish(how)
	}
}

func (s *sinkSession) atRcpt(f *Fault) bool {
	switch f.Mode {
	case modeThrottle:
		return f.Match != ""
	case modeError:
		return f.Stage == stageRcpt
	case modePartial:
		return f.Match != "" || s.asked%2 == 0
	}
	return false
}

func atMail(f *Fault) bool {
	return f.Mode == modeThrottle && f.Match == "" || f.Mode == modeError && f.Stage == stageMail
}

func atData(f *Fault) bool {
	switch f.Mode {
	case modeLatency, modeDropBefore, modeBlackHole:
		return true
	}
	return f.Mode == modeError && f.Stage == stageData
}

// fault applies the first fault that belongs to this stage and returns its reply, if it has one.
func (s *sinkSession) fault(stage string, to []string, fits func(*Fault) bool) error {
	f := s.e.faults.take(kindSMTP, to, s.e.now(), fits)
	if f == nil {
		return nil
	}
	if !s.e.hold(time.Duration(f.Latency)) {
		return s.vanish(endFaulted)
	}
	switch f.Mode {
	case modeThrottle:
		s.close(endThrottled)
		s.conn.closeAfterReply()
		return sinkReply(421, 4, 7, 0, "Error: too many connections from "+s.conn.host())
	case modeError:
		return scriptedReply(f, f.Status, "Error: scripted fault at "+stage)
	case modePartial:
		status := f.Status
		if status == 0 {
			return scriptedReply(f, 450, "4.2.1 Error: mailbox temporarily disabled")
		}
		return scriptedReply(f, status, "Error: scripted fault at "+stage)
	case modeDropBefore:
		return s.vanish(endFaulted)
	case modeBlackHole:
		s.conn.untilGone()
		return s.vanish(endFaulted)
	}
	return nil
}

// failAfter treats the answer of a message that is in the ledger.
func (s *sinkSession) failAfter(f *taken) {
	if f.Mode == modeSlow {
		over := time.Duration(f.Latency)
		if over == 0 {
			over = defaultTrickle
		}
		s.conn.trickleReply(over, s.e.hold)
		return
	}
	s.e.hold(time.Duration(f.Latency))
	s.conn.reset()
}

// vanish resets the connection; the reply that go-smtp then writes goes nowhere.
func (s *sinkSession) vanish(how end) error {
	s.close(how)
	s.conn.reset()
	return sinkReply(421, 4, 4, 2, "Connection lost")
}

// scriptedReply takes an enhanced code from the front of the body, if there is one.
func scriptedReply(f *taken, code int, fallback string) *smtp.SMTPError {
	text := f.Body
	if text == "" {
		text = fallback
	}
	e := &smtp.SMTPError{Code: code, Message: text}
	first, rest, _ := strings.Cut(text, " ")
	if ec, ok := parseEnhanced(first); ok {
		e.EnhancedCode, e.Message = ec, rest
	}
	return e
}

func parseEnhanced(s string) (smtp.EnhancedCode, bool) {
	var ec smtp.EnhancedCode
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return ec, false
	}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil || n < 0 || n > 999 {
			return ec, false
		}
		ec[i] = n
	}
	return ec, true
}
