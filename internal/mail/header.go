package mail

import (
	"fmt"
	"strings"
)

// HeaderSyntax is the form of a header field's value. It decides which parts can be written in ASCII: an encoded word is for
// text that people read (RFC 2047 section 5), and a program that looks for an id or a URL does not decode one.
type HeaderSyntax int

// The syntaxes.
const (
	Unstructured HeaderSyntax = iota // text: encoded words may stand anywhere
	Tokens                           // keywords of a protocol, for programs
	MessageIDs                       // ids in angle brackets (RFC 5322 section 3.6.4)
	URLs                             // URLs in angle brackets, with comments (RFC 2369)
	Named                            // a name, and an address or an id in angle brackets (RFC 2919, RFC 8098)
)

// SyntaxOf returns the syntax of a field by its name. A field that is not listed is text.
func SyntaxOf(name string) HeaderSyntax {
	switch name = lowerASCII(name); name {
	case "references", "in-reply-to", "original-message-id", "message-id", "supersedes", "obsoletes", "x-forwarded-message-id":
		return MessageIDs
	case "archived-at", "x-list-unsubscribe":
		return URLs
	case "list-id", "disposition-notification-to", "return-receipt-to", "x-confirm-reading-to", "mail-followup-to", "mail-reply-to":
		return Named
	case "list-unsubscribe-post", "auto-submitted", "precedence", "feedback-id", "importance", "priority", "sensitivity",
		"autocrypt", "openpgp", "autosubmitted", "autoforwarded", "disposition-notification-options", "require-recipient-valid-since",
		"tls-required", "mt-priority", "message-context", "message-type", "conversion", "prevent-nondelivery-report",
		"expires", "expiry-date", "reply-by", "deferred-delivery", "latest-delivery-time", "delivery-date",
		"accept-language", "language", "newsgroups", "followup-to", "bimi-selector", "bimi-location", "vbr-info", "solicitation":
		return Tokens
	}
	switch {
	case strings.HasPrefix(name, "list-"):
		return URLs
	case strings.HasPrefix(name, "content-"):
		return Tokens
	}
	return Unstructured
}

// HeaderPieces cuts a structured value into parts in angle brackets, quoted strings, space, words and single characters.
func HeaderPieces(value string) []string {
	var pieces []string
	for value != "" {
		n := pieceLen(value)
		pieces, value = append(pieces, value[:n]), value[n:]
	}
	return pieces
}

// pieceLen returns the length of the first piece. A bracket or quote that is not closed is a piece of one character.
func pieceLen(s string) int {
	switch s[0] {
	case ' ', '\t':
		return len(s) - len(strings.TrimLeft(s, " \t"))
	case '<':
		if i := strings.IndexAny(s[1:], "<>"); i >= 0 && s[1+i] == '>' {
			return i + 2
		}
		return 1
	case '"':
		for i := 1; i < min(len(s), maxHeaderLine); i++ { // a longer one fits on no line
			switch s[i] {
			case '\\':
				i++
			case '"':
				return i + 1
			}
		}
		return 1
	case '(', ')', ',':
		return 1
	}
	if i := strings.IndexAny(s, " \t<\"(),"); i > 0 {
		return i
	}
	return len(s)
}

// Caps of a header field, in bytes. A line has at most 998, the space at its beginning included (RFC 5322 section 2.1.1), and
// a structured field may have many, since it may be folded.
const (
	maxHeaderLine = 998
	maxStructured = 64 << 10
)

// checkStructured accepts a value if every part of it can be written in ASCII and fits on a line.
func checkStructured(name, value string) *fault {
	if len(value) > maxStructured {
		return &fault{"too_long", fmt.Sprintf("%s has %d bytes; at most %d can be sent", name, len(value), maxStructured)}
	}
	syntax, comment, run, last := SyntaxOf(name), 0, 0, byte(0)
	for _, p := range HeaderPieces(value) {
		if !isASCII(p) && !encodable(syntax, p, comment > 0) {
			return &fault{"not_ascii", name + " " + notASCII(syntax)}
		}
		switch { // where it may be folded
		case p[0] == ' ' || p[0] == '\t', !isASCII(p) && p[0] != '<':
			p, run = " ", -1
		case p[0] == '<' && (last == '>' || last == ','):
			run = 0
		}
		if run += percentLen(p); run >= maxHeaderLine {
			return &fault{"too_long", fmt.Sprintf("%s holds %d bytes in a row that can't be folded; a line has room for %d", name, run, maxHeaderLine-1)}
		}
		switch last = p[len(p)-1]; p {
		case "(":
			comment++
		case ")":
			comment--
		}
	}
	return nil
}

// encodable reports whether a piece with characters beyond ASCII can be written: a name and a comment as encoded words, and
// a URL percent-encoded (RFC 3987 section 3.1), which does not work for its host.
func encodable(syntax HeaderSyntax, piece string, comment bool) bool {
	switch bracketed := piece[0] == '<' && len(piece) > 1; {
	case syntax == URLs && bracketed:
		host, _, _ := strings.Cut(afterScheme(piece), "/")
		return isASCII(host)
	case syntax == URLs:
		return comment
	default:
		return syntax == Named && !bracketed
	}
}

// afterScheme returns the part after "https://", or nothing for a URL without an authority.
func afterScheme(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	return rest
}

func notASCII(syntax HeaderSyntax) string {
	switch syntax {
	case MessageIDs:
		return "holds message ids, which are ASCII: a reader does not decode them"
	case URLs:
		return "holds URLs between angle brackets, which are ASCII: percent-encode the path, and write the host in Punycode"
	case Named:
		return "may hold characters beyond ASCII in the name only, not between the angle brackets"
	case Tokens, Unstructured:
	}
	return "is read by programs and holds ASCII only: a reader does not decode it"
}

// percentLen returns the length of a piece after percent-encoding its non-ASCII bytes.
func percentLen(s string) int {
	n := len(s)
	for i := range len(s) {
		if s[i] >= 0x80 {
			n += 2
		}
	}
	return n
}
