package record

import (
	"errors"
	"net/netip"
)

var errNetwork = errors.New("is not an address range: want CIDRs such as 10.0.0.0/8 or 2001:db8::/32, or an address")

// ParseNetwork reads an address range. A bare address is a range of one. An IPv4-mapped IPv6 address is read as the IPv4
// address: peers are compared in that form, and would never match the other one.
func ParseNetwork(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, errNetwork
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 { // more than the range of mapped IPv4 addresses
			return netip.Prefix{}, errNetwork
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
