package forward

import (
	"sync"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// job is one delivery that this replica holds.
type job struct {
	record.Delivery
	secrets map[string]seal.Secret
	until   time.Time // no call may begin later
}

// lane has the deliveries that are held for one endpoint. The mutex of lanes guards it.
type lane struct {
	id      mail.ID
	queue   []job
	held    int // jobs that are queued or with a worker
	workers int
	failing bool
	full    bool // the last claim took as many as it was allowed to: there may be more
}

// lanes are the endpoints for which something is held.
type lanes struct {
	mu   sync.Mutex
	byID map[mail.ID]*lane
	held int
}

// busy says how many deliveries are held: for each endpoint, in all, and for those that fail.
func (s *lanes) busy() (each map[mail.ID]int, all, failing int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	each = make(map[mail.ID]int, len(s.byID))
	for id, l := range s.byID {
		each[id] = l.held
		if l.failing {
			failing += l.held
		}
	}
	return each, s.held, failing
}

// add queues a job; full says whether its claim was full. It returns the job's lane if that needs one more worker.
func (s *lanes) add(j job, full bool) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.byID[j.Endpoint.ID]
	if l == nil {
		l = &lane{id: j.Endpoint.ID}
		s.byID[l.id] = l
	}
	l.queue = append(l.queue, j)
	l.held++
	s.held++
	l.failing = !j.Endpoint.FailingSince.IsZero()
	l.full = full
	if l.workers >= l.width() || l.workers >= l.held {
		return nil
	}
	l.workers++
	return l
}

// width is how many workers a lane may have. A failing endpoint gets only one.
func (l *lane) width() int {
	if l.failing {
		return 1
	}
	return width
}

// take gives a worker its next job. False ends the worker: the lane is empty or has too many workers.
func (s *lanes) take(l *lane) (job, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(l.queue) == 0 || l.workers > l.width() {
		l.workers--
		s.forget(l)
		return job{}, false
	}
	j := l.queue[0]
	l.queue = l.queue[1:]
	return j, true
}

// done notes the result of a job, and reports whether the lane is nearly empty while more may wait in the store. For a failing
// endpoint it reports false: the next poll is soon enough.
func (s *lanes) done(l *lane, r record.DeliveryResult) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.held--
	s.held--
	if r.Outcome != "" {
		l.failing = r.Outcome != record.DeliveryDone
	}
	return l.full && !l.failing && len(l.queue) <= 2*width
}

func (s *lanes) failing(l *lane) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.failing
}

// drain takes all jobs that no worker has.
func (s *lanes) drain() []job {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []job
	for _, l := range s.byID {
		all = append(all, l.queue...)
		s.held -= len(l.queue)
		l.held -= len(l.queue)
		l.queue = nil
		s.forget(l)
	}
	return all
}

// forget drops a lane that holds nothing.
func (s *lanes) forget(l *lane) {
	if l.held == 0 && l.workers == 0 {
		delete(s.byID, l.id)
	}
}
