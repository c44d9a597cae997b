package emulator

import (
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// Options is what an Emulator is made from. The zero value is a working one: all providers on free loopback ports,
// ledger in memory, no limits, default credentials.
type Options struct {
	Listen      string                    // HTTP, default 127.0.0.1:0
	SMTPListen  string                    // default 127.0.0.1:0
	AllowRemote bool                      // permits addresses that are not loopback; /_ledger and /_faults have no password
	AllowHosts  []string                  // names that it may be asked by, beside localhost and loopback addresses
	LedgerPath  string                    // JSON lines, made with mode 0600; "" keeps the ledger in memory only
	Limits      map[string][]limit.Window // by provider kind; nil is none
	Credentials Credentials               // zero is DefaultCredentials
	Log         *slog.Logger              // nil is silent

	Hooks       map[string]Hook // by provider kind, where events go; see SetHooks
	EventPace   time.Duration   // between two events of a message, on average; 0 is 100 ms
	DeferFor    time.Duration   // from a deferred event to the delivered one; 0 is 1 h
	RetryPace   time.Duration   // the unit of pauses before an event is told again; 0 is 1 s
	LookupDelay time.Duration   // how long a look-up does not show a message yet
}

// setPaces checks the times of events and fills in the usual ones.
func (o *Options) setPaces() error {
	paces := []struct {
		name  string
		pace  *time.Duration
		usual time.Duration
	}{
		{"event pace", &o.EventPace, 100 * time.Millisecond},
		{"defer for", &o.DeferFor, time.Hour},
		{"retry pace", &o.RetryPace, time.Second},
		{"lookup delay", &o.LookupDelay, 0},
	}
	for _, p := range paces {
		if *p.pace < 0 {
			return fmt.Errorf("emulator %s %s: must not be negative", p.name, *p.pace)
		}
		if *p.pace == 0 {
			*p.pace = p.usual
		}
	}
	return nil
}

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
