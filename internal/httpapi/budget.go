package httpapi

import (
	"io"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// DefaultBodyBudget is how many bytes of large bodies one process holds at a time. A message on its way to its commit is in
// memory about four times: as JSON, decoded, composed and encoded.
const DefaultBodyBudget = 40 << 20

// freeBody is the part of every body that the budget does not count: ordinary mail is not refused because others send
// large attachments. What those parts can add up to is bounded by the number of connections.
const freeBody = 64 << 10

// budget bounds what the bodies of requests take of the memory, and gives each tenant its share of that.
type budget struct{ *pool }

// share is what one request holds of the budget, from the reading of its body to the end of its handler.
type share struct{ paced }

// share takes a place for a body before any of it is read: of many large ones, those for which there is room are read to
// their end and the others are refused at once, where all would run out of room half-way. announced is -1 when the length
// is not known. cut ends the reading: one that stalls gives its place to others.
func (b budget) share(who holder, body io.Reader, announced int64, cut func()) (*share, error) {
	x := b.take(who, max(0, announced-freeBody), cut)
	if x == nil {
		return nil, errBusy
	}
	return &share{paced{x, body}}, nil
}

var errBusy = &record.Unavailable{Reason: "busy", RetryAfter: 2 * time.Second}

// Read takes from the budget what is more than its place. When there is nothing left it gives up at once: to wait would be
// to hold the rest meanwhile.
func (s *share) Read(p []byte) (int, error) {
	n, err := s.paced.Read(p)
	if n == 0 {
		return 0, err
	}
	if more := s.read - freeBody - s.n; more > 0 && !s.grow(more) {
		return 0, errBusy
	}
	return n, err
}
