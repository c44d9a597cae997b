package httpapi

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/record"
)

// perMinute allows n acts at once, and n a minute.
func perMinute[K comparable](now func() time.Time, n int) *limit.Tries[K] {
	return limit.NewTries[K](now, n, time.Minute/time.Duration(n))
}

// logins counts failed attempts to log in, per address, for the audit. An address gets at most one entry a minute. Up to
// loginEntries addresses get their own; all others share one. So nobody can fill the audit, or push out an address that already
// has its entry for the minute.
type logins struct {
	mu  sync.Mutex
	now map[holder]*record.FailedLogins
}

const (
	loginEntries = 20 // per minute and replica
	loginMinute  = time.Minute
)

// others is the holder for all addresses without their own entry.
var others = holder{tenant: -1}

// note adds failed attempts to the entry of who, or to that of others.
func (l *logins) note(who holder, at time.Time, one record.FailedLogins) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil {
		l.now = map[holder]*record.FailedLogins{}
	}
	f, from := l.now[who], who.net.String()
	if f == nil && len(l.now) >= loginEntries {
		who, from = others, "others"
		f = l.now[who]
	}
	if f == nil {
		f = &record.FailedLogins{From: from, Since: at.UTC().Truncate(time.Second)}
		l.now[who] = f
	}
	f.Keys, f.Passwords = f.Keys+one.Keys, f.Passwords+one.Passwords
	f.Links, f.SignIns = f.Links+one.Links, f.SignIns+one.SignIns
}

// FailedLogins returns and clears the counts once a minute has passed since the first attempt, or at once if all is set. The
// caller adds them to the store.
func (s *Server) FailedLogins(all bool) []record.FailedLogins {
	l := &s.logins
	l.mu.Lock()
	defer l.mu.Unlock()
	due := all
	for _, f := range l.now {
		due = due || s.clock().Sub(f.Since) >= loginMinute
	}
	if !due {
		return nil
	}
	out := make([]record.FailedLogins, 0, len(l.now))
	for _, f := range l.now {
		out = append(out, *f)
	}
	l.now = nil
	return out
}

// ClientNetwork returns the network of the client that counts as one stranger: its address or, of IPv6, its /64. The zero network
// is that of a client whose address can't be read.
func (s *Server) ClientNetwork(r *http.Request) netip.Prefix { return s.stranger(r).net }

// NoteFailedSignIn counts a failed sign-in at the dashboard for the audit, beside the other failed logins of that client.
func (s *Server) NoteFailedSignIn(r *http.Request) {
	s.logins.note(s.stranger(r), s.clock(), record.FailedLogins{SignIns: 1})
}
