package httpapi

import (
	"net/http"
	"net/netip"

	"github.com/sendgate/sendgate/internal/record"
)

// withAdminNetworks answers the networks of operators only, whatever the path and whoever asks. Others are told before their key
// is looked at: the address tells nothing about keys.
func (s *Server) withAdminNetworks(next http.Handler) http.Handler {
	return s.handle(func(w http.ResponseWriter, r *http.Request) error {
		if from := s.clientIP(r); !admits(s.adminNetworks, from) {
			return errAddress(from, "may not use the admin API")
		}
		next.ServeHTTP(w, r)
		return nil
	})
}

// fromItsNetworks refuses a key that is used from elsewhere. Whoever does that has the key, or has stolen it: it is said in the
// log, once a minute.
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

// strayKey stands in the samples of log lines for keys that are used from elsewhere.
const strayKey = -1

// admits reports whether a list of networks lets an address in: one that names none lets in all.
func admits(networks []netip.Prefix, ip netip.Addr) bool {
	return len(networks) == 0 || within(networks, ip)
}

// errAddress says from where the request came, as we see it, and not from where it would be taken.
func errAddress(from netip.Addr, mayNot string) error {
	return refuse(http.StatusForbidden, "address_not_allowed", "Requests from the address "+from.String()+" "+mayNot+".")
}
