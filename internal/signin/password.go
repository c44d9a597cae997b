package signin

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/alexedwards/argon2id"
	"golang.org/x/text/unicode/norm"
)

// argon are the parameters of a hash: 19 MiB, two passes. Source: OWASP Password Storage Cheat Sheet, as of November 2026.
var argon = &argon2id.Params{Memory: 19 << 10, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32}

// Bounds of a password. NIST SP 800-63B-4 section 3.1.1.2 wants at least 8 characters beside a second factor.
const (
	minPassword = 12  // characters
	maxPassword = 256 // bytes
)

// checkPassword returns why a password is not good enough, or "".
func checkPassword(user, password string) string {
	distinct := map[rune]bool{}
	for _, c := range password {
		distinct[c] = true
	}
	switch {
	case len([]rune(password)) < minPassword:
		return "The password must have at least 12 characters."
	case len(password) > maxPassword:
		return "The password must have at most 256 bytes."
	case len(distinct) < 6:
		return "The password must have at least 6 different characters."
	case len(user) > 3 && strings.Contains(strings.ToLower(password), user):
		return "The password must not contain your name."
	}
	return ""
}

// hashes compares and makes hashes of passwords. A hash takes 19 MiB and some ten milliseconds, and strangers ask for it: so few
// are made at a time, and of one network at most hashesEach wait.
type hashes struct {
	places chan struct{}
	nobody string // hash of a password that nobody has, for names that nobody has

	mu      sync.Mutex
	waiting map[netip.Prefix]int
}

const (
	hashesEach = 4
	hashWait   = 5 * time.Second
)

// errBusy says that no hash could be made in time.
var errBusy = errors.New("too many sign-ins at a time")

func newHashes() (*hashes, error) {
	nobody, err := argon2id.CreateHash("nobody has this password", argon)
	return &hashes{places: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), nobody: nobody, waiting: map[netip.Prefix]int{}}, err
}

// same reports whether a password has this hash. An empty hash is compared with one that no password fits, which takes as long.
func (h *hashes) same(ctx context.Context, who netip.Prefix, password, hash string) (same bool, err error) {
	compareWith := hash
	if hash == "" {
		compareWith = h.nobody
	}
	wait := h.placed(ctx, who, func() { same, err = argon2id.ComparePasswordAndHash(norm.NFC.String(password), compareWith) })
	return same && hash != "", errors.Join(wait, err)
}

// of returns the hash of a password.
func (h *hashes) of(ctx context.Context, who netip.Prefix, password string) (hash string, err error) {
	wait := h.placed(ctx, who, func() { hash, err = argon2id.CreateHash(norm.NFC.String(password), argon) })
	return hash, errors.Join(wait, err)
}

// placed runs do when there is a place for it.
func (h *hashes) placed(ctx context.Context, who netip.Prefix, do func()) error {
	h.mu.Lock()
	full := h.waiting[who] >= hashesEach
	if !full {
		h.waiting[who]++
	}
	h.mu.Unlock()
	if full {
		return errBusy
	}
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.waiting[who]--; h.waiting[who] == 0 {
			delete(h.waiting, who)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, hashWait)
	defer cancel()
	select {
	case h.places <- struct{}{}:
	case <-ctx.Done():
		return errBusy
	}
	defer func() { <-h.places }()
	do()
	return nil
}
