package signin

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/record"
)

// guesses bounds how often somebody may try to sign in. Each replica counts for itself.
//
// A network has its allowance, whatever name it tries. A name has two: networks from which the person signed in lately have one
// each, and all others share one, of which a single network gets a part. So strangers who guess, from however many networks, do
// not keep a person out who comes from where she came before. For all others there is the one-time link of an admin, which no
// guess can use up.
//
// Whoever knows the password, and not the code, has a small allowance for it: with three codes that count at a time, 144 tries a
// day find one in 0.04 % of days. Each network of the person has an allowance of its own, and all strangers share one. These are
// told nothing of it, for that would tell them that the password is right.
type guesses struct {
	networks *limit.Tries[netip.Prefix]
	known    *limit.Tries[guess]
	shares   *limit.Tries[guess]
	names    *limit.Tries[string]
	unknown  *limit.Tries[string] // names that nobody has: they can't push out the others
	codes    *limit.Tries[guess]
	lines    *limit.Tries[string] // of the log
}

// guess is of one name from one network.
type guess struct {
	name string
	from netip.Prefix
}

func newGuesses(now func() time.Time) *guesses {
	return &guesses{
		networks: limit.NewTries[netip.Prefix](now, 20, 6*time.Second),
		known:    limit.NewTries[guess](now, 10, time.Minute),
		shares:   limit.NewTries[guess](now, 5, 5*time.Minute),
		names:    limit.NewTries[string](now, 20, time.Minute),
		unknown:  limit.NewTries[string](now, 20, time.Minute),
		codes:    limit.NewTries[guess](now, 10, 10*time.Minute),
		lines:    limit.NewTries[string](now, 1, time.Minute),
	}
}

// note counts a try before it is checked, so that tries at the same time count too. It returns how long to wait instead, or 0.
// The zero Login is that of a name that nobody has; strangers see no difference.
func (g *guesses) note(name string, login *record.Login, from netip.Prefix) time.Duration {
	if wait := g.networks.Note(from); wait > 0 {
		return wait
	}
	if slices.Contains(login.Networks, from) {
		return g.known.Note(guess{name, from})
	}
	if wait := g.shares.Note(guess{name, from}); wait > 0 {
		return wait
	}
	if login.ID == 0 {
		return g.unknown.Note(name)
	}
	return g.names.Note(name)
}

// code counts a try of a code together with the right password. It returns how long to wait instead, or 0, and whether the network is
// one of the person's.
func (g *guesses) code(login *record.Login, from netip.Prefix) (wait time.Duration, known bool) {
	if known = slices.Contains(login.Networks, from); !known {
		from = netip.Prefix{}
	}
	return g.codes.Note(guess{login.Name, from}), known
}
