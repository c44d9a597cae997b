package emulator

import (
	"encoding/base64"
	"io"
	netmail "net/mail"
	"strings"
	"unicode/utf8"
)

// BareAddress checks an addr-spec as all the providers do: one at sign outside quotes, a local part of up to 64 bytes, a domain
// of letters, digits, hyphens and dots (or beyond ASCII), at most 254 bytes in total.
func BareAddress(s string) bool {
	if len(s) > 254 || strings.ContainsAny(s, " \t\r\n<>,;") || !utf8.ValidString(s) {
		return false
	}
	a, err := netmail.ParseAddress("<" + s + ">")
	if err != nil || a.Name != "" {
		return false
	}
	at := strings.LastIndexByte(s, '@')
	return at > 0 && at <= 64 && validDomain(s[at+1:])
}

func validDomain(d string) bool {
	if strings.HasPrefix(d, "[") {
		return strings.HasSuffix(d, "]")
	}
	for label := range strings.SplitSeq(d, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			ascii := r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r == '-' || r == '_'
			if !ascii && r < utf8.RuneSelf {
				return false
			}
		}
	}
	return true
}

// ASCIILocal reports whether the local part does not need SMTPUTF8.
func ASCIILocal(addr string) bool {
	return ASCII(addr[:max(strings.LastIndexByte(addr, '@'), 0)])
}

// ASCII reports whether a string has only ASCII characters.
func ASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// ParseAddress reads one address with or without a display name and returns it bare.
func ParseAddress(s string) (string, bool) {
	a, err := netmail.ParseAddress(s)
	if err != nil || !BareAddress(a.Address) {
		return "", false
	}
	return a.Address, true
}

// ParseList reads addresses separated by commas and returns them bare. An empty list is not an error.
func ParseList(s string) ([]string, bool) {
	if strings.TrimSpace(s) == "" {
		return nil, true
	}
	list, err := netmail.ParseAddressList(s)
	if err != nil {
		return nil, false
	}
	bare := make([]string, 0, len(list))
	for _, a := range list {
		if !BareAddress(a.Address) {
			return nil, false
		}
		bare = append(bare, a.Address)
	}
	return bare, true
}

// Unique drops addresses that differ from an earlier one only in case.
func Unique(list []string) []string {
	seen := make(map[string]bool, len(list))
	out := list[:0:0]
	for _, a := range list {
		if key := strings.ToLower(a); !seen[key] {
			seen[key] = true
			out = append(out, a)
		}
	}
	return out
}

// ValidBase64 checks a text without keeping the decoded bytes.
func ValidBase64(s string) bool {
	_, err := io.Copy(io.Discard, base64.NewDecoder(base64.StdEncoding, strings.NewReader(s)))
	return err == nil
}
