package limit

import (
	"fmt"
	"time"
)

// Unit is what a provider counts.
type Unit string

// The units. A call costs one request, and each of its messages one message and as many recipients as its envelope has.
const (
	Requests   Unit = "requests"
	Messages   Unit = "messages"
	Recipients Unit = "recipients"
)

// Window is one documented limit: at most N of Unit in any sliding Per.
type Window struct {
	N    int           `json:"n"`   // 1..10,000,000
	Per  time.Duration `json:"per"` // 1 s..31 days
	Unit Unit          `json:"unit"`
}

// String returns "100 requests per 5m0s".
func (w Window) String() string { return fmt.Sprintf("%d %s per %s", w.N, w.Unit, w.Per) }

// Validate checks the ranges above.
func (w Window) Validate() error {
	switch {
	case w.N < 1 || w.N > 10_000_000:
		return fmt.Errorf("limit %s: count must be 1..10000000", w)
	case w.Per < time.Second || w.Per > 31*24*time.Hour:
		return fmt.Errorf("limit %s: period must be 1s..744h", w)
	case w.Unit != Requests && w.Unit != Messages && w.Unit != Recipients:
		return fmt.Errorf("limit %s: unit must be requests, messages or recipients", w)
	}
	return nil
}

// Cost returns the cost in the window's unit of a call with one message.
func (w Window) Cost(recipients int) int {
	if w.Unit == Recipients {
		return recipients
	}
	return 1
}

// State is the live state of one window of one account.
type State struct {
	Account      string
	Window       Window
	Used         int // by open calls, and by those that ended in the window before now
	BlockedUntil time.Time
}
