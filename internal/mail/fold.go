package mail

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// FoldAddress returns the one form in which addresses are compared everywhere: one address is one recipient, one suppression
// and one place in a search. The domain is converted as by ParseDomain. The local part loses its case: a server may tell
// cases apart (RFC 5321 section 2.4), but such mailboxes are rarer than people who asked for no more mail. Providers report
// addresses that nobody checked, so every text has a folded form.
//
// The store compares the results of this function and folds nothing itself: lower case in SQL depends on the locale of the
// database.
func FoldAddress(s string) string {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return foldCase(s)
	}
	domain := strings.TrimRight(s[at+1:], ".") // a report may write the final dot of the root
	if d, err := ParseDomain(domain); err == nil {
		domain = d
	} else {
		domain = foldCase(domain)
	}
	local := foldCase(s[:at])
	if at == len(local) && local == s[:at] && domain == s[at+1:] {
		return s
	}
	return local + "@" + domain
}

// foldCase folds by Unicode's simple case folding, and composes (NFC). Full folding would also take "ß" for "ss", which are two
// mailboxes.
func foldCase(s string) string {
	if isASCII(s) {
		return lowerASCII(s)
	}
	return norm.NFC.String(strings.Map(foldRune, norm.NFC.String(s)))
}

// foldRune looks at the characters that differ from r in case only. It returns the lower case of the capital among them, or
// the least of them if none is a capital.
func foldRune(r rune) rune {
	least := r
	for c := r; ; {
		if unicode.IsUpper(c) {
			if l := unicode.ToLower(c); inOrbit(l, r) {
				return l
			}
		}
		least = min(least, c)
		if c = unicode.SimpleFold(c); c == r {
			return least
		}
	}
}

// inOrbit reports whether a and b differ in case only.
func inOrbit(a, b rune) bool {
	for c := unicode.SimpleFold(b); ; c = unicode.SimpleFold(c) {
		if c == a {
			return true
		}
		if c == b {
			return false
		}
	}
}
