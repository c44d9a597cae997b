package lmtp

import (
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/emersion/go-smtp"

	"github.com/sendgate/sendgate/internal/provider"
)

// session is one connection; a transaction lasts from MAIL to Reset. go-smtp calls LMTPData from a goroutine of its own, while
// the connection may end.
type session struct {
	s *Server

	mu   sync.Mutex
	from string
	to   []string
}

// Mail implements smtp.Session.
func (c *session) Mail(from string, _ *smtp.MailOptions) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.from, c.to = from, nil
	return nil
}

// Rcpt implements smtp.Session.
func (c *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if c.s.opt.Knows != nil && !c.s.opt.Knows(to) {
		return reply(550, 5, 1, 1, "No such recipient here")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.to = append(c.to, to)
	return nil
}

// LMTPData implements smtp.LMTPSession.
func (c *session) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	c.mu.Lock()
	from, to := c.from, slices.Clone(c.to)
	c.mu.Unlock()
	body, err := readBody(r)
	if err != nil {
		return err
	}
	if !c.s.begin() {
		return reply(451, 4, 3, 2, "Shutting down, try again later")
	}
	defer c.s.busy.Done()
	for _, rcpt := range to {
		status.SetStatus(rcpt, c.s.receive(from, rcpt, body))
	}
	return nil
}

// readBody reads a message to its end and keeps the first provider.MaxHook bytes. A partial message is an error.
func readBody(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, provider.MaxHook))
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if err == nil {
		return body, nil
	}
	if refusal, ok := errors.AsType[*smtp.SMTPError](err); ok {
		return nil, refusal
	}
	if errors.Is(err, smtp.ErrTooLongLine) {
		return nil, reply(550, 5, 6, 0, "Line too long")
	}
	return nil, reply(451, 4, 4, 2, "Message did not come whole")
}

// Data implements smtp.Session. In LMTP mode go-smtp calls LMTPData instead.
func (c *session) Data(io.Reader) error { return reply(503, 5, 5, 1, "LMTP only") }

// Reset implements smtp.Session.
func (c *session) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.from, c.to = "", nil
}

// Logout implements smtp.Session.
func (c *session) Logout() error { return nil }
