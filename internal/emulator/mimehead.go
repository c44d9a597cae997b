package emulator

import (
	"bytes"
	"fmt"
	"mime"
	netmail "net/mail"
	"strings"
)

// mimeHead is what the ledger needs of a MIME message.
type mimeHead struct {
	from      string // bare
	messageID string // without angle brackets
	subject   string // decoded
	to        []string
	badTo     bool   // the lists in To, Cc and Bcc can't all be read
	calendar  string // see Entry
}

func readMIMEHead(raw []byte) (mimeHead, error) {
	msg, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return mimeHead{}, fmt.Errorf("read mime header: %w", err)
	}
	h := mimeHead{
		messageID: bareMessageID(msg.Header.Get("Message-Id")),
		subject:   msg.Header.Get("Subject"),
	}
	if s, err := new(mime.WordDecoder).DecodeHeader(h.subject); err == nil {
		h.subject = s
	}
	h.from, _ = parseOne(msg.Header.Get("From"))
	for _, name := range []string{"To", "Cc", "Bcc"} {
		list, ok := parseList(strings.Join(msg.Header[name], ", "))
		h.badTo = h.badTo || !ok
		h.to = append(h.to, list...)
	}
	h.to = unique(h.to)
	h.calendar = calendarOf(msg, raw)
	return h, nil
}

// bareMessageID strips the angle brackets of RFC 5322 section 3.6.4, and is "" for what is not of the form left@right.
func bareMessageID(s string) string {
	s = strings.TrimSpace(s)
	s = strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">")
	left, right, ok := strings.Cut(s, "@")
	if !ok || left == "" || right == "" || strings.ContainsAny(s, " \t\r\n<>") {
		return ""
	}
	return s
}
