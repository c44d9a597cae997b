// Package hostcheck keeps web pages away from listeners that take no key. A page in a browser on the same network reaches
// them in two ways: it calls them across origins, or its name is pointed at their address after it was loaded (DNS
// rebinding), so that the browser takes them for one origin. The browser's headers show both: Sec-Fetch-Site or Origin, and
// Host.
//
// It decides from these headers alone. The address of the listener decides who may connect at all.
//
// A newcomer's likeliest mistake is to let any name in that has the right form: an attacker can own any name that the public
// DNS can hold.
package hostcheck

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Rule says which hosts, as named in a request, a listener lets in.
type Rule struct {
	// Inside lets in hosts that nobody outside can point at us: every IP address, names of one label, and names with an ending
	// that the public DNS never has. Otherwise only loopback addresses and localhost are let in.
	Inside bool
	// Names are let in as well; *.example.com stands for all names below example.com.
	Names []string
	// Setting names where Names come from, for the answer to refused requests.
	Setting string
}

// inside are the endings that the public DNS never has: RFC 6762 and RFC 8375, ICANN's for private use, and those of Kubernetes'
// services.
var inside = []string{".local", ".internal", ".home.arpa", ".localhost", ".svc"}

// Guard answers 403 to requests that Check refuses.
func (rule Rule) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := rule.Check(r); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Check refuses a request that may come from a foreign web page. The error says why, and what to do if it does not.
func (rule Rule) Check(r *http.Request) error {
	if !rule.admits(hostOf(r.Host)) {
		return fmt.Errorf("host %.100q is not one that this listener may be asked by: ask by its address, or add the name to %s", r.Host, rule.Setting)
	}
	probe := *r
	probe.Method = http.MethodPost // net/http lets reads pass, and here reading is the attack
	if err := http.NewCrossOriginProtection().Check(&probe); err != nil {
		return fmt.Errorf("a page of another origin asks: open this address by itself, or ask from a program; %s names hosts, not origins", rule.Setting)
	}
	return nil
}

// admits reports whether the rule lets a host in.
func (rule Rule) admits(host string) bool {
	if host == "" {
		return false
	}
	if slices.ContainsFunc(rule.Names, func(name string) bool { return matches(strings.ToLower(name), host) }) {
		return true
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return rule.Inside || ip.Unmap().IsLoopback()
	}
	if host == "localhost" {
		return true
	}
	return rule.Inside && (!strings.ContainsAny(host, ".:") || slices.ContainsFunc(inside, func(end string) bool { return strings.HasSuffix(host, end) }))
}

// matches reports whether a host, in lower case, is the name or below a name that begins with *.
func matches(name, host string) bool {
	if below, ok := strings.CutPrefix(name, "*"); ok && strings.HasPrefix(below, ".") {
		return strings.HasSuffix(host, below)
	}
	return name == host
}

// hostOf removes the port, the brackets of an IPv6 address, and the dot at the end of a full name.
func hostOf(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}
