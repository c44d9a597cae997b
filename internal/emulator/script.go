package emulator

import (
	"slices"
	"sync"
	"time"
)

// script holds the faults that are not used up, by provider. It is safe for concurrent use.
type script struct {
	mu     sync.Mutex
	faults map[string][]*scripted
}

type scripted struct {
	Fault
	until time.Time // throttle with seconds: set at the first hit
}

func (f *scripted) over(now time.Time) bool {
	return f.Count > 0 && f.Hits >= f.Count || !f.until.IsZero() && !now.Before(f.until)
}

// AppliedFault is a fault that was applied to a request.
type AppliedFault struct {
	Fault
	Until time.Time // when a throttle ends
}

// set replaces the whole script.
func (s *script) set(all map[string][]Fault) {
	faults := map[string][]*scripted{}
	for kind, list := range all {
		for _, f := range list {
			faults[kind] = append(faults[kind], &scripted{Fault: f})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = faults
}

// drop ends the faults of one provider.
func (s *script) drop(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.faults, kind)
}

// left lists the faults that are not used up.
func (s *script) left(now time.Time) map[string][]Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string][]Fault{}
	for kind := range s.faults {
		s.prune(kind, now)
		for _, f := range s.faults[kind] {
			all[kind] = append(all[kind], f.Fault)
		}
	}
	return all
}

func (s *script) prune(kind string, now time.Time) {
	s.faults[kind] = slices.DeleteFunc(s.faults[kind], func(f *scripted) bool { return f.over(now) })
}

// take finds the first fault of a queue that matches one of the recipients, and uses it if fits allows it; a nil fits always
// allows it. A nil result means that the request continues. A fault that does not fit belongs to another stage of the request,
// and the faults after it have to wait.
func (s *script) take(kind, queue string, to []string, now time.Time, fits func(*Fault) bool) *AppliedFault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults[kind]) == 0 {
		return nil
	}
	s.prune(kind, now)
	for _, f := range s.faults[kind] {
		if f.queue() != queue || !f.Matches(to) {
			continue
		}
		if fits != nil && !fits(&f.Fault) {
			return nil
		}
		f.Hits++
		until := now.Add(time.Second)
		if f.Seconds > 0 {
			if f.until.IsZero() {
				f.until = now.Add(time.Duration(f.Seconds) * time.Second)
			}
			until = f.until
		}
		return &AppliedFault{f.Fault, until}
	}
	return nil
}

// Take finds the first fault of a send for these recipients, and uses it if fits allows it.
func (h *Host) Take(to []string, fits func(*Fault) bool) *AppliedFault {
	return h.e.faults.take(h.kind.Name, queueSend, to, h.e.now(), fits)
}

// takeHook finds and uses a fault of a mode for events.
func (h *Host) takeHook(mode string, to []string) *AppliedFault {
	return h.e.faults.take(h.kind.Name, mode, to, h.e.now(), nil)
}

// SetFaults replaces the script of all providers, like PUT /_faults. An error names what is wrong and what is allowed; then the
// old script stays.
func (e *Emulator) SetFaults(all map[string][]Fault) error {
	if err := e.checkFaults(all); err != nil {
		return err
	}
	e.faults.set(all)
	e.releaseUnheld()
	return nil
}

// releaseUnheld sends the events that were held by a fault that no longer exists.
func (e *Emulator) releaseUnheld() {
	left := e.faults.left(e.now())
	for _, h := range e.hosts {
		if !slices.ContainsFunc(left[h.kind.Name], func(f Fault) bool { return f.Mode == modeHookHold }) {
			h.queue.release()
		}
	}
}
