package emulator

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Search is a look-up after parsing: what it searches for, and how the provider shows the result.
type Search struct {
	Refused   *Reply
	Recipient string                // to search for, "" any
	Match     func(*Entry) bool     // the conditions besides the recipient
	Show      func([]*Found) *Reply // oldest first
}

// Found is an accepted message as a look-up sees it at some moment.
type Found struct {
	*Message
	Past []Event // what has happened to it so far, in order of time
}

// Of lists what has happened to one recipient.
func (f *Found) Of(to string) []Event {
	return slices.DeleteFunc(slices.Clone(f.Past), func(v Event) bool { return !slices.Contains(v.To, to) })
}

// Lookup serves a look-up: credential, checks, faults, the ledger, the answer.
func (h *Host) Lookup(read func(r *http.Request, body []byte) *Search) http.Handler {
	return h.Call(func(r *http.Request, body []byte) *Reply {
		h.look()
		s := read(r, body)
		if s.Refused != nil {
			return s.Refused
		}
		found := h.find(s)
		delay := h.e.opt.LookupDelay
		if f := h.e.faults.take(h.kind.Name, queueLookup, s.concerned(found), h.e.now(), nil); f != nil {
			switch f.Mode {
			case modeLookupEmpty:
				return s.Show(nil)
			case modeLookupDelay:
				delay = time.Duration(f.Latency)
			default:
				if p := h.failLookup(f); p != nil {
					return p
				}
			}
		}
		return s.Show(h.seen(found, delay))
	})
}

// failLookup waits for the latency of a fault, and returns its answer if it has one.
func (h *Host) failLookup(f *AppliedFault) *Reply {
	h.Hold(time.Duration(f.Latency))
	switch f.Mode {
	case ModeThrottle:
		return h.provider.Throttled(scriptedWindow(f))
	case ModeError:
		return h.scripted(f, f.Status)
	}
	return nil
}

// find lists the entries that match a search.
func (h *Host) find(s *Search) []*Entry {
	all := h.e.ledger.snapshot()
	var found []*Entry
	for i := range all {
		n := &all[i]
		same := func(to string) bool { return strings.EqualFold(to, s.Recipient) }
		if n.Provider == h.kind.Name && (s.Recipient == "" || slices.ContainsFunc(n.To, same)) && s.Match(n) {
			found = append(found, n)
		}
	}
	return found
}

// concerned lists the recipients that a fault may match.
func (s *Search) concerned(found []*Entry) []string {
	var all []string
	if s.Recipient != "" {
		all = append(all, s.Recipient)
	}
	for _, n := range found {
		all = append(all, n.To...)
	}
	return all
}

// seen shows the entries that are older than delay, with their events that are older than delay.
func (h *Host) seen(found []*Entry, delay time.Duration) []*Found {
	until := h.e.now().Add(-delay)
	var all []*Found
	for _, n := range found {
		if n.At.After(until) {
			continue
		}
		f := &Found{Message: messageOf(n)}
		f.Past = slices.DeleteFunc(h.plan(f.Message), func(v Event) bool { return v.At.After(until) })
		all = append(all, f)
	}
	return all
}
