package emulator

import "strings"

// The outcomes, as Entry.Outcome has them.
const (
	outcomeDelivered  = "delivered"
	outcomeBounce     = "bounce"
	outcomeSoftBounce = "softbounce"
	outcomeComplaint  = "complaint"
	outcomeDefer      = "defer"
	outcomeSuppressed = "suppressed"
	outcomeReject     = "reject"
	outcomeOpen       = "open"
	outcomeClick      = "click"
)

// gravity lists the outcomes other than delivered, the gravest first.
func gravity() []string {
	return []string{
		outcomeReject, outcomeSuppressed, outcomeBounce, outcomeComplaint, outcomeSoftBounce,
		outcomeDefer, outcomeClick, outcomeOpen,
	}
}

// OutcomeOf tells what becomes of one bare address: the word before the at sign, or before a plus sign in front of
// it, if that is one of the outcomes of the package comment, else "delivered".
func OutcomeOf(address string) string {
	local := address
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		local = address[:at]
	}
	local, _, _ = strings.Cut(local, "+")
	for _, o := range gravity() {
		if strings.EqualFold(local, o) {
			return o
		}
	}
	return outcomeDelivered
}

// gravest is the outcome of a message with these recipients.
func gravest(to []string) string {
	best, rank := outcomeDelivered, len(gravity())
	for _, addr := range to {
		for i, o := range gravity()[:rank] {
			if OutcomeOf(addr) == o {
				best, rank = o, i
				break
			}
		}
	}
	return best
}

// refusedAt finds the first address that the provider's call itself refuses, -1 if there is none.
func refusedAt(to []string) int {
	for i, addr := range to {
		if OutcomeOf(addr) == outcomeReject {
			return i
		}
	}
	return -1
}
