package emulator

import (
	"slices"
	"strings"
)

// The outcomes, as in Entry.Outcome.
const (
	OutcomeDelivered  = "delivered"
	OutcomeBounce     = "bounce"
	OutcomeSoftBounce = "softbounce"
	OutcomeComplaint  = "complaint"
	OutcomeDefer      = "defer"
	OutcomeSuppressed = "suppressed"
	OutcomeReject     = "reject"
	OutcomeOpen       = "open"
	OutcomeClick      = "click"
)

// gravity lists the outcomes other than delivered, the most serious first.
var gravity = []string{
	OutcomeReject, OutcomeSuppressed, OutcomeBounce, OutcomeComplaint, OutcomeSoftBounce, OutcomeDefer, OutcomeClick, OutcomeOpen,
}

// OutcomeOf is what happens to one bare address. It is the local part up to a plus sign, if that is one of the outcomes in the
// package comment; otherwise it is "delivered".
func OutcomeOf(address string) string {
	local := address
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		local = address[:at]
	}
	local, _, _ = strings.Cut(local, "+")
	for _, o := range gravity {
		if strings.EqualFold(local, o) {
			return o
		}
	}
	return OutcomeDelivered
}

// gravest is the outcome of a message with these recipients.
func gravest(to []string) string {
	for _, o := range gravity {
		if slices.ContainsFunc(to, func(address string) bool { return OutcomeOf(address) == o }) {
			return o
		}
	}
	return OutcomeDelivered
}

// Refuses reports whether the provider's call itself refuses one of the addresses.
func Refuses(to []string) bool { return gravest(to) == OutcomeReject }
