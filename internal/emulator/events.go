package emulator

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strings"
	"time"
)

// letter is an accepted message with what its events repeat of it. It does not change once it is accepted.
type letter struct {
	Entry
	args     map[string]string // custom_args, v:, Metadata, EmailTags
	tags     []string          // categories, o:tag, Tag
	stream   string            // Postmark: MessageStream; SES: configuration set
	envelope *envelope         // SMTP only
}

// fromLedger makes the letter that a look-up shows: of the sender's own values the ledger has the message id only.
func fromLedger(n *Entry) *letter {
	l := &letter{Entry: *n}
	if n.MessageID != "" {
		l.args = map[string]string{ourIDKey: n.MessageID}
	}
	return l
}

// entriesOf gives the lines of the ledger.
func entriesOf(letters []*letter) []Entry {
	all := make([]Entry, len(letters))
	for i, l := range letters {
		all[i] = l.Entry
	}
	return all
}

// what is one thing that becomes of a message.
type what string

const (
	wasAccepted    what = "accepted"
	wasDelivered   what = "delivered"
	wasDeferred    what = "deferred"
	wasBounced     what = "bounced"      // hard, 5.1.1
	wasSoftBounced what = "soft_bounced" // for good, but the address is fine: 5.2.2
	wasDropped     what = "dropped"      // by the provider's own suppression list
	wasComplained  what = "complained"
	wasDeactivated what = "deactivated" // Postmark: the address went to the suppression list
	wasOpened      what = "opened"
	wasClicked     what = "clicked"
)

// course is what becomes of a recipient with this outcome at this provider, in order.
func course(kind, outcome string) []what {
	var c []what
	switch outcome {
	case outcomeBounce:
		c = []what{wasBounced}
	case outcomeSoftBounce:
		c = []what{wasSoftBounced}
	case outcomeComplaint:
		c = []what{wasDelivered, wasComplained}
	case outcomeDefer:
		c = []what{wasDeferred, wasDelivered}
	case outcomeOpen:
		c = []what{wasDelivered, wasOpened}
	case outcomeClick:
		c = []what{wasDelivered, wasClicked}
	case outcomeSuppressed:
		c = []what{wasDropped}
	default:
		c = []what{wasDelivered}
	}
	switch kind {
	case kindMailgun:
		return append([]what{wasAccepted}, c...)
	case kindSendGrid: // what is dropped was never processed
		if outcome != outcomeSuppressed {
			return append([]what{wasAccepted}, c...)
		}
	case kindPostmark: // it has no event for an accepted message, and one more for an address that it deactivates
		if outcome == outcomeBounce || outcome == outcomeComplaint {
			return append(c, wasDeactivated)
		}
	}
	return c
}

// happening is one event: what became of these recipients of a letter.
type happening struct {
	of   *letter
	what what
	to   []string  // one, but for SES and SMTP, which tell of several at once
	at   time.Time // when it happened
	due  time.Time // when it is to be told
	salt uint16    // not 0 in a copy with an id of its own
}

// hash is stable: the same event has the same ids in a hook, in its repetition and in a look-up.
func (h *happening) hash(purpose string) []byte {
	sum := sha256.New()
	for _, part := range []string{h.of.Provider, h.of.ProviderMessageID, strings.Join(h.to, ","), string(h.what), purpose} {
		sum.Write([]byte(part))
		sum.Write([]byte{0})
	}
	sum.Write(binary.BigEndian.AppendUint16(nil, h.salt))
	return sum.Sum(nil)
}

// number is an id for providers that count.
func (h *happening) number(purpose string) int64 {
	return int64(binary.BigEndian.Uint64(h.hash(purpose)) >> 24) // 40 bits: exact in every JSON reader
}

// size is about how many bytes it takes in JSON.
func (h *happening) size() int {
	n := 1000
	for name, v := range h.of.args {
		n += len(name) + len(v) + 8
	}
	for _, tag := range h.of.tags {
		n += len(tag) + 4
	}
	return n
}

// timing says when things happen.
type timing struct {
	pace     time.Duration // between two events of a message, on average
	deferFor time.Duration // from deferred to delivered
}

// gap is between half and double the pace, by the message and not by chance: a look-up must tell the same times.
func (t timing) gap(l *letter, to string, w what) time.Duration {
	sum := fnv.New64a()
	for _, s := range []string{l.ProviderMessageID, to, string(w)} {
		_, _ = sum.Write([]byte(s)) // never fails (hash.Hash)
	}
	share := float64(sum.Sum64()%1000) / 1000
	gap := time.Duration(float64(t.pace) * (0.5 + 1.5*share)).Truncate(time.Millisecond)
	return max(gap, time.Millisecond) // which is how finely the providers tell times
}

// plan lists what becomes of a letter, in order of time.
func (t timing) plan(l *letter) []happening {
	var all []happening
	start := l.At
	if l.Provider == kindSES { // one Send event for the whole message
		start = start.Add(t.gap(l, "", wasAccepted))
		all = append(all, happening{of: l, what: wasAccepted, to: l.To, at: start})
	}
	for _, to := range groups(l) {
		at, last := start, what("")
		for _, w := range course(l.Provider, OutcomeOf(to[0])) {
			at = at.Add(t.gap(l, to[0], w))
			if last == wasDeferred {
				at = at.Add(t.deferFor)
			}
			last = w
			if told := l.envelope.concerned(w, to); len(told) > 0 {
				all = append(all, happening{of: l, what: w, to: told, at: at})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b happening) int { return a.at.Compare(b.at) })
	for i := range all {
		all[i].due = all[i].at
	}
	return all
}

// groups splits the recipients into those that share their events: SES and a relay report of all recipients with the
// same end at once.
func groups(l *letter) [][]string {
	var all [][]string
	if l.Provider != kindSES && l.Provider != kindSMTP {
		for i := range l.To {
			all = append(all, l.To[i:i+1])
		}
		return all
	}
	index := map[string]int{}
	for _, to := range l.To {
		outcome := OutcomeOf(to)
		i, ok := index[outcome]
		if !ok {
			i = len(all)
			index[outcome] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], to)
	}
	return all
}

// shuffle tells a plan in reverse: each event keeps its time, but is told when its mirror image would be.
func shuffle(plan []happening) {
	n := len(plan)
	for i := range n / 2 {
		plan[i].due, plan[n-1-i].due = plan[n-1-i].due, plan[i].due
	}
	slices.Reverse(plan)
}
