package mime

import (
	"regexp"
	"strings"

	"github.com/sendgate/sendgate/internal/mail"
)

// structured returns the tokens of a structured value, in ASCII. In names and comments, the words that need it become encoded
// words. Everything else stays as it is, with characters beyond ASCII as in a URL (RFC 3987 section 3.1). A value may have such
// characters outside a URL if it was accepted before they were refused.
func structured(name, value string, first int) []string {
	w := &writer{syntax: mail.SyntaxOf(name), first: first}
	comment := 0
	for _, p := range mail.HeaderPieces(value) {
		switch {
		case isBlank(p[0]):
			w.space = true
		case p[0] == '<' && len(p) > 1:
			w.bracketed(p)
		case w.takesWords(comment > 0) && (!printable(p, "") || LooksEncoded(p)):
			w.text(unquoted(p))
		default:
			w.literal(percentNonASCII(p))
		}
		switch p {
		case "(":
			comment++
		case ")":
			comment--
		}
	}
	w.flush()
	w.end()
	return w.tokens
}

// writer collects the tokens of a structured value.
type writer struct {
	syntax mail.HeaderSyntax
	first  int // room for the first encoded word
	tokens []string
	token  strings.Builder // the current one
	coded  string          // text to encode that is not written yet
	space  bool            // a space stands before the next piece
}

// takesWords reports whether an encoded word may stand here.
func (w *writer) takesWords(comment bool) bool {
	return w.syntax == mail.Named || w.syntax == mail.URLs && comment
}

// text takes a piece to encode. Spaces between two pieces belong to the text: readers drop spaces between encoded words.
func (w *writer) text(s string) {
	switch {
	case w.coded == "":
		w.gap()
	case w.space:
		s = " " + s
	}
	w.coded, w.space = w.coded+s, false
}

func (w *writer) literal(s string) {
	w.flush()
	w.gap()
	w.token.WriteString(s)
	if s == "," && w.syntax != mail.Tokens {
		w.end()
	}
}

// bracketed writes a text in angle brackets. A space may precede it wherever it follows another one or encoded text.
func (w *writer) bracketed(s string) {
	if w.coded != "" || strings.HasSuffix(w.token.String(), ">") {
		w.space = true
	}
	w.literal(percentNonASCII(s))
}

// flush writes the collected text as encoded words.
func (w *writer) flush() {
	if w.coded == "" {
		return
	}
	for i, word := range encodedWords(w.coded, w.first) {
		if i > 0 {
			w.end()
		}
		w.token.WriteString(word)
	}
	w.coded, w.first = "", wordLimit
}

func (w *writer) gap() {
	if w.space {
		w.end()
	}
	w.space = false
}

// end closes a token. It cuts a token that fits on no line.
func (w *writer) end() {
	for s := w.token.String(); s != ""; {
		n := min(len(s), hardLine-1)
		w.tokens, s = append(w.tokens, s[:n]), s[n:]
	}
	w.token.Reset()
}

// unquoted returns the content of a quoted string, and any other text unchanged.
func unquoted(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	return regexp.MustCompile(`\\(.)`).ReplaceAllString(s[1:len(s)-1], "$1")
}

// percentNonASCII percent-encodes the characters beyond ASCII.
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
