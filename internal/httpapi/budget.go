package httpapi

import (
	"io"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/sendgate/sendgate/internal/mail"
)

// DefaultBodyBudget is how many bytes of large bodies one process holds at a time. A message on its way to its commit is in
// memory about four times: as JSON, decoded, composed and encoded.
const DefaultBodyBudget = 64 << 20

// freeBody is the part of every body that the budget does not count: ordinary mail is not refused because others send
// large attachments. What those parts can add up to is bounded by the number of connections.
const freeBody = 64 << 10

// budget bounds what the bodies of requests take of the memory. It is safe for concurrent use.
type budget struct{ free *semaphore.Weighted }

func newBudget(size int64) budget { return budget{semaphore.NewWeighted(size)} }

// share is what one request holds of the budget, from the reading of its body to the end of its handler.
type share struct {
	budget budget
	body   io.Reader
	read   int64
	held   int64
}

func (b budget) share(body io.Reader) *share { return &share{budget: b, body: body} }

// Read takes from the budget as bytes arrive, so that whoever trickles holds no more than he has sent. When there is nothing
// left it gives up at once: to wait would be to hold the rest meanwhile.
func (s *share) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	s.read += int64(n)
	if more := s.read - freeBody - s.held; more > 0 {
		if !s.budget.free.TryAcquire(more) {
			return 0, &mail.Unavailable{Reason: "busy", RetryAfter: 2 * time.Second}
		}
		s.held += more
	}
	return n, err
}

// release gives back what was taken. It is called once.
func (s *share) release() { s.budget.free.Release(s.held) }
