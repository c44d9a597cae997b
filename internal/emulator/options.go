package emulator

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// Options configure an Emulator. The zero value works: all providers on free loopback ports, ledger in memory, no limits,
// default credentials.
type Options struct {
	Listen      string                    // HTTP, default 127.0.0.1:0
	SMTPListen  string                    // default 127.0.0.1:0
	AllowRemote bool                      // permits addresses that are not loopback; /_ledger and /_faults have no password
	AllowHosts  []string                  // accepted host names, besides localhost and loopback addresses
	LedgerPath  string                    // JSON lines, created with mode 0600; "" keeps the ledger in memory only
	Limits      map[string][]limit.Window // by provider kind; nil means none
	Log         *slog.Logger              // nil means silent

	// Credentials replace those of the kinds, by kind and name.
	Credentials map[string]map[string]string

	Hooks       map[string]Hook // destination of events, by provider kind; see SetHooks
	EventPace   time.Duration   // between two events of a message, on average; 0 is 100 ms
	DeferFor    time.Duration   // from a deferred event to the delivered one; 0 is 1 h
	RetryPace   time.Duration   // the unit of pauses before an event is sent again; 0 is 1 s
	LookupDelay time.Duration   // how long a look-up does not show a new message
}

// complete checks the options and fills in the defaults.
func (o *Options) complete() error {
	o.Listen, o.SMTPListen = cmp.Or(o.Listen, "127.0.0.1:0"), cmp.Or(o.SMTPListen, "127.0.0.1:0")
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if d := min(o.EventPace, o.DeferFor, o.RetryPace, o.LookupDelay); d < 0 {
		return fmt.Errorf("emulator: a time of %s must not be negative", d)
	}
	o.EventPace, o.DeferFor = cmp.Or(o.EventPace, 100*time.Millisecond), cmp.Or(o.DeferFor, time.Hour)
	o.RetryPace = cmp.Or(o.RetryPace, time.Second)
	return errors.Join(checkListen(o.Listen, o.AllowRemote), checkListen(o.SMTPListen, o.AllowRemote))
}

// checkListen refuses an address that is not loopback, unless remote is set.
func checkListen(addr string, remote bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("emulator listen address: %w", err)
	}
	ip := net.ParseIP(host)
	if remote || host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("emulator listen address %s: not a loopback address, and AllowRemote is not set", addr)
}
