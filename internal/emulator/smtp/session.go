package smtp

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/sendgate/sendgate/internal/emulator"
)

// session is one connection; a transaction lasts from MAIL to Reset.
type session struct {
	host *emulator.Host
	conn *conn

	mu     sync.Mutex // go-smtp calls Data from its own goroutine when the message comes by BDAT
	authed bool

	open  bool // a transaction has begun and its end is not counted yet
	at    time.Time
	from  string
	utf8  bool
	to    []string
	env   *envelope
	asked int          // RCPT commands of this transaction
	last  emulator.End // the end of the transaction if no message follows
}

func reply(code, class, subject, detail int, text string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{class, subject, detail}, Message: text}
}

// Mail opens a transaction. For the windows it counts as a request and a message.
func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close(emulator.EndRejected)
	if !s.authed {
		s.host.Arrive()
		s.host.Finish(emulator.EndRejected)
		return reply(530, 5, 7, 0, "Authentication required")
	}
	s.open, s.at, s.from, s.to, s.asked, s.last = true, s.host.Now(), from, nil, 0, emulator.EndRejected
	s.utf8 = opts != nil && opts.UTF8
	s.env = &envelope{sender: from, to: map[string]wish{}}
	if opts != nil {
		s.env.id = opts.EnvelopeID
	}
	s.conn.busy.Store(true)
	s.host.Arrive()
	charge := emulator.Cost{Requests: 1, Messages: 1}
	s.host.See(charge)
	if err := s.fault(emulator.StageMail, nil, atMail); err != nil {
		s.close(s.last)
		return err
	}
	if f := s.host.Admit(charge); f != nil {
		s.close(emulator.EndThrottled)
		return reply(450, 4, 7, 1, "Error: too much mail from "+s.conn.host())
	}
	if from != "" && (!emulator.BareAddress(from) || !s.utf8 && !emulator.ASCIILocal(from)) {
		s.close(emulator.EndRejected)
		return reply(501, 5, 1, 7, "Bad sender address syntax")
	}
	return nil
}

// Rcpt handles one recipient. Recipient windows count it.
func (s *session) Rcpt(to string, opts *smtp.RcptOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	charge := emulator.Cost{Recipients: 1}
	s.host.See(charge)
	if err := s.fault(emulator.StageRcpt, []string{to}, s.atRcpt); err != nil {
		return err
	}
	if f := s.host.Admit(charge); f != nil {
		s.last = emulator.EndThrottled
		return reply(450, 4, 7, 1, "Error: too many recipients from "+s.conn.host())
	}
	switch {
	case !emulator.BareAddress(to):
		return reply(501, 5, 1, 3, "Bad recipient address syntax")
	case !s.utf8 && !emulator.ASCII(to):
		return reply(553, 5, 6, 7, "Must have SMTPUTF8 to use a non-ASCII address")
	case emulator.OutcomeOf(to) == emulator.OutcomeReject, emulator.OutcomeOf(to) == emulator.OutcomeSuppressed:
		// A relay has no suppression list of its own.
		return reply(550, 5, 1, 1, "<"+to+">: Recipient address rejected: User unknown in virtual mailbox table")
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

// Data reads the whole message, writes the ledger and answers with a queue id.
func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err // too large (go-smtp's 552 5.3.4), or the client has left
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fault(emulator.StageData, s.to, atData); err != nil {
		s.close(s.last)
		return err
	}
	m := s.message(raw)
	if err := s.host.Accept(s.at, m); err != nil {
		return reply(451, 4, 3, 0, "Error: queue file write error")
	}
	s.close(emulator.EndAccepted)
	if f := s.host.Take(s.to, emulator.AfterAccept); f != nil {
		s.failAfter(f)
	}
	return reply(250, 2, 0, 0, "Ok: queued as "+m.ProviderMessageID)
}

// message makes the message for the ledger. Like a relay it accepts a message that it can't parse; that line has no subject.
func (s *session) message(raw []byte) *emulator.Message {
	s.env.header = headerOf(raw)
	m := &emulator.Message{Envelope: s.env, Entry: emulator.Entry{
		// Like Postfix's short queue ids: 4A1B2C3D4E5.
		ProviderMessageID: strings.ToUpper(emulator.RandomHex(6))[:11], From: s.from, To: s.to,
	}}
	if head, err := emulator.ReadMIME(raw); err == nil {
		m.MessageID, _, _ = strings.Cut(head.MessageID, "@")
		m.Subject, m.Calendar, m.Mail = head.Subject, head.Calendar, head.Mail
		if head.From != "" {
			m.From = head.From
		}
	}
	return m
}

// Reset ends the transaction: go-smtp calls it after DATA was answered, and for RSET and EHLO.
func (s *session) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close(s.last)
	s.to, s.from = nil, ""
	s.conn.busy.Store(false)
}

// Logout implements smtp.Session.
func (s *session) Logout() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close(s.last)
	return nil
}

// close counts the end of an open transaction.
func (s *session) close(how emulator.End) {
	if s.open {
		s.open = false
		s.host.Finish(how)
	}
}

// atRcpt reports whether a fault applies at RCPT. A partial fault without a pattern applies to every second recipient.
func (s *session) atRcpt(f *emulator.Fault) bool {
	switch f.Mode {
	case emulator.ModeThrottle:
		return f.Match != ""
	case emulator.ModeError:
		return f.Stage == emulator.StageRcpt
	case emulator.ModePartial:
		return f.Match != "" || s.asked%2 == 0
	}
	return false
}

// atMail reports whether a fault applies at MAIL.
func atMail(f *emulator.Fault) bool {
	return f.Mode == emulator.ModeThrottle && f.Match == "" || f.Mode == emulator.ModeError && f.Stage == emulator.StageMail
}

// atData reports whether a fault applies after the final dot.
func atData(f *emulator.Fault) bool {
	switch f.Mode {
	case emulator.ModeLatency, emulator.ModeDropBefore, emulator.ModeBlackHole:
		return true
	}
	return f.Mode == emulator.ModeError && f.Stage == emulator.StageData
}

// fault applies the first fault for this stage and returns its reply, if it has one.
func (s *session) fault(stage string, to []string, fits func(*emulator.Fault) bool) error {
	f := s.host.Take(to, fits)
	if f == nil {
		return nil
	}
	if !s.host.Hold(time.Duration(f.Latency)) {
		return s.abandon()
	}
	switch f.Mode {
	case emulator.ModeThrottle:
		s.close(emulator.EndThrottled)
		s.conn.last = true // as a 421 requires (RFC 5321 section 3.8)
		return reply(421, 4, 7, 0, "Error: too many connections from "+s.conn.host())
	case emulator.ModeError:
		return scriptedReply(f, f.Status, "Error: scripted fault at "+stage)
	case emulator.ModePartial:
		if f.Status == 0 {
			return scriptedReply(f, 450, "4.2.1 Error: mailbox temporarily disabled")
		}
		return scriptedReply(f, f.Status, "Error: scripted fault at "+stage)
	case emulator.ModeDropBefore:
		return s.abandon()
	case emulator.ModeBlackHole:
		s.conn.untilGone()
		return s.abandon()
	}
	return nil
}

// failAfter applies a fault to the answer of a message that is in the ledger.
func (s *session) failAfter(f *emulator.AppliedFault) {
	if f.Mode == emulator.ModeSlow {
		s.conn.trickle = func(b []byte) (int, error) { return s.host.Trickle(f, s.conn.Conn, b) }
		return
	}
	s.host.Hold(time.Duration(f.Latency))
	s.conn.reset()
}

// abandon resets the connection; the reply that go-smtp writes after it is lost.
func (s *session) abandon() error {
	s.close(emulator.EndFaulted)
	s.conn.reset()
	return reply(421, 4, 4, 2, "Connection lost")
}

// scriptedReply makes a reply from the body. If the body begins with an enhanced code, it becomes the code of the reply.
func scriptedReply(f *emulator.AppliedFault, code int, fallback string) *smtp.SMTPError {
	text := cmp.Or(f.Body, fallback)
	e := &smtp.SMTPError{Code: code, Message: text}
	first, rest, _ := strings.Cut(text, " ")
	if ec, ok := parseEnhanced(first); ok {
		e.EnhancedCode, e.Message = ec, rest
	}
	return e
}

func parseEnhanced(s string) (ec smtp.EnhancedCode, ok bool) {
	_, err := fmt.Sscanf(s, "%3d.%3d.%3d", &ec[0], &ec[1], &ec[2])
	return ec, err == nil && fmt.Sprintf("%d.%d.%d", ec[0], ec[1], ec[2]) == s && !strings.Contains(s, "-")
}
