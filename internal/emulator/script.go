package emulator

import (
	"slices"
	"sync"
	"time"
)

// script holds the faults that are not used up. It is safe for concurrent use.
type script struct {
	mu    sync.Mutex
	lines map[string][]*line
}

type line struct {
	Fault
	until time.Time // throttle with seconds: set at the first hit
}

func newScript() *script { return &script{lines: map[string][]*line{}} }

// set replaces everything.
func (s *script) set(all map[string][]Fault) {
	lines := map[string][]*line{}
	for kind, list := range all {
		for _, f := range list {
			lines[kind] = append(lines[kind], &line{Fault: f})
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
	if kind == "" {
		clear(s.lines)
	} else {
		delete(s.lines, kind)
	}
}

// left lists what is not used up.
func (s *script) left(now time.Time) map[string][]Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string][]Fault{}
	for kind := range s.lines {
		s.prune(kind, now)
		for _, l := range s.lines[kind] {
			all[kind] = append(all[kind], l.Fault)
		}
	}
	return all
}

func (s *script) prune(kind string, now time.Time) {
	s.lines[kind] = slices.DeleteFunc(s.lines[kind], func(l *line) bool {
		return l.Count > 0 && l.Hits >= l.Count || !l.until.IsZero() && !now.Before(l.until)
	})
}

// taken is a fault that met a request. until is when a throttle ends.
type taken struct {
	Fault
	until time.Time
}

// take finds the first fault for these recipients and uses it if fits says so. A nil result means that the request goes
// on: the first fault that matches belongs to another moment of the request, and the ones behind it wait their turn.
func (s *script) take(kind string, to []string, now time.Time, fits func(*Fault) bool) *taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lines[kind]) == 0 {
		return nil
	}
	s.prune(kind, now)
	for _, l := range s.lines[kind] {
		if !l.matches(to) {
			continue
		}
		if !fits(&l.Fault) {
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
	return nil
}
