package record

import (
	"crypto/rand"
	"crypto/sha256"
	"net/netip"
	"regexp"
	"time"
)

// User is a person who may sign in at the dashboard.
type User struct {
	ID         int32
	Name       string
	Role       Role
	Ready      bool // has a password and an authenticator
	Codes      int  // recovery codes that are left
	CreatedAt  time.Time
	DisabledAt time.Time
	SignedInAt time.Time // last
}

var userName = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,39}$`)

// ValidUserName reports whether a user may have this name.
func ValidUserName(name string) bool { return userName.MatchString(name) }

// ActorOf names a user in the audit. No key has such an id.
func ActorOf(user string) string { return "user:" + user }

// Login is what a sign-in is checked against.
type Login struct {
	User
	Password string         // its argon2id hash in PHC form; "" if the user has none yet
	Step     int64          // of the newest code of the authenticator that was used: this and older ones count no more
	Networks []netip.Prefix // from which the user signed in lately
}

// How long a session lasts without a request, and at all. NIST SP 800-63B-4 section 2.2.3 (AAL2) recommends at most these.
const (
	SessionIdle = time.Hour
	SessionLife = 24 * time.Hour
)

// LinkLife is how long a one-time link works.
const LinkLife = 24 * time.Hour

// WelcomePath is the page of the dashboard that takes one-time links. The token is behind a #.
const WelcomePath = "/dash/welcome"

// Session is a sign-in that lasts.
type Session struct {
	ID        string // public: the first half of its hash, in hex
	User      string
	Role      Role
	From      netip.Prefix // network of the client that signed in
	Agent     string       // its User-Agent
	CreatedAt time.Time
	SeenAt    time.Time // exact to a minute
	ExpiresAt time.Time
}

// NewSession is a session that begins. Hash is that of its token.
type NewSession struct {
	Hash  []byte
	From  netip.Prefix
	Agent string
}

// SignIn is a sign-in that was checked.
type SignIn struct {
	User     User
	Password string // the hash that was checked; it must still be in force
	Step     int64  // of the code, or 0 if Code took its place
	Code     []byte // hash of a recovery code, which is used up
	Session  NewSession
}

// Welcome sets all that a user signs in with. Earlier sessions, links and recovery codes end.
type Welcome struct {
	Link     []byte // hash of the token, which is used up
	Password string // argon2id hash in PHC form
	Step     int64  // of the code that proved the authenticator
	Codes    [][]byte
	Session  NewSession
}

// Link is a one-time link.
type Link struct {
	User  User
	Enter bool // signs in at once, without a password
}

// NewToken makes a token of 256 bits, for a link or a session. Only its hash is stored: it has too much entropy for any search,
// so no slow hash is needed.
func NewToken() (token string, hash []byte) {
	token = rand.Text() + rand.Text() // 130 bits each
	return token, HashToken(token)
}

// HashToken returns the hash under which a token is stored.
func HashToken(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}
