package emulator

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// search is a look-up that has been read: what it asks for, and how the provider shows what is found.
type search struct {
	refused   *reply
	recipient string                // asked for, "" any
	match     func(*Entry) bool     // beside the recipient
	show      func([]*sight) *reply // oldest first
}

// sight is an accepted message as a look-up sees it at some moment.
type sight struct {
	*letter
	past []happening // what has become of it so far, in order of time
}

// lookup is the way of every look-up: credential, checks, faults, the ledger, the answer.
func (e *Emulator) lookup(d dialect, read func(r *http.Request, body []byte) *search) http.Handler {
	return e.api(d, func(r *http.Request, body []byte) *reply {
		e.meters[d.kind()].look()
		s := read(r, body)
		if s.refused != nil {
			return s.refused
		}
		found := e.find(d.kind(), s)
		delay := e.opt.LookupDelay
		if f := e.faults.takeAt(queue{d.kind(), pathLookup}, s.concerned(found), e.now(), nil); f != nil {
			switch f.Mode {
			case modeLookupEmpty:
				return s.show(nil)
			case modeLookupDelay:
				delay = time.Duration(f.Latency)
			default:
				if p := e.failLookup(r, d, f); p != nil {
					return p
				}
			}
		}
		return s.show(e.sights(found, delay))
	})
}

// failLookup waits as a fault says, and gives its answer if it has one.
func (e *Emulator) failLookup(r *http.Request, d dialect, f *taken) *reply {
	e.hold(time.Duration(f.Latency))
	switch f.Mode {
	case modeThrottle:
		return d.throttled(scriptedWindow(f), e.now())
	case modeError:
		return (&exchange{e: e, d: d, r: r}).scripted(f, f.Status)
	}
	return nil
}

// find lists the entries that a search asks for.
func (e *Emulator) find(kind string, s *search) []*Entry {
	all := e.ledger.snapshot()
	var found []*Entry
	for i := range all {
		n := &all[i]
		if n.Provider == kind && (s.recipient == "" || hasRecipient(n, s.recipient)) && s.match(n) {
			found = append(found, n)
		}
	}
	return found
}

func hasRecipient(n *Entry, address string) bool {
	return slices.ContainsFunc(n.To, func(to string) bool { return strings.EqualFold(to, address) })
}

// concerned lists the recipients by whom a fault may match.
func (s *search) concerned(found []*Entry) []string {
	var all []string
	if s.recipient != "" {
		all = append(all, s.recipient)
	}
	for _, n := range found {
		all = append(all, n.To...)
	}
	return all
}

// sights shows the entries that are old enough, with what happened up to as much earlier.
func (e *Emulator) sights(found []*Entry, delay time.Duration) []*sight {
	seen := e.now().Add(-delay)
	var all []*sight
	for _, n := range found {
		if n.At.After(seen) {
			continue
		}
		s := &sight{letter: fromLedger(n)}
		for _, h := range e.timing.plan(s.letter) {
			if !h.at.After(seen) {
				s.past = append(s.past, h)
			}
		}
		all = append(all, s)
	}
	return all
}

// of lists what has become of one recipient.
func (s *sight) of(to string) []happening {
	var all []happening
	for _, h := range s.past {
		if slices.Contains(h.to, to) {
			all = append(all, h)
		}
	}
	return all
}

// lookups adds the calls.
func (e *Emulator) lookups(mux *http.ServeMux) {
	sg := sendGrid{e}
	mux.Handle("POST /sendgrid/v3/logs", e.lookup(sg, sg.searchLogs))
	mux.Handle("GET /sendgrid/v3/logs/{id}", e.lookup(sg, sg.oneLog))
	mg := mailgun{e}
	mux.Handle("POST /mailgun/v1/analytics/logs", e.lookup(mg, mg.searchLogs))
	mux.Handle("GET /mailgun/v3/{domain}/events", e.lookup(mg, mg.searchEvents))
	pm := postmark{e}
	mux.Handle("GET /postmark/messages/outbound", e.lookup(pm, pm.searchOutbound))
	mux.Handle("GET /postmark/messages/outbound/{id}/details", e.lookup(pm, pm.details))
}
