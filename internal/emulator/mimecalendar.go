package emulator

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"strings"
)

// calendarOf finds the invitation in a message: the last alternative, a part text/calendar.
func calendarOf(msg *netmail.Message, raw []byte) string {
	if !bytes.Contains(raw, []byte("text/calendar")) {
		return "" // most messages need not be taken apart
	}
	found, _ := calendarIn(msg.Header.Get("Content-Type"), msg.Body)
	return found
}

// calendarIn looks into a multipart, and reports false for what is none or can't be read.
func calendarIn(contentType string, body io.Reader) (string, bool) {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || !strings.HasPrefix(media, "multipart/") {
		return "", false
	}
	found := ""
	for r := multipart.NewReader(body, params["boundary"]); ; {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return found, true
		}
		if err != nil {
			return "", false
		}
		kind := part.Header.Get("Content-Type")
		if inner, ok := calendarIn(kind, part); ok && inner != "" {
			return inner, true
		}
		bare, of, err := mime.ParseMediaType(kind)
		switch {
		case media != "multipart/alternative":
		case err != nil || bare != "text/calendar":
			found = "" // something comes behind it
		default:
			found = invitation(of["method"], decodedText(part))
			if !strings.EqualFold(of["charset"], "utf-8") {
				found = "invalid: charset " + of["charset"]
			}
		}
	}
}

func decodedText(part *multipart.Part) string {
	r := io.Reader(part)
	switch strings.ToLower(part.Header.Get("Content-Transfer-Encoding")) {
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, part)
	case "quoted-printable":
		r = quotedprintable.NewReader(part)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return ""
	}
	return string(b)
}

// invitation is the method of an invitation that clients show as one, or what is wrong with it.
func invitation(method, content string) string {
	switch {
	case method == "":
		return "invalid: the part names no method"
	case !strings.HasPrefix(content, "BEGIN:VCALENDAR\r\n") || !strings.HasSuffix(content, "END:VCALENDAR\r\n"):
		return "invalid: no VCALENDAR with CRLF"
	case !strings.Contains(content, "\r\nMETHOD:"+method+"\r\n"):
		return "invalid: METHOD is not " + method
	case strings.Contains(strings.ReplaceAll(content, "\r\n", ""), "\n"):
		return "invalid: a bare LF"
	}
	return method
}
