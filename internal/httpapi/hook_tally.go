package httpapi

import (
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// tally counts the requests and events at each account's receiver until Tallies fetches the counts. The number of accounts
// bounds its memory: requests for unknown accounts are not counted.
type tally struct {
	mu     sync.Mutex
	counts map[int32]*record.HookTally
	lines  map[int32]*sampled
}

// sampled is the time of an account's last log line, and how many lines were skipped since.
type sampled struct {
	at      time.Time
	skipped int64
}

const sampleEvery = time.Minute

func newTally() *tally {
	return &tally{counts: map[int32]*record.HookTally{}, lines: map[int32]*sampled{}}
}

func (t *tally) of(account int32) *record.HookTally {
	c, ok := t.counts[account]
	if !ok {
		c = &record.HookTally{Account: account}
		t.counts[account] = c
	}
	return c
}

func (t *tally) received(account int32, events int, now time.Time) {
	if events == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.of(account)
	c.Events += int64(events)
	c.LastEvent = now
}

func (t *tally) refused(account int32, reason string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.of(account)
	c.Refused++
	c.LastRefused, c.LastRefusal = now, reason
}

// sample reports whether a log line about the account is due, and how many were skipped since the last one.
func (t *tally) sample(account int32, now time.Time) (skipped int64, due bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.lines[account]
	if !ok {
		l = &sampled{}
		t.lines[account] = l
	}
	if ok && now.Sub(l.at) < sampleEvery {
		l.skipped++
		return 0, false
	}
	skipped = l.skipped
	l.at, l.skipped = now, 0
	return skipped, true
}

// Tallies returns the counts since the last call and clears them. The caller adds them to the store.
func (s *Server) Tallies() []record.HookTally {
	t := s.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]record.HookTally, 0, len(t.counts))
	for _, c := range t.counts {
		out = append(out, *c)
	}
	clear(t.counts)
	return out
}
