package mime

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sendgate/sendgate/internal/mail"
)

const (
	softLine = 76  // RFC 5322 section 2.1.1 asks for 78, RFC 2047 section 2 for 76 with encoded words
	hardLine = 998 // RFC 5322 section 2.1.1
)

// fields is a list of header fields, each folded and closed by CRLF.
//
// We fold fields ourselves and give go-message the raw field. Its own folding breaks a long token by inserting a space, which
// changes the value, and it encodes parameters as RFC 2047 words although RFC 2231 is the rule.
type fields struct{ list [][]byte }

// add appends a field. Its tokens are joined by single spaces, each of which may become a fold (RFC 5322 section 2.2.3). The
// caller has checked the tokens.
func (f *fields) add(name string, tokens ...string) {
	b := make([]byte, 0, len(name)+2+len(tokens)*32)
	b = append(b, name...)
	b = append(b, ':')
	line := len(b)
	for i, t := range tokens {
		// The first token stays on the line of the name unless that gets too long for any server: some readers
		// drop a field whose first line is empty.
		if limit := softLine; (i > 0 && line+1+len(t) > limit) || line+1+len(t) > hardLine {
			b = append(b, '\r', '\n')
			line = 0
		}
		b = append(b, ' ')
		b = append(b, t...)
		line += 1 + len(t)
	}
	f.list = append(f.list, append(b, '\r', '\n'))
}

// addText appends a field with a value from the caller.
func (f *fields) addText(name, value string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := checkValue(name, value); err != nil {
		return err
	}
	f.add(name, valueTokens(name, value)...)
	return nil
}

// Value returns the value of a field in ASCII, for providers that write the field themselves and use the value unchanged. It is
// the value that Build writes, without its folds.
func Value(name, value string) string { return strings.Join(valueTokens(name, value), " ") }

// valueTokens splits a value where it may be folded. A reader gets the text as given. So everything that could change on the way
// (characters beyond ASCII, leading or trailing space, a literal "=?", a part that is too long for a line) becomes RFC 2047
// encoded words. A structured value has its own rules.
func valueTokens(name, value string) []string {
	if value == "" {
		return nil
	}
	room := softLine - len(name) - len(": ")
	if mail.SyntaxOf(name) != mail.Unstructured {
		return structured(name, value, room)
	}
	if !LooksEncoded(value) && strings.Trim(value, " \t") == value && printable(value, "\t") {
		if tokens, ok := foldable(value, hardLine-len(name)-2); ok {
			return tokens
		}
	}
	return encodedWords(value, room)
}

// checkName checks a field name against RFC 5322 section 3.6.8 and against a length that leaves room on the line.
func checkName(name string) error {
	if name == "" || len(name) > softLine {
		return fmt.Errorf("header name of %d characters, want 1..%d", len(name), softLine)
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == ':' {
			return fmt.Errorf("header name holds the character %#02x", c)
		}
	}
	return nil
}

// checkValue refuses characters that could end the field or that the next server could read differently: control characters and
// invalid UTF-8. The error does not contain the value.
func checkValue(name, value string) error {
	for i := range len(value) {
		if c := value[i]; (c < ' ' && c != '\t') || c == 0x7f {
			return fmt.Errorf("header %s holds the control character %#02x", name, c)
		}
	}
	if !utf8.ValidString(value) {
		return fmt.Errorf("header %s is not valid UTF-8", name)
	}
	return nil
}

// foldable splits a value at the spaces where a fold changes nothing: single ones between visible characters. It returns false if
// a token is too long for a line.
func foldable(value string, maxToken int) ([]string, bool) {
	var tokens []string
	start := 0
	for i := 1; i < len(value)-1; i++ {
		if value[i] == ' ' && !isBlank(value[i-1]) && !isBlank(value[i+1]) {
			tokens = append(tokens, value[start:i])
			start = i + 1
		}
	}
	tokens = append(tokens, value[start:])
	return tokens, !slices.ContainsFunc(tokens, func(t string) bool { return len(t) > maxToken })
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// printable reports whether s is printable ASCII, or one of the extra characters.
func printable(s, extra string) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' || c > '~') && strings.IndexByte(extra, c) < 0 {
			return false
		}
	}
	return true
}
