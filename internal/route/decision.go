package route

import (
	"encoding/json"
	"unicode/utf8"
)

// Decision is why an attempt went where it went. It is stored with the attempt in at most MaxDecisionBytes of JSON and
// shown by the API.
type Decision struct {
	Config     int64       `json:"config"`              // configuration version in force
	Rule       int64       `json:"rule,omitempty"`      // id of the rule that matched, 0 for none
	Pool       string      `json:"pool,omitempty"`      // "" for a pinned message
	Pinned     bool        `json:"pinned,omitempty"`    // the message names its account
	Chosen     string      `json:"chosen,omitempty"`    // "" when nobody can take it now
	WaitsFor   string      `json:"waits_for,omitempty"` // the account whose room it waits for, where it may not spill
	Spilled    bool        `json:"spilled,omitempty"`
	Probe      bool        `json:"probe,omitempty"` // the chosen account is parked, and this message tries whether it heals
	Candidates []Candidate `json:"candidates"`
	Omitted    int         `json:"omitted,omitempty"` // candidates left out to keep the record small
}

// Candidate is one account that was looked at. An empty Reason means that it could take the message.
type Candidate struct {
	Account string  `json:"account"`
	Weight  float64 `json:"weight"`
	Reason  string  `json:"reason,omitempty"`
}

// MaxDecisionBytes caps the stored JSON of a Decision.
const MaxDecisionBytes = 1024

// maxReason caps one reason in the stored form, in bytes.
const maxReason = 120

// JSON gives the stored form. Reasons are cut and, where that is not enough, candidates other than the chosen one are
// left out from the end and counted.
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
