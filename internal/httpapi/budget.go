package httpapi

import (
	"io"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

// DefaultBodyBudget is how many bytes of large bodies one process holds at a time. Until its commit a message is in memory
// about four times: as JSON, decoded, composed and encoded.
const DefaultBodyBudget = 40 << 20

// freeBody is the part of every body, in bytes, that the budget does not count, so that ordinary mail is not refused because
// others send large attachments. The number of connections bounds the sum of these parts.
const freeBody = 64 << 10

// budget bounds the memory for request bodies and gives each tenant its share.
type budget struct{ *pool }

// share is the part of the budget that one request holds, from the reading of its body to the end of its handler.
type share struct{ paced }

// share takes a place for a body before any of it is read. So of many large bodies, those that fit are read to their end and
// the others are refused at once; otherwise all might run out of room half-way. announced is -1 if the length is not known.
// cut ends the reading of a body that stalls, so that others get its place.
func (b budget) share(who holder, body io.Reader, announced int64, cut func()) (*share, error) {
	x := b.take(who, max(0, announced-freeBody), cut)
	if x == nil {
		return nil, errBusy
	}
	return &share{paced{x, body}}, nil
}

var errBusy = &record.Unavailable{Reason: "busy", RetryAfter: 2 * time.Second}

// Read takes more from the budget when the body outgrows its place. When nothing is left it gives up at once: waiting would
// keep the memory of the part that was read.
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
