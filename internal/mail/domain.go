package mail

import (
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// Caps of a domain, in bytes (RFC 1035 section 2.3.4, without the length octets of the wire form).
const (
	maxDomain = 253
	maxLabel  = 63
)

// ParseDomain reads a domain and returns its canonical form, lower-case A-labels. U-labels are mapped by the IDNA2008
// lookup profile (RFC 5891, UTS 46). A domain has at least one dot, labels of letters, digits and inner hyphens of at
// most 63 bytes, a last label that is not a number, and no dot at its end. The error is an *Invalid with one Field
// named "domain".
func ParseDomain(s string) (string, error) {
	if len(s) > 4*maxDomain {
		return "", (&fault{"domain_too_long", "a domain has at most 253 bytes"}).invalid("domain")
	}
	f := checkChars(s, false)
	if f == nil {
		s, f = parseDomain(s)
	}
	if f != nil {
		return "", f.invalid("domain")
	}
	return s, nil
}

// parseDomain expects that the characters of s were checked: IDNA's mapping would drop invisible ones silently.
func parseDomain(s string) (string, *fault) {
	if !isASCII(s) || hasReservedLabel(s) {
		if hasLongLabel(s) {
			return "", labelTooLong()
		}
		ascii, err := idna.Lookup.ToASCII(s)
		if err != nil {
			return "", &fault{"invalid_domain", "the domain is no valid internationalized name"}
		}
		s = ascii
	}
	s = lowerASCII(s)
	return s, checkLDH(s)
}

// hasReservedLabel reports whether a label has hyphens in its third and fourth place, as "xn--" labels have
// (RFC 5890 section 2.3.1); only IDNA may judge those.
func hasReservedLabel(s string) bool {
	if !strings.Contains(s, "--") {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) >= 4 && label[2:4] == "--" {
			return true
		}
	}
	return false
}

func labelTooLong() *fault {
	return &fault{"label_too_long", "a part of a domain has at most 63 bytes"}
}

// hasLongLabel reports whether a label has more characters, composed as IDNA composes them, than fit in 63 bytes however
// they are encoded. The time of encoding grows with the square of the length, so it must not see such a label.
func hasLongLabel(s string) bool {
	n := 0
	for _, r := range norm.NFC.String(s) {
		if n++; r == '.' || r == 0x3002 || r == 0xff0e || r == 0xff61 { // UTS 46 section 2.3: all four are dots
			n = 0
		}
		if n > maxLabel {
			return true
		}
	}
	return false
}

// checkLDH limits every label to letters, digits and inner hyphens (RFC 1123 section 2.1), which is narrower than DNS.
func checkLDH(s string) *fault {
	if len(s) > maxDomain {
		return &fault{"domain_too_long", "a domain has at most 253 bytes"}
	}
	if s == "" {
		return &fault{"invalid_domain", "the domain is missing"}
	}
	labels, last := 0, ""
	for label := range strings.SplitSeq(s, ".") {
		if f := checkLabel(label); f != nil {
			return f
		}
		labels, last = labels+1, label
	}
	// RFC 3696 section 2: a top-level label is not all-numeric, which keeps IPv4 addresses apart from names.
	if labels < 2 || strings.Trim(last, "0123456789") == "" {
		return &fault{"domain_not_fqdn", "the domain needs a dot and a top-level label that is not a number"}
	}
	return nil
}

func checkLabel(s string) *fault {
	if len(s) > maxLabel {
		return labelTooLong()
	}
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return &fault{"invalid_domain", "the domain has an empty part, or one with a hyphen at its edge"}
	}
	for i := range len(s) {
		if !isLetterDigit(s[i]) && s[i] != '-' {
			return &fault{"invalid_domain", "a domain holds letters, digits, hyphens and dots only"}
		}
	}
	return nil
}
