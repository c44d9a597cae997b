package mail

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// fault is why one value is refused; the caller knows the field.
type fault struct{ code, message string }

func (f *fault) invalid(field string) *Invalid {
	return &Invalid{Fields: []Field{{Field: field, Code: f.code, Message: f.message}}}
}

// checkControls refuses characters that could end or hide a header line: C0 except TAB, also DEL, C1 and the line and
// paragraph separators, and text that is not UTF-8. It is for values that are shown to people; all else is allowed there.
func checkControls(s string) *fault {
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				return &fault{"invalid_utf8", "the text is not UTF-8"}
			}
			if isLineBreaker(r) {
				return controlChar()
			}
			i += n
			continue
		}
		if c < 0x20 && c != '\t' || c == 0x7f {
			return controlChar()
		}
		i++
	}
	return nil
}

// checkChars is checkControls, and also refuses TAB and characters that change or hide the look of an identifier:
// bidirectional controls and zero-width characters. Joiners are part of names in several scripts and of emoji, so a name
// may hold them. In a domain IDNA decides on them, and elsewhere isGraphic refuses them.
func checkChars(s string, name bool) *fault {
	if f := checkControls(s); f != nil {
		return f
	}
	for i, r := range s {
		switch {
		case r == '\t':
			return controlChar()
		case r < utf8.RuneSelf:
		case isJoiner(r) && (name || i > strings.IndexByte(s, '@')):
		case isInvisible(r):
			return &fault{"invisible_char", "the text holds an invisible or direction-changing character"}
		}
	}
	return nil
}

func controlChar() *fault {
	return &fault{"control_char", "the text holds a control character or a line break"}
}

// isLineBreaker reports whether r, beyond ASCII, is a C1 control (NEL among them) or U+2028, U+2029.
func isLineBreaker(r rune) bool { return r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 }

// isJoiner reports whether r is ZWNJ or ZWJ.
func isJoiner(r rune) bool { return r == 0x200c || r == 0x200d }

// isInvisible reports whether r is a format character (category Cf: soft hyphen, zero-width space, bidirectional
// controls, tags) or one of the fillers that show nothing although they count as letters.
func isInvisible(r rune) bool {
	switch r {
	case 0x034f, 0x115f, 0x1160, 0x17b4, 0x17b5, 0x3164, 0xffa0:
		return true
	}
	return unicode.Is(unicode.Cf, r)
}

// isGraphic reports whether r is visible and not a space.
func isGraphic(r rune) bool {
	return unicode.IsGraphic(r) && !unicode.IsSpace(r) && !isInvisible(r) && r != utf8.RuneError
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func isLetterDigit(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// lowerASCII lowers an ASCII string, without an allocation where nothing changes.
func lowerASCII(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}
