package smtp

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"io"
	netmail "net/mail"
	"net/textproto"
	"regexp"
	"strings"
	"time"

	gomessage "github.com/emersion/go-message"

	"github.com/sendgate/sendgate/internal/mail"
)

// Caps on parsing a report.
const (
	maxDepth = 4 // a list server or a gateway may have wrapped it
	maxParts = 50
	maxText  = 8 << 10

	maxPartHeader = 2 << 10   // of the header of a part that search looks for
	maxStatus     = 256 << 10 // a group has about 300 bytes, a transaction at most 1000 recipients
)

// report is a returned message, split into its parts. Missing parts are nil or empty.
type report struct {
	header   gomessage.Header
	status   []byte // message/delivery-status (RFC 3464) or its form for SMTPUTF8 (RFC 6533)
	feedback []byte // message/feedback-report (RFC 5965)
	original []byte // the start of the returned message
	text     []byte // the start of the first human-readable part
	receipt  bool   // message/disposition-notification: the message was read (RFC 8098)
	digest   [sha256.Size]byte
	words    *prose // from text, once it was read
	dropped  int    // events beyond maxSettled, once the events were read
}

// takeApart never fails: a part that can't be read counts as missing. A part that was cut off counts.
func takeApart(raw []byte) *report {
	_, body, _ := cutHeader(raw)
	r := &report{digest: sha256.Sum256(body)}
	raw = oneEnding(raw)
	if e := entity(raw); e != nil {
		r.header = e.Header
		r.walk(e, 0)
	}
	if r.status == nil && r.feedback == nil && !r.receipt {
		r.search(raw)
	}
	if r.feedback == nil && (r.header.Has(jmrpRecipient) || jmrpField.Match(r.original)) {
		r.feedback = []byte(jmrpReport)
	}
	return r
}

// entity reads a header and the body after it. It returns nil if there is nothing to read.
func entity(raw []byte) *gomessage.Entity {
	head, body, _ := cutHeader(raw)
	e, _ := gomessage.Read(io.MultiReader(bytes.NewReader(tidy(head)), strings.NewReader("\r\n"), bytes.NewReader(body))) // an error with an entity is about a charset
	return e
}

// oneEnding gives all lines the same ending. Some gateways leave lone carriage returns, or several before a line feed.
func oneEnding(b []byte) []byte {
	if bytes.IndexByte(b, '\r') < 0 {
		return b
	}
	b = endings.ReplaceAll(b, []byte("\n"))
	return bytes.ReplaceAll(b, []byte("\r"), []byte("\n"))
}

var (
	endings   = regexp.MustCompile(`\r+\n`)
	delimiter = regexp.MustCompile(`(?m)^[ \t]*--`)
	// recipientField begins a line that only a machine-readable report has.
	recipientField = regexp.MustCompile(`(?im)^final-recipient[ \t]*:[ \t]*(?:rfc822|utf-8)[ \t]*;`)
	partHeader     = regexp.MustCompile(`(?m)(?:^[ \t]*--[^\n]*\n)?\n*(?:^[0-9A-Za-z-]+:[^\n]*\n(?:[ \t]+[^\n]*\n)*)*\z`)
)

// search finds the machine-readable part in a message with a broken structure: the boundary differs from the declared one, the
// header that declares it is lost, or an empty line stands before the part's own header. It ends where the returned message
// begins, because that may be a report itself.
func (r *report) search(raw []byte) {
	end := len(raw)
	if at := originalPart.FindIndex(raw); at != nil {
		end = at[0]
		if e := entity(raw[at[0]:]); e != nil {
			r.take(e)
		}
	}
	at := statusPart.FindIndex(raw[:end])
	if at == nil {
		r.searchFields(raw[:end])
		return
	}
	start := at[0]
	if before := partHeader.FindIndex(raw[max(0, start-maxPartHeader):start]); before != nil {
		start = max(0, start-maxPartHeader) + before[0]
	}
	if len(r.text) == 0 || delimiter.Match(r.text) { // the two parts were read as one
		r.text = raw[:min(start, maxText)]
		if e := entity(raw[:start]); e != nil {
			r.text, _ = io.ReadAll(io.LimitReader(e.Body, maxText))
		}
	}
	part := bytes.TrimLeft(raw[start:end], "\n")
	if cut := delimiter.FindIndex(part); cut != nil && cut[0] == 0 {
		_, part, _ = bytes.Cut(part, []byte("\n"))
		part = bytes.TrimLeft(part, "\n")
	}
	if head, body, ok := cutHeader(part); ok {
		if cut := delimiter.FindIndex(body); cut != nil {
			part = part[:len(head)+1+cut[0]]
		}
	}
	if e := entity(part); e != nil {
		r.take(e)
	}
}

// searchFields finds the machine-readable fields if all marks of the parts are lost. It also finds the text if no part has any.
func (r *report) searchFields(raw []byte) {
	_, body, _ := cutHeader(raw)
	if at := recipientField.FindIndex(body); at != nil {
		start := bytes.LastIndex(body[:at[0]], []byte("\n\n")) + 1
		r.status = body[start:min(len(body), start+maxStatus)]
		body = body[:start]
	}
	if len(r.text) == 0 || r.status != nil {
		r.text = body[:min(len(body), maxText)]
	}
}

// walk takes the parts of a message, down to maxDepth levels.
func (r *report) walk(e *gomessage.Entity, depth int) {
	parts := e.MultipartReader()
	if parts == nil || depth == maxDepth {
		r.take(e)
		return
	}
	for range maxParts {
		part, _ := parts.NextPart()
		if part == nil {
			return
		}
		r.walk(part, depth+1)
	}
}

// take keeps a part if it is the first of its kind. It does not look into a message inside: the original may be a report itself.
func (r *report) take(e *gomessage.Entity) {
	kind, _, _ := e.Header.ContentType()
	switch kind = strings.ToLower(kind); {
	case kind == "message/delivery-status", kind == "message/global-delivery-status":
		readPart(&r.status, e, maxStatus)
	case kind == "message/feedback-report":
		readPart(&r.feedback, e, maxText)
	case kind == "message/disposition-notification":
		r.receipt = true
	case kind == "message/rfc822", kind == "message/global", kind == "text/rfc822-headers", kind == "message/rfc822-headers", kind == "message/global-headers":
		readPart(&r.original, e, maxOriginal)
	case kind == "text/html":
		if len(r.text) == 0 {
			readPart(&r.text, e, 4*maxText) // most of it is markup
			r.text = []byte(plain(string(r.text)))
		}
	case strings.HasPrefix(kind, "text/"), kind == "":
		readPart(&r.text, e, maxText)
	}
}

// prose returns the parsed human-readable text.
func (r *report) prose() *prose {
	if r.words == nil {
		r.words = readProse(string(r.text))
	}
	return r.words
}

// readPart reads up to limit bytes of a part, unless one was read before.
func readPart(to *[]byte, e *gomessage.Entity, limit int64) {
	if len(*to) > 0 {
		return
	}
	b, _ := io.ReadAll(io.LimitReader(e.Body, limit)) // after an error, the bytes read so far are used
	if b == nil {
		b = []byte{}
	}
	*to = b
}

// isReport tells reports that machines send about messages from mail that people write.
func (r *report) isReport() bool {
	kind, _, _ := r.header.ContentType()
	auto := autoSubmitted(&r.header)
	return strings.EqualFold(kind, "multipart/report") || r.status != nil || r.feedback != nil || auto != "" && auto != "no" ||
		r.header.Has("X-Failed-Recipients") || r.fromDaemon()
}

// date is when the report was written by its own clock. If that is not plausible, it is the time of receipt.
func (r *report) date() time.Time {
	received, _ := time.Parse(time.RFC3339, r.header.Get(keptReceived))
	return r.plausible(r.header.Get("Date"), received.UTC())
}

// plausible reads a date (RFC 5322 section 3.3) that lies between sending and receipt, with five minutes allowed for clock skew.
// Otherwise it returns other.
func (r *report) plausible(text string, other time.Time) time.Time {
	const skew = 5 * time.Minute
	t, err := netmail.ParseDate(text)
	received, rerr := time.Parse(time.RFC3339, r.header.Get(keptReceived))
	if err != nil || rerr != nil || t.After(received.Add(skew)) || t.Before(r.messageID().Time().Add(-skew)) {
		return other
	}
	return t.UTC()
}

// uniqueID is the same for a report that comes twice. It uses the Message-ID, or the bytes if there is none.
func (r *report) uniqueID(e *mail.Event) string {
	h := sha256.New()
	own := cmp.Or(r.header.Get("Message-Id"), string(r.digest[:]))
	enhanced := ""
	if e.Bounce != nil {
		enhanced = e.Bounce.Enhanced
	}
	for _, s := range []string{e.MessageID.String(), strings.ToLower(e.Recipient), e.Name, enhanced, own} {
		_, _ = io.WriteString(h, s+"\x00")
	}
	return hex.EncodeToString(h.Sum(nil))
}

// field matches the name of a header field. RFC 5322 allows more characters; nobody uses them.
var field = regexp.MustCompile(`^[0-9A-Za-z_.-]+[ \t]*:`)

// tidy makes header fields that strict parsers accept: it drops lines that belong to no field, and replaces control characters.
func tidy(b []byte) []byte {
	out := make([]byte, 0, len(b)+2)
	open := false // there is a field that a folded line can belong to
	for line := range bytes.Lines(b) {
		line = bytes.TrimRight(line, "\r\n")
		name := field.Find(line)
		switch {
		case len(line) == 0:
			open = false
		case line[0] == ' ' || line[0] == '\t':
			if !open {
				continue
			}
		case name == nil:
			open = false
			continue
		default:
			open = true
			out = append(append(out, bytes.TrimRight(name, " \t:")...), ':')
			line = line[len(name):]
		}
		out = append(append(out, bytes.Map(printable, line)...), '\r', '\n')
	}
	return out
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}

// groups reads groups of fields, separated by empty lines (RFC 3464 section 2.1): one for the whole message, and one for each
// recipient. It leaves out empty groups, and groups beyond the size of any real report.
func groups(b []byte) []textproto.MIMEHeader {
	r := textproto.NewReader(bufio.NewReader(io.MultiReader(bytes.NewReader(parted(tidy(b))), strings.NewReader("\r\n\r\n"))))
	var all []textproto.MIMEHeader
	for {
		g, err := r.ReadMIMEHeader()
		if len(g) > 0 {
			all = append(all, g)
		}
		if err != nil || len(all) > maxReported {
			return all
		}
	}
}

// parted puts the missing empty line between two recipients in one group: before a recipient that follows the result of another.
func parted(b []byte) []byte {
	out := make([]byte, 0, len(b)+64)
	var named, told bool // what the group has so far: a recipient, a result
	for line := range bytes.Lines(b) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		switch strings.ToLower(string(name)) {
		case "\r\n":
			named, told = false, false
		case "original-recipient", "final-recipient":
			if named && told {
				out, told = append(out, "\r\n"...), false
			}
			named = true
		case "action", "status", "diagnostic-code":
			told = true
		}
		out = append(out, line...)
	}
	return out
}
