package mime

import (
	"regexp"
	"strings"
)

// isStructured reports whether the value of a field holds message ids, URLs or addresses, between angle brackets, and
// only beside them text for people (RFC 5322 section 3.6.4, RFC 2369, RFC 2919, RFC 5064, RFC 5703, RFC 8098). An encoded
// word may stand only in that text (RFC 2047 section 5): a reader does not look for one in an id.
func isStructured(name string) bool {
	switch n := strings.ToLower(name); n {
	case "references", "in-reply-to", "original-message-id", "supersedes", "obsoletes", "archived-at",
		"disposition-notification-to", "return-receipt-to", "x-confirm-reading-to", "mail-followup-to", "mail-reply-to":
		return true
	default:
		return strings.HasPrefix(n, "list-")
	}
}

// pieces cuts a structured value: something in angle brackets, a quoted string, space, a word, or a single character.
var pieces = regexp.MustCompile(`(?s)<[^>]*>|"(?:\\.|[^"\\])*"|[ \t]+|[^ \t<"(),]+|.`)

// structured writes a structured value in ASCII. Of its text only the words that need it become encoded words; what
// stands in angle brackets stays as it is, with characters beyond ASCII as in a URL (RFC 3987 section 3.1).
func structured(value string, first int) string {
	var out strings.Builder
	var coded, space string // text to encode that is not written yet, and the space after it
	flush := func() {
		if coded != "" {
			out.WriteString(strings.Join(encodedWords(coded, first), " "))
			first = wordLimit
		}
		out.WriteString(space)
		coded, space = "", ""
	}
	for _, p := range pieces.FindAllString(value, -1) {
		switch {
		case isBlank(p[0]):
			space += p
		case p[0] == '<' && len(p) > 1:
			if coded != "" && space == "" {
				space = " " // an encoded word ends at a space
			}
			flush()
			out.WriteString(percentNonASCII(p))
		case printable(p, "") && !LooksEncoded(p):
			flush()
			out.WriteString(p)
		default:
			if coded == "" {
				flush()
			}
			coded, space = coded+space+unquoted(p), ""
		}
	}
	flush()
	return out.String()
}

// unquoted returns what a quoted string means, and every other text as it is.
func unquoted(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	return regexp.MustCompile(`\\(.)`).ReplaceAllString(s[1:len(s)-1], "$1")
}

func percentNonASCII(s string) string {
	if printable(s, "\t") {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if s[i] < 0x80 {
			b.WriteByte(s[i])
		} else {
			b.WriteString(percent(s[i : i+1]))
		}
	}
	return b.String()
}
