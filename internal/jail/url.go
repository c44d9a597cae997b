package jail

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const maxURL = 2048 // bytes

// CheckURL refuses a URL that New's client would never call, as far as that shows without a look-up. The error wraps
// ErrForbidden and says what is wrong, in words for the person who chose the URL.
func CheckURL(raw string, o Options) error {
	if len(raw) > maxURL {
		return forbidden("the URL is longer than %d bytes", maxURL)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return forbidden("not a URL")
	}
	return check(u, o)
}

func forbidden(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrForbidden, fmt.Sprintf(format, args...))
}

// check refuses a URL that may not be called: by its form, its port or its host.
func check(u *url.URL, o Options) error {
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return forbidden("the URL must begin with https://")
	case u.Opaque != "" || u.Hostname() == "":
		return forbidden("the URL has no host")
	case u.User != nil:
		return forbidden("the URL must not hold a user or password")
	case u.Fragment != "":
		return forbidden("the URL must not have a fragment")
	}
	port, err := portOf(u)
	if err != nil {
		return err
	}
	excepted := o.named(port)
	switch {
	case !o.open(port) && !excepted:
		return forbidden("port %d is not open", port)
	case u.Scheme == "http" && !excepted && (port == 443 || !o.open(port)):
		return forbidden("the URL must begin with https://")
	}
	return checkHost(u.Hostname(), port, o)
}

func portOf(u *url.URL) (uint16, error) {
	text := u.Port()
	switch {
	case text == "" && u.Scheme == "http":
		return 80, nil
	case text == "":
		return 443, nil
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, forbidden("not a port")
	}
	return uint16(port), nil
}

// checkHost accepts addresses that may be called, and ASCII names that can be looked up in DNS. A name that needs conversion
// can turn into another one (U+3002 becomes a dot).
func checkHost(host string, port uint16, o Options) error {
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return forbidden("an address must have no zone")
		}
		if addr = addr.Unmap(); !o.excepted(addr, port) && (!o.open(port) || !public(addr) || o.denied(addr)) {
			return forbidden("not a public address")
		}
		return nil
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if !isLabel(label) {
			return forbidden("not a host name in ASCII without a final dot")
		}
	}
	switch {
	case len(host) > 253:
		return forbidden("the host name is longer than 253 bytes")
	case endsInNumber(labels[len(labels)-1]):
		return forbidden("an address is written in four decimal numbers, or in [brackets]")
	case len(labels) == 1 && !o.named(port): // it would be searched for in our own domain
		return forbidden("the host name must be a full one")
	}
	return nil
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) < 0
}

// endsInNumber recognises hosts that others read as IPv4 addresses, 127.1, 2130706433, 0x7f000001 and 0177.0.0.1 (WHATWG
// URL standard, "ends in a number"): no top-level domain is a number.
func endsInNumber(last string) bool {
	digits := strings.ToLower(last)
	hex, isHex := strings.CutPrefix(digits, "0x")
	if isHex {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(digits, "0123456789") == ""
}
