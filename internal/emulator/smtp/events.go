package smtp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/sendgate/sendgate/internal/emulator"
)

// envelope is the part of a message that a relay keeps for its reports.
type envelope struct {
	sender string // the return path
	id     string // ENVID
	to     map[string]wish
	header []byte // of the message, at most maxReturnedHeader
}

// wish is what a sender asked for at RCPT (RFC 3461 sections 4.1 and 4.2).
type wish struct {
	notify   []smtp.DSNNotify // empty: nothing was asked for
	original string           // ORCPT, "rfc822;ann@example.org"
}

// maxReturnedHeader caps the part of the message that a report returns.
const maxReturnedHeader = 8 << 10

// Notified includes failures and delays unless the sender asked for none, deliveries only if the sender asked for them, and
// nothing for a null sender (RFC 5321 section 4.5.5). A complaint comes from the receiving side,
// so the sender's wishes do not matter.
func (v *envelope) Notified(t emulator.EventType, to []string) []string {
	reason := notifications[t]
	switch {
	case v.sender == "":
		return nil
	case t == emulator.Complained:
		return to
	case reason == "":
		return nil
	}
	var told []string
	for _, address := range to {
		asked := v.to[address].notify
		if slices.Contains(asked, reason) || len(asked) == 0 && reason != smtp.DSNNotifySuccess {
			told = append(told, address)
		}
	}
	return told
}

// notifications maps events to the notification that the sender must ask for.
var notifications = map[emulator.EventType]smtp.DSNNotify{
	emulator.Bounced:     smtp.DSNNotifyFailure,
	emulator.SoftBounced: smtp.DSNNotifyFailure,
	emulator.Deferred:    smtp.DSNNotifyDelayed,
	emulator.Delivered:   smtp.DSNNotifySuccess,
}

// envelopeOf returns the envelope of an event's message; every message of a relay has one.
func envelopeOf(h *emulator.Event) *envelope {
	v, _ := h.Message.Envelope.(*envelope) //nolint:errcheck // no other type implements it
	return v
}

// headerOf returns the header of a message.
func headerOf(raw []byte) []byte {
	head := raw[:min(len(raw), maxReturnedHeader)]
	if i := bytes.Index(head, []byte("\r\n\r\n")); i >= 0 {
		return bytes.Clone(head[:i+2])
	}
	return bytes.Clone(head[:bytes.LastIndexByte(head, '\n')+1])
}

// Answered accepts 2yz. It retries after 4yz but not after 5yz (RFC 5321 section 4.2.1).
func (*relay) Answered(_ *emulator.Post, status int) (bool, []int) {
	if status/100 == 5 {
		return false, nil
	}
	return status/100 == 2, emulator.SlowRetries
}

// Compose writes a bounce, or the complaint of a feedback loop.
func (*relay) Compose(p *emulator.Post) error {
	if h := &p.Events[0]; h.Type == emulator.Complained {
		p.Body = feedbackReport(h)
	} else {
		p.Body = deliveryReport(h)
	}
	return nil
}

// lmtpTimeout caps a whole delivery.
const lmtpTimeout = 15 * time.Second

// deliver opens a connection for each report, because there are few.
func deliver(ctx context.Context, p *emulator.Post) (int, error) {
	u, err := url.Parse(p.Target.Hook["url"])
	if err != nil {
		return 0, fmt.Errorf("parse hook: %w", err)
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return 0, fmt.Errorf("dial lmtp: %w", err)
	}
	c := smtp.NewClientLMTP(conn)
	defer c.Close()                                                             //nolint:errcheck // nothing can be done about it
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })() // Stop
	c.CommandTimeout, c.SubmissionTimeout = lmtpTimeout, lmtpTimeout
	return deliverLMTP(c, p)
}

// deliverLMTP sends the report over an open connection. It returns the code of a refusal, or 250.
func deliverLMTP(c *smtp.Client, p *emulator.Post) (int, error) {
	h := &p.Events[0]
	from, to := "", envelopeOf(h).sender
	if h.Type == emulator.Complained {
		from = "fbl@" + emulator.DomainOf(h.To[0]) // a feedback report is ordinary mail
	}
	if p.Forged {
		to = forgeSender(to)
	}
	err := c.Hello(relayName)
	if err == nil {
		err = c.Mail(from, nil)
	}
	if err == nil {
		err = c.Rcpt(to, nil)
	}
	if err != nil {
		return replyCode(err)
	}
	w, err := c.Data()
	if err != nil {
		return replyCode(err)
	}
	if _, err := w.Write(p.Body); err != nil {
		return 0, fmt.Errorf("write report: %w", err)
	}
	if _, err := w.CloseWithLMTPResponse(); err != nil {
		return replyCode(err)
	}
	_ = c.Quit()
	return 250, nil
}

// replyCode returns the code of a refusal. An error without a code is a failure.
func replyCode(err error) (int, error) {
	if refused := (*smtp.SMTPError)(nil); errors.As(err, &refused) {
		return refused.Code, nil
	}
	if protocol := (*textproto.Error)(nil); errors.As(err, &protocol) {
		return protocol.Code, nil
	}
	return 0, fmt.Errorf("deliver report: %w", err)
}

// forgeSender changes the last character before the at sign, because a signed address has its signature there.
func forgeSender(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 1 {
		return address
	}
	last := byte('a')
	if address[at-1] == last {
		last = 'b'
	}
	return address[:at-1] + string(last) + address[at:]
}
