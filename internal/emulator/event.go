package emulator

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strings"
	"time"
)

// Message is an accepted message with the values that its events repeat. It does not change after acceptance.
type Message struct {
	Entry
	Args     map[string]string // custom_args, v:, Metadata, EmailTags, Resend's tags
	Tags     []string          // categories, o:tag, Tag
	Channel  string            // Postmark: MessageStream; SES: configuration set
	Envelope Envelope          // for SMTP; else nil
	Mail     Mail
}

// Envelope is the part of a message that a relay keeps for its reports.
type Envelope interface {
	// Notified lists the recipients of an event for which the sender asked for a notification.
	Notified(t EventType, to []string) []string
}

// messageOf makes the message that a look-up shows. Of the sender's own values, the ledger has only the message id.
func messageOf(n *Entry) *Message {
	m := &Message{Entry: *n, Args: map[string]string{}, Tags: []string{}}
	if n.MessageID != "" {
		m.Args[OurID] = n.MessageID
	}
	return m
}

// EventType is something that can happen to a message.
type EventType string

// The types of events.
const (
	Accepted    EventType = "accepted"
	Delivered   EventType = "delivered"
	Deferred    EventType = "deferred"
	Bounced     EventType = "bounced"      // hard, 5.1.1
	SoftBounced EventType = "soft_bounced" // final, but the address is fine: 5.2.2
	Dropped     EventType = "dropped"      // by the provider's own suppression list
	Complained  EventType = "complained"
	Deactivated EventType = "deactivated" // the address was put on the provider's suppression list
	Opened      EventType = "opened"
	Clicked     EventType = "clicked"
)

// Course lists what happens to a recipient with an outcome at any provider, in order.
func Course(outcome string) []EventType {
	switch outcome {
	case OutcomeBounce:
		return []EventType{Bounced}
	case OutcomeSoftBounce:
		return []EventType{SoftBounced}
	case OutcomeComplaint:
		return []EventType{Delivered, Complained}
	case OutcomeDefer:
		return []EventType{Deferred, Delivered}
	case OutcomeOpen:
		return []EventType{Delivered, Opened}
	case OutcomeClick:
		return []EventType{Delivered, Clicked}
	case OutcomeSuppressed:
		return []EventType{Dropped}
	}
	return []EventType{Delivered}
}

// Event is what happened to some recipients of a message.
type Event struct {
	Message *Message
	Type    EventType
	To      []string  // one, unless the kind is Grouped
	At      time.Time // when it happened
	due     time.Time // when it should be sent
	salt    uint16    // not 0 in a copy with an id of its own
}

// Hash is stable: the same event has the same ids in a hook, in its repetition and in a look-up.
func (v *Event) Hash(purpose string) []byte {
	sum := sha256.New()
	for _, part := range []string{v.Message.Provider, v.Message.ProviderMessageID, strings.Join(v.To, ","), string(v.Type), purpose} {
		sum.Write([]byte(part))
		sum.Write([]byte{0})
	}
	sum.Write(binary.BigEndian.AppendUint16(nil, v.salt))
	return sum.Sum(nil)
}

// Number is an id for providers with numeric ids.
func (v *Event) Number(purpose string) int64 {
	return int64(binary.BigEndian.Uint64(v.Hash(purpose)) >> 24) // 40 bits: exact in every JSON reader
}

// size is the approximate size of the event in JSON, in bytes.
func (v *Event) size() int {
	n := 1000
	for name, value := range v.Message.Args {
		n += len(name) + len(value) + 8
	}
	for _, tag := range v.Message.Tags {
		n += len(tag) + 4
	}
	return n
}

// gap is between half and double the pace. It depends on the message and is not random: a look-up must show the same times.
func (o *Options) gap(m *Message, to string, t EventType) time.Duration {
	sum := fnv.New64a()
	for _, s := range []string{m.ProviderMessageID, to, string(t)} {
		_, _ = sum.Write([]byte(s)) // never fails (hash.Hash)
	}
	share := float64(sum.Sum64()%1000) / 1000
	gap := time.Duration(float64(o.EventPace) * (0.5 + 1.5*share)).Truncate(time.Millisecond)
	return max(gap, time.Millisecond) // the precision of times at the providers
}

// plan lists the events of a message, in order of time.
func (h *Host) plan(m *Message) []Event {
	var all []Event
	start := m.At
	if h.kind.AcceptedOnce {
		start = start.Add(h.e.opt.gap(m, "", Accepted))
		all = append(all, Event{Message: m, Type: Accepted, To: m.To, At: start})
	}
	course := h.kind.Course
	if course == nil {
		course = Course
	}
	for _, to := range h.groups(m) {
		at, last := start, EventType("")
		for _, t := range course(OutcomeOf(to[0])) {
			at = at.Add(h.e.opt.gap(m, to[0], t))
			if last == Deferred {
				at = at.Add(h.e.opt.DeferFor)
			}
			last = t
			about := to
			if m.Envelope != nil {
				about = m.Envelope.Notified(t, to)
			}
			if len(about) > 0 {
				all = append(all, Event{Message: m, Type: t, To: about, At: at})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Event) int { return a.At.Compare(b.At) })
	for i := range all {
		all[i].due = all[i].At
	}
	return all
}

// Longest is how long after a message its last event may happen.
func (h *Host) Longest() time.Duration { return h.e.opt.DeferFor + 10*h.e.opt.EventPace }

// groups splits the recipients into groups that share their events.
func (h *Host) groups(m *Message) [][]string {
	var all [][]string
	index := map[string]int{}
	for i, to := range m.To {
		outcome := OutcomeOf(to)
		at, ok := index[outcome]
		if !ok || !h.kind.Grouped {
			index[outcome] = len(all)
			all = append(all, m.To[i:i+1:i+1])
			continue
		}
		all[at] = append(all[at], to)
	}
	return all
}

// shuffle sends a plan in reverse: each event keeps its time, but is sent at the time of its mirror image.
func shuffle(plan []Event) {
	n := len(plan)
	for i := range n / 2 {
		plan[i].due, plan[n-1-i].due = plan[n-1-i].due, plan[i].due
	}
	slices.Reverse(plan)
}
