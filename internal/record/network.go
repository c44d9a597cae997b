package record

import (
	"errors"
	"net/netip"
)

var errNetwork = errors.New("is not an address range: want CIDRs such as 10.0.0.0/8 or 2001:db8::/32, or an address")

// ParseNetwork reads an address range. A bare address is a range of one. What is written as an IPv4-mapped IPv6 address is the
// IPv4 one: peers are compared as such, and would never match it otherwise.
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
		if p.Bits() < 96 { // it is neither all of IPv4 nor a part of it
			return netip.Prefix{}, errNetwork
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
