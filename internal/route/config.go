package route

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// Account is one configured set of credentials at one provider kind. Secrets are not part of it.
type Account struct {
	ID           int32
	Name         string
	Kind         provider.Kind
	Settings     json.RawMessage // not secret: base URL, domain, region
	SecretFields []string        // names of the secrets that are set
	Unreadable   []string        // those of them that our keys do not open
	Capabilities provider.Capabilities
	Concurrency  int // calls in flight, all replicas together
	Limits       []limit.Window
	Paused       bool
	Draining     bool // deleted; finishes what it has
	Parked       []Park
	Version      int64
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// Park is why an account, one sender domain on it, or one address of that domain, gets no mail until a probe is accepted or
// an operator touches it.
type Park struct {
	SenderDomain string // "" for the whole account
	Sender       string // one address, folded; "" for all of its domain
	Reason       string
	Since        time.Time
	Next         time.Time // when the next probe is let through, at the earliest
}

// ParkFor makes a park of the key that names it on its account: an address, a domain, or "".
func ParkFor(key string) Park {
	at := strings.LastIndexByte(key, '@')
	if at < 0 {
		return Park{SenderDomain: key}
	}
	return Park{SenderDomain: key[at+1:], Sender: key}
}

// Key names the park on its account.
func (p Park) Key() string { return cmp.Or(p.Sender, p.SenderDomain) }

// Covers reports whether the park keeps a message with these facts from the account. Older facts hold no sender address;
// for them a park of any address of the domain counts.
func (p Park) Covers(f *mail.Facts) bool {
	return p.SenderDomain == "" || p.SenderDomain == f.SenderDomain && (p.Sender == "" || f.Sender == "" || p.Sender == f.Sender)
}

// Overflow says what a pool does with a message whose account has no slot now.
type Overflow string

// The overflow rules. Spill gives it to the next account that has a slot and says so in the decision; Wait keeps the
// pool's shares exactly.
const (
	Spill Overflow = "spill"
	Wait  Overflow = "wait"
)

// Member is one account of a pool. A weight of 0 takes no mail.
type Member struct {
	Account string  `json:"account"`
	Weight  float64 `json:"weight"` // 0..1e6
}

// Pool is a named set of accounts with weights.
type Pool struct {
	ID       int32
	Name     string
	Overflow Overflow
	Members  []Member // sorted by account
	Version  int64    // ETag
}

// DefaultPool is the pool of messages that no rule matches. It exists from the start.
const DefaultPool = "default"

// Rule sends the messages that it matches to a pool. Empty fields match everything; the first match by position wins.
type Rule struct {
	ID              int64  `json:"id"`
	Position        int    `json:"position"`
	Stream          string `json:"stream,omitempty"`
	Tag             string `json:"tag,omitempty"`
	SenderDomain    string `json:"sender_domain,omitempty"`
	RecipientDomain string `json:"recipient_domain,omitempty"` // every recipient must be in it
	Pool            string `json:"pool"`
}

// Config is one consistent reading of accounts, pools and rules. It is immutable; replicas replace it as a whole when
// the version in the database moves.
type Config struct {
	Version  int64
	Accounts []Account // sorted by id
	Pools    []Pool    // sorted by name
	Rules    []Rule    // sorted by position
}

// Account returns the account of that name, or nil. If a deleted one still drains, it returns the new account of the same
// name.
func (c *Config) Account(name string) *Account {
	var found *Account
	for i := range c.Accounts {
		if a := &c.Accounts[i]; a.Name == name && (found == nil || found.Draining) {
			found = a
		}
	}
	return found
}

// Lane returns the number of the queue that a message with these facts waits in: minus the account's id for a pinned
// message, else the id of its pool. Lane 0 is for messages whose account or pool does not exist.
func (c *Config) Lane(f *mail.Facts) int32 {
	if f.Account != "" {
		if a := c.Account(f.Account); a != nil {
			return -a.ID
		}
		return 0
	}
	if p, _ := c.PoolFor(f); p != nil {
		return p.ID
	}
	return 0
}

// Pool returns the pool of that name, or nil.
func (c *Config) Pool(name string) *Pool {
	for i := range c.Pools {
		if c.Pools[i].Name == name {
			return &c.Pools[i]
		}
	}
	return nil
}

// OtherStream stands for the streams that the configuration does not name, where there must be few names.
const OtherStream = "other"

// Streams lists the streams that have a name where there must be few: the default one, "bulk", those that rules name, and
// OtherStream, which stands for all others. Callers may name any stream.
func (c *Config) Streams() []string {
	all := []string{mail.DefaultStream, "bulk", OtherStream}
	for i := range c.Rules {
		if s := c.Rules[i].Stream; s != "" && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// KnownStream returns the stream if Streams has it, and else OtherStream.
func (c *Config) KnownStream(stream string) string {
	if slices.Contains([]string{mail.DefaultStream, "bulk"}, stream) {
		return stream
	}
	for i := range c.Rules {
		if c.Rules[i].Stream == stream && stream != "" {
			return stream
		}
	}
	return OtherStream
}
