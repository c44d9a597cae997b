package jail

import (
	"net/netip"
	"slices"
)

// global is the part of IPv6 that IANA assigns. All else is reserved, local, or carries an IPv4 address: ::/96, ::ffff:0:0/96,
// ::ffff:0:0:0/96 (RFC 2765), 64:ff9b::/96 and 64:ff9b:1::/48 (RFC 6052, RFC 8215).
var global = netip.MustParsePrefix("2000::/3")

// special are other networks that are not on the public internet: the IANA registries of special-purpose addresses for IPv4
// and IPv6 (RFC 6890 and its successors), multicast, and IPv6 networks whose addresses hold an IPv4 address. Those would
// evade every list of IPv4 networks: a tunnel gateway (2002::/16, RFC 3056; 2001::/32, RFC 4380) would call the address
// inside.
var special = parsed(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)

func parsed(prefixes ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		list[i] = netip.MustParsePrefix(p)
	}
	return list
}

// public reports whether addr, which is unmapped, is on the public internet.
func public(addr netip.Addr) bool {
	if addr.Zone() != "" || addr.Is6() && (!global.Contains(addr) || isatap(addr)) {
		return false
	}
	return !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// isatap reports whether an address holds the IPv4 address of a host behind a tunnel (RFC 5214), in any network.
func isatap(addr netip.Addr) bool {
	b := addr.As16()
	return b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}
