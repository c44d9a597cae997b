package httpapi

import (
	"io"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/sendgate/sendgate/internal/mail"
)

// DefaultBodyBudget is how many bytes of large bodies one process holds at a time. A message on its way to its commit is in
// memory about four times: as JSON, decoded, composed and encoded.
const DefaultBodyBudget = 40 << 20

// freeBody is the part of every body that the budget does not count: ordinary mail is not refused because others send
// large attachments. What those parts can add up to is bounded by the number of connections.
const freeBody = 64 << 10

// budget bounds what the bodies of requests take of the memory. It is safe for concurrent use.
type budget struct{ free *semaphore.Weighted }

func newBudget(size int64) budget { return budget{semaphore.NewWeighted(size)} }

// promptBody is how long an announced body may take to arrive before what it has not used of its place is given to others.
const promptBody = 30 * time.Second

// share is what one request holds of the budget, from the reading of its body to the end of its handler.
type share struct {
	budget budget
	body   io.Reader
	late   *time.Timer

	mu   sync.Mutex
	read int64
	held int64
}

// share takes a place for a body before any of it is read: of many large ones, those for which there is room are read to
// their end and the others are refused at once, where all would run out of room half-way. announced is -1 when the length
// is not known.
func (b budget) share(body io.Reader, announced int64) (*share, error) {
	s := &share{budget: b, body: body}
	place := max(0, announced-freeBody)
	if !b.free.TryAcquire(place) {
		return s, errBusy
	}
	s.held = place
	s.late = time.AfterFunc(promptBody, s.giveUp)
	return s, nil
}

var errBusy = &mail.Unavailable{Reason: "busy", RetryAfter: 2 * time.Second}

// giveUp gives back what the body did not use in time: whoever trickles holds no more than he has sent.
func (s *share) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if spare := s.held - max(0, s.read-freeBody); spare > 0 {
		s.budget.free.Release(spare)
		s.held -= spare
	}
}

// Read takes from the budget what is more than its place. When there is nothing left it gives up at once: to wait would be
// to hold the rest meanwhile.
func (s *share) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read += int64(n)
	if more := s.read - freeBody - s.held; more > 0 {
		if !s.budget.free.TryAcquire(more) {
			return 0, errBusy
		}
		s.held += more
	}
	return n, err
}

// release gives back what was taken. It is called once.
func (s *share) release() {
	if s.late != nil {
		s.late.Stop()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budget.free.Release(s.held)
	s.held, s.read = 0, 0
}
