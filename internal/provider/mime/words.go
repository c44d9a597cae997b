package mime

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

const (
	wordOpenQ = "=?utf-8?q?"
	wordOpenB = "=?utf-8?b?"
	wordClose = "?="
	wordLimit = 75 // RFC 2047 section 2: an encoded word is at most 75 characters
	wordFloor = 32 // room for the delimiters of a word and its longest character, 12 bytes in q
)

// LooksEncoded reports whether a reader might decode a part of s as an encoded word. Such a text must be encoded itself, or it
// would change on the way.
func LooksEncoded(s string) bool { return strings.Contains(s, "=?") }

// Words encodes a text as encoded words with single spaces between. They may stand in a display name, without quotes.
func Words(s string) string { return strings.Join(encodedWords(s, wordLimit), " ") }

// encodedWords encodes a value as RFC 2047 words of UTF-8, each of whole characters. first bounds the first word, which shares
// its line with the field name. Every reader drops the spaces between words.
func encodedWords(value string, first int) []string {
	q := cheaperInQ(value)
	limit := min(max(first, wordFloor), wordLimit)
	var words []string
	for value != "" {
		n := fit(value, limit-len(wordOpenQ)-len(wordClose), q)
		words = append(words, encodeWord(value[:n], q))
		value = value[n:]
		limit = wordLimit
	}
	return words
}

// fit returns how many bytes of s, in whole characters, fit into size characters of encoded text. It is at least one
// character.
func fit(s string, size int, q bool) int {
	n, used := 0, 0
	for n < len(s) {
		_, w := utf8.DecodeRuneInString(s[n:])
		cost := base64.StdEncoding.EncodedLen(n + w)
		if q {
			used += qLen(s[n : n+w])
			cost = used
		}
		if cost > size && n > 0 {
			break
		}
		n += w
	}
	return n
}

func encodeWord(s string, q bool) string {
	if !q {
		return wordOpenB + base64.StdEncoding.EncodeToString([]byte(s)) + wordClose
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.WriteString(wordOpenQ)
	for i := range len(s) {
		switch c := s[i]; {
		case c == ' ':
			b.WriteByte('_')
		case qSafe(c):
			b.WriteByte(c)
		default:
			b.Write([]byte{'=', hex[c>>4], hex[c&15]})
		}
	}
	b.WriteString(wordClose)
	return b.String()
}

// qSafe lists the characters that RFC 2047 section 5 (3) allows unencoded in a phrase, the strictest place.
func qSafe(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte("!*+-/", c) >= 0
}

func qLen(s string) int {
	n := 0
	for i := range len(s) {
		if n++; s[i] != ' ' && !qSafe(s[i]) {
			n += 2
		}
	}
	return n
}

func cheaperInQ(s string) bool { return qLen(s) <= base64.StdEncoding.EncodedLen(len(s)) }
