package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// maxIdempotencyKey caps an Idempotency-Key, in characters.
const maxIdempotencyKey = 255

// idempotencyKey reads the header: absent, or once with 1 to limit visible ASCII characters.
func idempotencyKey(h http.Header, limit int) (string, error) {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", refuse(http.StatusBadRequest, "invalid_idempotency_key", "There are several Idempotency-Key headers.")
	}
	key := values[0]
	if key == "" || len(key) > limit || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", refuse(http.StatusBadRequest, "invalid_idempotency_key",
			"An Idempotency-Key has 1 to "+strconv.Itoa(maxIdempotencyKey)+" visible ASCII characters; that of a batch 5 fewer.")
	}
	return key, nil
}

// itemKey is the key of the i-th message of a batch: each message is deduplicated on its own.
func itemKey(key string, i int) string {
	if key == "" {
		return ""
	}
	return key + "/" + strconv.Itoa(i)
}

// repeated looks for the first answer to a request that is refused only because its send_at or expires_at has passed since. A
// caller that got no answer and repeats the request must learn that it was accepted, however late it asks. If there is no
// first answer, the refusal stands. If the store is unavailable, the outcome is unknown.
func (s *Server) repeated(ctx context.Context, key *record.Key, body []byte, idem string, refusal error) (record.Accepted, error) {
	if idem == "" || !onlyTooLate(refusal) {
		return record.Accepted{}, refusal
	}
	var in sendRequest
	if decodeStrict(body, &in) != nil {
		return record.Accepted{}, refusal
	}
	draft := in.draft()
	m, err := draft.Message(inTime(draft), s.caps())
	if err != nil {
		return record.Accepted{}, refusal
	}
	m.Tenant = key.Tenant
	a, err := s.store.Replay(ctx, &record.Submission{Message: m, Key: idem, Fingerprint: fingerprint(draft, m)})
	switch _, away := errors.AsType[*record.Unavailable](err); {
	case away:
		return a, &record.OutcomeUnknown{Err: err}
	case err != nil:
		return a, refusal
	}
	return a, nil
}

// onlyTooLate reports whether a request was refused only for times in the past.
func onlyTooLate(err error) bool {
	invalid, ok := errors.AsType[*mail.Invalid](err)
	return ok && !slices.ContainsFunc(invalid.Fields, func(f mail.Field) bool { return f.Code != "in_the_past" })
}

// inTime returns a moment before all times of a draft.
func inTime(d *mail.Draft) time.Time {
	first := time.Time{}
	for _, s := range []string{d.SendAt, d.ExpiresAt} {
		if t, err := time.Parse(time.RFC3339, s); err == nil && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first.Add(-time.Second)
}

// fingerprintVersion is raised when the encoding below changes. Stored keys then no longer match. A repeat of such a request
// within its 24 hours is refused as a different request; it is never sent twice.
const fingerprintVersion = 1

// fingerprint is SHA-256 over the meaning of a request. The order of JSON members, white space, escapes and the short forms
// of addresses do not change it. Times count as the request gave them, since defaults depend on the present time.
func fingerprint(d *mail.Draft, m *mail.Message) [32]byte {
	c := canon{h: sha256.New()}
	c.n(fingerprintVersion)
	c.addresses([]mail.Address{m.From})
	c.addresses(m.To)
	c.addresses(m.Cc)
	c.addresses(m.Bcc)
	c.addresses(m.ReplyTo)
	for _, s := range []string{
		m.Subject, m.Text, m.HTML, m.Stream, string(m.OnAmbiguous), m.Account, instant(d.SendAt), instant(d.ExpiresAt),
	} {
		c.text(s)
	}
	c.n(len(m.Headers))
	for _, h := range m.Headers {
		c.text(h.Name)
		c.text(h.Value)
	}
	c.n(len(m.Attachments))
	for _, a := range m.Attachments {
		c.text(a.Filename)
		c.text(a.ContentType)
		c.text(a.ContentID)
		c.n(len(a.Content))
		_, _ = c.h.Write(a.Content)
	}
	c.n(len(m.Tags))
	for _, t := range m.Tags {
		c.text(t)
	}
	c.n(len(m.Metadata))
	for _, k := range slices.Sorted(maps.Keys(m.Metadata)) {
		c.text(k)
		c.text(m.Metadata[k])
	}
	if m.Calendar != nil { // last, so that requests without one keep their old fingerprint
		c.text(m.Calendar.Method)
		c.text(m.Calendar.Content)
	}
	return [32]byte(c.h.Sum(nil))
}

// canon writes each value with its length before it, so that no two sequences of values give the same bytes.
type canon struct{ h hash.Hash }

func (c canon) n(n int) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n)) //nolint:gosec // lengths are not negative
	_, _ = c.h.Write(b[:])                      // a hash never fails
}

func (c canon) text(s string) {
	c.n(len(s))
	_, _ = c.h.Write([]byte(s))
}

func (c canon) addresses(as []mail.Address) {
	c.n(len(as))
	for _, a := range as {
		c.text(a.Email)
		c.text(a.Name)
	}
}

// instant gives one spelling to a valid time, and "" to an empty one.
func instant(s string) string {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
