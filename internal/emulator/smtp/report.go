package smtp

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
)

// relayName is the host name of the relay.
const relayName = "relay.emulator.local"

// reportDate formats a date as in mail, with the time zone name that Postfix adds.
func reportDate(t time.Time) string { return t.UTC().Format("Mon, _2 Jan 2006 15:04:05 -0700 (MST)") }

// report writes a multipart/report (RFC 6522) with three parts.
type report struct {
	bytes.Buffer
	boundary string
}

// newReport begins a report with its header.
func newReport(h *emulator.Event, kind string, header ...string) *report {
	r := &report{boundary: h.Message.ProviderMessageID + fmt.Sprintf(".%d/", h.At.UnixMicro()) + relayName}
	r.lines(header...)
	r.lines(
		"Auto-Submitted: auto-replied",
		"MIME-Version: 1.0",
		"Content-Type: multipart/report; report-type="+kind+";",
		"\tboundary=\""+r.boundary+"\"",
		"Message-Id: <"+h.At.UTC().Format("20060102150405")+"."+fmt.Sprintf("%X", h.Hash("report")[:5])+"@"+relayName+">",
		"",
		"This is a MIME-encapsulated message.",
		"",
	)
	return r
}

func (r *report) lines(all ...string) {
	for _, s := range all {
		r.WriteString(s + "\r\n")
	}
}

// part begins a new part.
func (r *report) part(description, contentType string) {
	r.lines("--"+r.boundary, "Content-Description: "+description, "Content-Type: "+contentType, "")
}

// returned writes the last part: the message's header, as Postfix does for messages over bounce_size_limit.
func (r *report) returned(h *emulator.Event) []byte {
	r.part("Undelivered Message Headers", "text/rfc822-headers")
	r.lines("Return-Path: <" + envelopeOf(h).sender + ">")
	r.Write(envelopeOf(h).header)
	r.lines("", "--"+r.boundary+"--")
	return r.Bytes()
}

// deliveryReport is the report that Postfix sends when a message could not be delivered, is late, or was delivered (RFC 3464).
// One report covers all recipients with the same result.
func deliveryReport(h *emulator.Event) []byte {
	subject, status, action := "Undelivered Mail Returned to Sender", "5.1.1", "failed"
	said := emulator.TextBounced
	switch h.Type {
	case emulator.SoftBounced:
		status, said = "5.2.2", emulator.TextFull
	case emulator.Deferred:
		subject, status, action = "Delayed Mail (still being retried)", "4.3.0", "delayed"
		said = func(string) string { return emulator.TextDeferred }
	case emulator.Delivered:
		subject, status, action = "Successful Mail Delivery Report", "2.0.0", "relayed"
		said = func(string) string { return "250 2.0.0 OK " + emulator.QueueID(h) }
	case emulator.Bounced, emulator.Accepted, emulator.Dropped, emulator.Complained, emulator.Deactivated, emulator.Opened, emulator.Clicked:
	}
	r := newReport(h, "delivery-status",
		"Date: "+reportDate(h.At),
		"From: MAILER-DAEMON@"+relayName+" (Mail Delivery System)",
		"Subject: "+subject,
		"To: "+envelopeOf(h).sender,
	)
	r.part("Notification", "text/plain; charset=us-ascii")
	r.lines("This is the mail system at host "+relayName+".", "")
	r.lines(reportNotice(action)...)
	r.lines("                   The mail system", "")
	for _, to := range h.To {
		r.lines("<"+to+">: host "+emulator.MXOf(to)+"["+emulator.RemoteIP+"] said:", "    "+said(to)+" (in reply to RCPT TO", "    command)", "")
	}
	r.part("Delivery report", "message/delivery-status")
	r.lines("Reporting-MTA: dns; " + relayName)
	if id := envelopeOf(h).id; id != "" {
		r.lines("Original-Envelope-Id: " + id)
	}
	r.lines(
		"X-Postfix-Queue-ID: "+h.Message.ProviderMessageID,
		"X-Postfix-Sender: rfc822; "+envelopeOf(h).sender,
		"Arrival-Date: "+reportDate(h.Message.At),
		"",
	)
	for _, to := range h.To {
		r.recipient(h, to, action, status, said(to))
	}
	return r.returned(h)
}

// reportNotice is Postfix's text for people, by action.
func reportNotice(action string) []string {
	switch action {
	case "delayed":
		return []string{
			"####################################################################",
			"# THIS IS A WARNING ONLY.  YOU DO NOT NEED TO RESEND YOUR MESSAGE. #",
			"####################################################################",
			"", "Your message could not be delivered for more than 4 hour(s).",
			"It will be retried until it is 5 day(s) old.", "",
		}
	case "relayed":
		return []string{"Your message was successfully delivered to the destination(s)", "listed below.", ""}
	}
	return []string{
		"I'm sorry to have to inform you that your message could not", "be delivered to one or more recipients. It's attached below.",
		"", "For further assistance, please send mail to postmaster.", "",
	}
}

// recipient writes one group of the delivery status.
func (r *report) recipient(h *emulator.Event, to, action, status, said string) {
	r.lines("Final-Recipient: rfc822; " + to)
	original := envelopeOf(h).to[to].original
	if original == "" {
		original = "rfc822;" + to
	}
	r.lines("Original-Recipient: "+original, "Action: "+action, "Status: "+status, "Remote-MTA: dns; "+emulator.MXOf(to))
	code := "Diagnostic-Code: smtp; " + said
	if cut := strings.LastIndexByte(code[:min(len(code), 72)], ' '); len(code) > 72 {
		code = code[:cut] + "\r\n   " + code[cut:] // Postfix folds long lines
	}
	r.lines(code)
	if action == "delayed" {
		r.lines("Will-Retry-Until: " + reportDate(h.Message.At.Add(5*24*time.Hour)))
	}
	r.lines("")
}

// feedbackReport is a complaint in the Abuse Reporting Format (RFC 5965), in the form that a feedback loop sends.
func feedbackReport(h *emulator.Event) []byte {
	from := h.To[0]
	r := newReport(h, "feedback-report",
		"Date: "+reportDate(h.At),
		"From: <fbl@"+emulator.DomainOf(from)+">",
		"Subject: FW: "+asciiOnly(h.Message.Subject),
		"To: <"+envelopeOf(h).sender+">",
	)
	r.part("Notification", `text/plain; charset="US-ASCII"`)
	r.lines("This is an email abuse report for an email message received from IP", emulator.SendingIP+" on "+reportDate(h.Message.At)+".", "")
	r.part("Feedback report", "message/feedback-report")
	r.lines(
		"Feedback-Type: abuse", "User-Agent: EmulatedFBL/1.0", "Version: 1", "Original-Mail-From: <"+envelopeOf(h).sender+">",
	)
	for _, to := range h.To {
		r.lines("Original-Rcpt-To: <" + to + ">")
	}
	r.lines(
		"Arrival-Date: "+reportDate(h.Message.At), "Reporting-MTA: dns; "+emulator.MXOf(from), "Source-IP: "+emulator.SendingIP,
		"Reported-Domain: "+emulator.DomainOf(h.Message.From), "",
	)
	return r.returned(h)
}

// asciiOnly keeps a header plain: it replaces characters beyond printable ASCII by question marks.
func asciiOnly(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s)
}
