package mail

import (
	"fmt"
	"time"
)

// schedule reads send_at and expires_at. A send_at that has just passed means now, and is the zero time.
func (c *checker) schedule(d *Draft, now time.Time) (sendAt, expiresAt time.Time) {
	sendAt, ok := c.time("send_at", d.SendAt)
	switch {
	case !ok:
		return sendAt, expiresAt
	case sendAt.IsZero():
	case sendAt.Before(now.Add(-c.lim.SendPast)):
		c.add("send_at", "in_the_past", fmt.Sprintf("send_at is more than %s in the past", c.lim.SendPast))
	case sendAt.After(now.Add(c.lim.SendAhead)):
		c.add("send_at", "too_far", fmt.Sprintf("send_at is more than %s ahead", c.lim.SendAhead))
	}
	due := now
	if sendAt.After(now) {
		due = sendAt
	} else {
		sendAt = time.Time{}
	}
	return sendAt, c.expiry(d.ExpiresAt, due)
}

// expiry reads expires_at, which must lie after due. Without one it is the default after due.
func (c *checker) expiry(s string, due time.Time) time.Time {
	at, ok := c.time("expires_at", s)
	switch {
	case !ok:
	case at.IsZero():
		return due.Add(c.lim.Expiry)
	case !at.After(due):
		c.add("expires_at", "in_the_past", "expires_at must lie after now and after send_at")
	case at.After(due.Add(c.lim.MaxExpiry)):
		c.add("expires_at", "too_far", fmt.Sprintf("expires_at is more than %s after the message is due", c.lim.MaxExpiry))
	}
	return at
}

// time reads RFC 3339 strictly, zone included, to the millisecond in UTC. "" is the zero time.
func (c *checker) time(field, s string) (time.Time, bool) {
	if s == "" {
		return time.Time{}, true
	}
	t, err := parseTime(s)
	if err != nil || t.Year() < 1970 {
		c.add(field, "invalid_time", "a time is RFC 3339 with a zone: 2026-01-31T08:30:00Z")
		return time.Time{}, false
	}
	return t, true
}

func parseTime(s string) (time.Time, error) {
	var t time.Time
	if err := t.UnmarshalText([]byte(s)); err != nil {
		return time.Time{}, fmt.Errorf("parse time: %w", err)
	}
	return t.UTC().Truncate(time.Millisecond), nil
}
