package mail

import (
	"fmt"
	"time"

	"github.com/google/uuid"
)

// ID names a message: a UUIDv7 (RFC 9562 section 5.7) made in Go, so that ids sort by time of acceptance and a table
// partitioned by id is partitioned by day: see Clock.NewID.
type ID uuid.UUID

// NewID makes an id by the clock of this host. Use Clock.NewID for rows that are kept by their time.
func NewID() ID { return ID(uuid.Must(uuid.NewV7())) }

// ParseID reads the canonical 36-character form. Any other form is refused, so that one message has one spelling.
func ParseID(s string) (ID, error) {
	if len(s) != 36 {
		return ID{}, fmt.Errorf("message id: want 36 characters, got %d", len(s))
	}
	u, err := uuid.Parse(s)
	if err != nil {
		return ID{}, fmt.Errorf("message id: %w", err)
	}
	return ID(u), nil
}

// IDAt returns the smallest id of the given time: the bound of a partition or of a listing.
func IDAt(t time.Time) ID {
	var id ID
	ms := uint64(t.UnixMilli()) //nolint:gosec // times before 1970 are not accepted
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i)) //nolint:gosec // the low byte is what is wanted
	}
	return id
}

// String returns the canonical lower-case form.
func (id ID) String() string { return uuid.UUID(id).String() }

// Time returns when the id was made, to the millisecond.
func (id ID) Time() time.Time {
	var ms int64
	for _, b := range id[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms).UTC()
}

// IsZero reports whether the id was never set.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(b []byte) error {
	parsed, err := ParseID(string(b))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
