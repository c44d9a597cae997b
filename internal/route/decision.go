package route

import (
	"encoding/json"
	"time"
	"unicode/utf8"
)

// Decision explains why an attempt went to its account. It is stored with the attempt in at most MaxDecisionBytes of JSON and
// shown by the API.
type Decision struct {
	Config     int64       `json:"config"`              // configuration version in force
	Rule       int64       `json:"rule,omitempty"`      // id of the rule that matched, 0 for none
	Pool       string      `json:"pool,omitempty"`      // "" for a pinned message
	Pinned     bool        `json:"pinned,omitempty"`    // the message names its account
	Chosen     string      `json:"chosen,omitempty"`    // "" when nobody can take it now
	WaitsFor   string      `json:"waits_for,omitempty"` // the account that it waits for, if it may not spill
	Spilled    bool        `json:"spilled,omitempty"`
	Probe      bool        `json:"probe,omitempty"` // the chosen account is parked, and this message probes it
	Candidates []Candidate `json:"candidates"`
	Omitted    int         `json:"omitted,omitempty"` // candidates left out to keep the record small
}

// Candidate is one account that was looked at. The zero Why means that it could take the message.
type Candidate struct {
	Account string  `json:"account"`
	Weight  float64 `json:"weight"`
	Why
}

// Why says why an account can't take a message: in a code for programs, in words for people.
type Why struct {
	Code   Code      `json:"code,omitempty"`
	Reason string    `json:"reason,omitempty"`
	Until  time.Time `json:"until,omitzero"` // when it ends, if that is known
}

// String returns the reason, after the code if the reason alone is not clear.
func (w Why) String() string {
	if w.Code == Cannot || w.Code == Tried || w.Code == Parked {
		return string(w.Code) + ": " + w.Reason
	}
	return w.Reason
}

// Code is the kind of a Why.
type Code string

// The codes.
const (
	Absent    Code = "absent"    // there is no such account
	NoWeight  Code = "weight"    // its weight is 0
	Draining  Code = "draining"  // it is about to be deleted
	Paused    Code = "paused"    // by an operator
	Cannot    Code = "cannot"    // it can never carry the message as it is
	Tried     Code = "tried"     // it refused the message, or failed with it
	Parked    Code = "parked"    // its provider refuses it, or its sender
	Broken    Code = "broken"    // its settings or secrets can't be used, or are not loaded yet
	Breaker   Code = "breaker"   // too many of its calls failed
	NoSlot    Code = "limit"     // it is at one of its limits
	Throttled Code = "throttled" // its provider asked for a pause
	Stalled   Code = "stalled"   // it has as many calls in flight as it may, and none of them ends
	Repeats   Code = "repeat"    // a call of another account may have sent the message, and is made again there

	// Busy is an account that has as many calls in flight as it may, for the moment. Messages do not spill because of that:
	// in a burst every account is busy, and the shares would follow the accounts' concurrency and not their weights.
	Busy Code = "busy"
)

// MaxDecisionBytes caps the stored JSON of a Decision.
const MaxDecisionBytes = 1024

// maxReason caps one reason in the stored form, in bytes.
const maxReason = 120

// JSON returns the stored form. Reasons are cut. If that is not enough, candidates other than the chosen one are left out
// from the end and counted.
func (d Decision) JSON() []byte {
	kept := make([]Candidate, len(d.Candidates))
	for i, c := range d.Candidates {
		c.Reason = cut(c.Reason, maxReason)
		kept[i] = c
	}
	d.Candidates = kept
	for {
		b, err := json.Marshal(d)
		if err != nil { // weights are finite by validation; nothing else here can fail
			return []byte(`{"candidates":[]}`)
		}
		if len(b) <= MaxDecisionBytes || !d.omitLast() {
			return b
		}
	}
}

// omitLast drops the last candidate that is not the chosen one.
func (d *Decision) omitLast() bool {
	for i := len(d.Candidates) - 1; i >= 0; i-- {
		if d.Candidates[i].Account != d.Chosen {
			d.Candidates = append(d.Candidates[:i], d.Candidates[i+1:]...)
			d.Omitted++
			return true
		}
	}
	return false
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
