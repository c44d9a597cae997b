package httpapi

import (
	"net/http"
	"net/netip"

	"github.com/sendgate/sendgate/internal/record"
)

// withAdminNetworks answers only clients in the admin networks, on every path. It refuses others before their key is checked,
// so that the answer reveals nothing about keys.
func (s *Server) withAdminNetworks(next http.Handler) http.Handler {
	return s.handle(func(w http.ResponseWriter, r *http.Request) error {
		if from := s.clientIP(r); !admits(s.adminNetworks, from) {
			return errAddress(from, "may not use the admin API")
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// fromItsNetworks refuses a key that is used from outside its networks. The key is right, so it may be stolen: the log says so,
// at most once a minute.
func (s *Server) fromItsNetworks(r *http.Request, key *record.Key) error {
	from := s.clientIP(r)
	if admits(key.Networks, from) {
		return nil
	}
	if skipped, due := s.tally.sample(strayKey, s.now()); due {
		s.log.WarnContext(r.Context(), "a key was used from an address outside of its networks", "key_id", key.ID, "from", from.String(), "refused_since_last_line", skipped)
	}
	return errAddress(from, "may not use this key")
}

// strayKey is the id for sampling log lines about keys used from outside their networks.
const strayKey = -1

// admits reports whether a list of networks contains an address. An empty list admits all.
func admits(networks []netip.Prefix, ip netip.Addr) bool {
	return len(networks) == 0 || within(networks, ip)
}

// errAddress names the client's address as we see it, but not the networks that are allowed.
func errAddress(from netip.Addr, mayNot string) error {
	return refuse(http.StatusForbidden, "address_not_allowed", "Requests from the address "+from.String()+" "+mayNot+".")
}
