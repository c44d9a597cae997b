package mime

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/sendgate/sendgate/internal/mail"
)

// quotedLimit is the longest display name that is written as a quoted string. A longer one could not be folded without a change,
// so it becomes encoded words.
const quotedLimit = 60

// addAddresses appends an address list (RFC 5322 section 3.4), or nothing for an empty one.
func (f *fields) addAddresses(name string, list []mail.Address) error {
	var tokens []string
	for i, a := range list {
		if err := checkEmail(a.Email); err != nil {
			return fmt.Errorf("header %s, address %d: %w", name, i+1, err)
		}
		if err := checkValue(name, a.Name); err != nil {
			return err
		}
		if i > 0 {
			tokens[len(tokens)-1] += ","
		}
		room := wordLimit - 1 // a comma may follow
		if i == 0 {
			room = softLine - len(name) - 2
		}
		tokens = append(tokens, mailbox(a, room)...)
	}
	if len(tokens) > 0 {
		f.add(name, tokens...)
	}
	return nil
}

// mailbox returns the tokens of one mailbox: the bare address, or the name as atoms, quoted string or encoded words. It uses the
// plainest form that keeps the name exact.
func mailbox(a mail.Address, room int) []string {
	addr := "<" + a.Email + ">"
	switch {
	case a.Name == "":
		return []string{a.Email}
	case isAtoms(a.Name):
		return append(strings.Split(a.Name, " "), addr)
	case len(a.Name) <= quotedLimit && printable(a.Name, "") && !LooksEncoded(a.Name) && strings.TrimSpace(a.Name) == a.Name:
		return []string{quoted(a.Name), addr}
	default:
		return append(encodedWords(a.Name, room), addr)
	}
}

// isAtoms reports whether the name is one or more atoms with single spaces between (RFC 5322 section 3.2.3).
func isAtoms(name string) bool {
	for word := range strings.SplitSeq(name, " ") {
		if word == "" || len(word) > quotedLimit || LooksEncoded(word) || !isAtom(word, "") {
			return false
		}
	}
	return true
}

// isAtom reports whether s is atext of RFC 5322 section 3.2.3, or one of the extra characters.
func isAtom(s, extra string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if !alnum && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) < 0 && strings.IndexByte(extra, c) < 0 {
			return false
		}
	}
	return true
}

// quoted writes a quoted string (RFC 5322 section 3.2.4).
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// checkEmail checks that the canonical form of an address may stand in a header without quoting. The local part is a dot-atom,
// which may have characters beyond ASCII (RFC 6532). The domain has LDH labels (RFC 1123 section 2.1). Quoted local parts and
// address literals are refused. The error does not contain the address.
func checkEmail(email string) error {
	at := strings.LastIndexByte(email, '@')
	if at < 1 || at == len(email)-1 {
		return errors.New("not local@domain")
	}
	if !utf8.ValidString(email) {
		return errors.New("not valid UTF-8")
	}
	for part := range strings.SplitSeq(email[:at], ".") {
		if part == "" || !isAtom(strings.Map(dropNonASCII, part), "") {
			return errors.New("local part is not a dot-atom")
		}
	}
	for _, r := range email[:at] {
		if r >= 0x80 && (r < 0xa0 || r == 0x2028 || r == 0x2029 || r == utf8.RuneError) {
			return errors.New("local part holds a control character")
		}
	}
	for label := range strings.SplitSeq(email[at+1:], ".") {
		if label == "" || !isLabel(label) {
			return errors.New("domain is not made of letters, digits and hyphens")
		}
	}
	return nil
}

func dropNonASCII(r rune) rune {
	if r >= 0x80 {
		return -1
	}
	return r
}

func isLabel(s string) bool {
	for i := range len(s) {
		c := s[i]
		if alnum := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'; !alnum && c != '-' {
			return false
		}
	}
	return true
}
