package emulator

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
)

// envelope is what a relay keeps of a message to report on it.
type envelope struct {
	sender string // the return path
	id     string // ENVID
	to     map[string]wish
	header []byte // of the message, at most maxReturnedHeader
}

// wish is what a sender asked for at RCPT (RFC 3461 sections 4.1 and 4.2).
type wish struct {
	notify   []smtp.DSNNotify // empty: not asked
	original string           // ORCPT, "rfc822;ann@example.org"
}

// maxReturnedHeader caps the part of the message that a report returns.
const maxReturnedHeader = 8 << 10

// concerned lists the recipients of whom the sender is told. A letter without an envelope came by HTTP: all of them. A
// relay reports failures and delays unless it was asked not to, deliveries only when it was asked to, and nothing to a
// null sender (RFC 5321 section 4.5.5). A complaint comes from the far end, whatever was asked.
func (v *envelope) concerned(w what, to []string) []string {
	if v == nil {
		return to
	}
	if v.sender == "" {
		return nil
	}
	var reason smtp.DSNNotify
	switch w {
	case wasBounced, wasSoftBounced:
		reason = smtp.DSNNotifyFailure
	case wasDeferred:
		reason = smtp.DSNNotifyDelayed
	case wasDelivered:
		reason = smtp.DSNNotifySuccess
	case wasComplained:
		return to
	case wasAccepted, wasDropped, wasDeactivated, wasOpened, wasClicked:
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

// headerOf cuts the header out of a message.
func headerOf(raw []byte) []byte {
	head := raw[:min(len(raw), maxReturnedHeader)]
	if i := bytes.Index(head, []byte("\r\n\r\n")); i >= 0 {
		return bytes.Clone(head[:i+2])
	}
	return bytes.Clone(head[:bytes.LastIndexByte(head, '\n')+1])
}

// smtpHerald delivers reports to the return path by LMTP, as a Postfix with a transport for the bounce domain does.
type smtpHerald struct{}

// verdict has 250 for told; 4yz is tried again and 5yz is not (RFC 5321 section 4.2.1).
func (smtpHerald) verdict(status int) verdict {
	switch status / 100 {
	case 2:
		return told
	case 5:
		return final
	}
	return again
}

func (smtpHerald) retries(*post) []int { return []int{1, 2, 5, 10, 10, 10, 10, 10, 10, 10} }

func (smtpHerald) compose(p *post) error {
	h := &p.events[0]
	if h.what == wasComplained {
		p.body = feedbackReport(h)
	} else {
		p.body = deliveryReport(h)
	}
	return nil
}

// lmtpTimeout bounds a whole delivery.
const lmtpTimeout = 15 * time.Second

// send opens a connection for each report: there are few.
func (smtpHerald) send(ctx context.Context, p *post) (int, error) {
	u, err := url.Parse(p.target.URL)
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

func deliverLMTP(c *smtp.Client, p *post) (int, error) {
	h := &p.events[0]
	from, to := "", h.of.envelope.sender
	if h.what == wasComplained {
		from = "fbl@" + domainOf(h.to[0]) // a feedback report is ordinary mail
	}
	if p.forged {
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
	if _, err := w.Write(p.body); err != nil {
		return 0, fmt.Errorf("write report: %w", err)
	}
	if _, err := w.CloseWithLMTPResponse(); err != nil {
		return replyCode(err)
	}
	_ = c.Quit()
	return 250, nil
}

// replyCode takes the code out of a refusal; what is none is a failure.
func replyCode(err error) (int, error) {
	if refused := (*smtp.SMTPError)(nil); errors.As(err, &refused) {
		return refused.Code, nil
	}
	if protocol := (*textproto.Error)(nil); errors.As(err, &protocol) {
		return protocol.Code, nil
	}
	return 0, fmt.Errorf("deliver report: %w", err)
}

// forgeSender changes the last character before the at sign, where an address with a signature has it.
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
