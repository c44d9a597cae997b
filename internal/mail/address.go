package mail

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Address is a mailbox in canonical form: the local part exactly as given, the domain as lower-case A-labels
// (RFC 5890). Only ParseAddress and ParseMailbox make one from outside input.
type Address struct {
	Email string `json:"email"`
	Name  string `json:"name,omitempty"`
}

// Domain returns what stands behind the last @.
func (a Address) Domain() string { return a.Email[strings.LastIndexByte(a.Email, '@')+1:] }

// Local returns what stands before the last @.
func (a Address) Local() string { return a.Email[:max(strings.LastIndexByte(a.Email, '@'), 0)] }

// NeedsSMTPUTF8 reports whether the local part holds non-ASCII characters, which only a server with SMTPUTF8
// (RFC 6531) can carry. The domain never does: it is stored as A-labels.
func (a Address) NeedsSMTPUTF8() bool { return !isASCII(a.Email) }

// Caps of an address, in bytes. The first two are RFC 5321 sections 4.5.3.1.1 and 4.5.3.1.3 (a path of 256 with its
// angle brackets); the input caps bound the work before anything is parsed: a domain in U-labels may be four times as
// long as in A-labels, and a quoted name twice as long as its value.
const (
	maxLocal        = 64
	maxAddress      = 254
	maxAddressInput = maxLocal + 1 + 4*maxDomain
	maxName         = 255
	maxMailboxInput = 2*maxName + maxAddressInput + 8
)

// ParseAddress reads one bare address, "ann@example.org", by a grammar stricter than RFC 5322: a dot-atom, an @ and a
// domain that ParseDomain takes. There are no quotes, comments, groups, routes or address literals, since each of them
// has carried a smuggled command or a second recipient somewhere. A non-ASCII local part must be in NFC
// (RFC 6532 section 3.1) and is reported by NeedsSMTPUTF8. The error is an *Invalid with one Field named "email".
// ParseAddress takes time linear in len(s), and constant time once s is over its cap.
func ParseAddress(s string) (Address, error) {
	a, f := parseAddress(s)
	if f != nil {
		return Address{}, f.invalid("email")
	}
	return a, nil
}

// ParseMailbox reads one mailbox as people write it: a bare address, or a name with the address in angle brackets,
// "Ann <ann@example.org>". A name that holds any of ()<>[]:;@\," must stand in double quotes, where \" and \\ mean
// the character itself. The error is an *Invalid with one Field named "email" or "name".
func ParseMailbox(s string) (Address, error) {
	a, field, f := parseMailbox(s)
	if f != nil {
		return Address{}, f.invalid(field)
	}
	return a, nil
}

func parseAddress(s string) (Address, *fault) {
	if f := checkShape(s); f != nil {
		return Address{}, f
	}
	at := strings.IndexByte(s, '@')
	if f := checkLocal(s[:at]); f != nil {
		return Address{}, f
	}
	domain, f := parseDomain(s[at+1:])
	if f != nil {
		return Address{}, f
	}
	if at+1+len(domain) > maxAddress {
		return Address{}, &fault{"address_too_long", "an address has at most 254 bytes"}
	}
	if domain == s[at+1:] {
		return Address{Email: s}, nil
	}
	return Address{Email: s[:at+1] + domain}, nil
}

// checkShape says why s is not one bare address, so that the caller can correct it.
func checkShape(s string) *fault {
	if len(s) > maxAddressInput {
		return &fault{"address_too_long", "an address has at most 254 bytes"}
	}
	if s == "" {
		return &fault{"required", "an address is missing"}
	}
	if f := checkChars(s, false); f != nil {
		return f
	}
	switch {
	case strings.ContainsAny(s, "<>"):
		return &fault{"bare_address_expected", "give the address alone, without a name and angle brackets"}
	case strings.IndexByte(s, '"') >= 0:
		return &fault{"quoted_local_part", "a quoted local part is not accepted"}
	case strings.ContainsAny(s, ",;"):
		return &fault{"single_address_expected", "give one address; further ones are elements of the list"}
	case strings.IndexByte(s, '[') >= 0:
		return &fault{"domain_literal", "an IP address in place of a domain is not accepted"}
	case strings.Count(s, "@") != 1:
		return &fault{"invalid_address", "an address holds one @"}
	}
	return nil
}

// checkLocal accepts a dot-atom (RFC 5322 section 3.2.3) of at most 64 bytes, with the characters of RFC 6532 added.
func checkLocal(s string) *fault {
	if len(s) > maxLocal {
		return &fault{"local_part_too_long", "the part before the @ has at most 64 bytes"}
	}
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return &fault{"invalid_local_part", "the part before the @ is empty or has a dot in the wrong place"}
	}
	if i := strings.Index(s, "=?"); i >= 0 && strings.Contains(s[i+2:], "?=") {
		return &fault{"invalid_local_part", "an encoded word is no local part"} // RFC 2047 section 5
	}
	for _, r := range s {
		if r < utf8.RuneSelf && r != '.' && !isAtext(byte(r)) || r >= utf8.RuneSelf && !isGraphic(r) { //nolint:gosec // r is ASCII there
			return &fault{"invalid_local_part", "the part before the @ holds a character that is not accepted there"}
		}
	}
	if !isASCII(s) && !norm.NFC.IsNormalString(s) {
		return &fault{"invalid_local_part", "the part before the @ is not in Unicode normalization form C"}
	}
	return nil
}

// isAtext reports whether c is atext of RFC 5322 section 3.2.3.
func isAtext(c byte) bool {
	return isLetterDigit(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func parseMailbox(s string) (Address, string, *fault) {
	if strings.IndexByte(s, '<') < 0 {
		a, f := parseAddress(s)
		return a, "email", f
	}
	if len(s) > maxMailboxInput {
		return Address{}, "email", &fault{"address_too_long", "an address has at most 254 bytes and its name 255"}
	}
	open := strings.LastIndexByte(s, '<')
	if s[len(s)-1] != '>' {
		if f := checkChars(s, false); f != nil {
			return Address{}, "email", f
		}
		return Address{}, "email", &fault{"invalid_address", "nothing may follow the address in angle brackets"}
	}
	a, f := parseAddress(s[open+1 : len(s)-1])
	if f != nil {
		return Address{}, "email", f
	}
	name, f := parsePhrase(strings.Trim(s[:open], " "))
	if f == nil {
		name, f = cleanName(name)
	}
	a.Name = name
	return a, "name", f
}

// parsePhrase reads the name before an angle bracket: quoted once as a whole, or free of RFC 5322's specials.
func parsePhrase(s string) (string, *fault) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		switch {
		case strings.ContainsAny(s, ",;:"):
			return "", &fault{"single_address_expected", "give one address; quote a name that holds , ; or :"}
		case strings.ContainsAny(s, `()<>[]@\"`):
			return "", &fault{"invalid_name", `quote a name that holds any of ()<>[]@\"`}
		}
		return s, nil
	}
	return unquote(s[1 : len(s)-1])
}

// unquote removes the backslashes from the inside of a quoted name.
func unquote(s string) (string, *fault) {
	if !strings.ContainsAny(s, `\"`) {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"', s[i] == '\\' && i+1 == len(s):
			return "", &fault{"invalid_name", "the quotes around the name do not match"}
		case s[i] == '\\':
			i++
		}
		b = append(b, s[i])
	}
	return string(b), nil
}

// cleanName accepts a display name of at most 255 bytes without invisible characters, and drops spaces around it.
func cleanName(s string) (string, *fault) {
	if len(s) > maxName {
		return "", &fault{"name_too_long", "a name has at most 255 bytes"}
	}
	if f := checkChars(s, true); f != nil {
		return "", f
	}
	return strings.Trim(s, " "), nil
}
