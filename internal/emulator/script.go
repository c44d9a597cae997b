package emulator

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// script holds the faults that are not used up. It is safe for concurrent use.
type script struct {
	mu    sync.Mutex
	lines map[queue][]*line
}

// queue is a list of faults that wait for each other: those of a provider's sends, of its look-ups, and of its hooks a
// list for each mode, since one event may meet several.
type queue struct{ kind, moment string }

// momentSend is the moment of faults that meet sends; the others are the path "lookup" and the modes of hooks.
const momentSend = "send"

func (f *Fault) moment() string {
	switch {
	case f.isHook():
		return f.Mode
	case f.Path == "":
		return momentSend
	}
	return f.Path
}

func moments() []string { return append([]string{momentSend, pathLookup}, hookModes()...) }

type line struct {
	Fault
	until time.Time // throttle with seconds: set at the first hit
}

func newScript() *script { return &script{lines: map[queue][]*line{}} }

// set replaces everything.
func (s *script) set(all map[string][]Fault) {
	lines := map[queue][]*line{}
	for kind, list := range all {
		for _, f := range list {
			q := queue{kind, f.moment()}
			lines[q] = append(lines[q], &line{Fault: f})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = lines
}

// drop ends the faults of one provider, or with "" all.
func (s *script) drop(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.lines, func(q queue, _ []*line) bool { return kind == "" || q.kind == kind })
}

// left lists what is not used up: those of sends first, then those of look-ups and hooks.
func (s *script) left(now time.Time) map[string][]Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string][]Fault{}
	for _, kind := range kinds() {
		for _, moment := range moments() {
			q := queue{kind, moment}
			s.prune(q, now)
			for _, l := range s.lines[q] {
				all[kind] = append(all[kind], l.Fault)
			}
		}
	}
	return all
}

func (s *script) prune(q queue, now time.Time) {
	s.lines[q] = slices.DeleteFunc(s.lines[q], func(l *line) bool {
		return l.Count > 0 && l.Hits >= l.Count || !l.until.IsZero() && !now.Before(l.until)
	})
}

// taken is a fault that met a request. until is when a throttle ends.
type taken struct {
	Fault
	until time.Time
}

// take finds the first fault of a send for these recipients and uses it if fits says so. A nil result means that the request goes
// on: the first fault that matches belongs to another moment of the request, and the ones behind it wait their turn.
func (s *script) take(kind string, to []string, now time.Time, fits func(*Fault) bool) *taken {
	return s.takeAt(queue{kind, momentSend}, to, now, fits)
}

// takeAt is take for any queue; a nil fits takes what matches.
func (s *script) takeAt(q queue, to []string, now time.Time, fits func(*Fault) bool) *taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lines[q]) == 0 {
		return nil
	}
	s.prune(q, now)
	for _, l := range s.lines[q] {
		if !l.matches(to) {
			continue
		}
		if fits != nil && !fits(&l.Fault) {
			return nil
		}
		l.Hits++
		until := now.Add(time.Second)
		if l.Seconds > 0 {
			if l.until.IsZero() {
				l.until = now.Add(time.Duration(l.Seconds) * time.Second)
			}
			until = l.until
		}
		return &taken{l.Fault, until}
	}
	return nil
}

// SetFaults replaces the script of all providers, as PUT /_faults does. The error names what is wrong and what is
// allowed; the old script stays then.
func (e *Emulator) SetFaults(all map[string][]Fault) error {
	if err := checkScript(all); err != nil {
		return err
	}
	e.faults.set(all)
	e.releaseUnheld()
	return nil
}
