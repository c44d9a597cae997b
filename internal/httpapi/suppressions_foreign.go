package httpapi

import (
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// This file reads the exports of other services. Sources: the exports of SendGrid's suppression pages (status, reason, email,
// created), of Mailgun's (address, code, error, created_at), of Postmark's suppression dump (EmailAddress,
// SuppressionReason, Origin, CreatedAt), and ListSuppressedDestinations of SES (EmailAddress, Reason, LastUpdateTime).

// aliases are the names of each column in other services' exports, in lower case and without word separators. If a file has
// several of them, the first in the list counts.
var aliases = map[string][]string{
	"email":      {"email", "emailaddress", "address", "recipient"},
	"stream":     {"stream"},
	"reason":     {"reason", "suppressionreason", "type"},
	"detail":     {"detail", "error", "description"},
	"status":     {"status", "code"},
	"created_at": {"createdat", "created", "bouncedat", "lastupdatetime", "date"},
	"expires_at": {"expiresat"},
}

// plainName gives a column name the form that aliases has.
func plainName(name string) string {
	return strings.ToLower(strings.NewReplacer(" ", "", "_", "", "-", "").Replace(strings.TrimSpace(name)))
}

// foreignReasons are other services' words for our reasons, in lower case and without word separators.
var foreignReasons = map[string]string{
	"hardbounce": "hard_bounce", "bounce": "hard_bounce", "bounced": "hard_bounce", "permanent": "hard_bounce", "invalid": "hard_bounce",
	"softbounce": "soft_bounce", "spamcomplaint": "complaint", "complaint": "complaint", "complained": "complaint", "spamreport": "complaint",
	"spam": "complaint", "abuse": "complaint", "manualsuppression": "manual", "manual": "manual", "unsubscribe": "unsubscribe",
	"unsubscribed": "unsubscribe", "optout": "unsubscribe",
}

// readReason reads a cell of a column of reasons: one of our reasons, another service's word for one, or a server's reply,
// which becomes the detail of a hard bounce. It returns any other single word as it is; the caller refuses it.
func readReason(cell string) (reason, detail string) {
	if ours := foreignReasons[plainName(cell)]; ours != "" {
		return ours, ""
	}
	if strings.ContainsFunc(cell, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsDigit(r) }) {
		return "hard_bounce", cell
	}
	return cell, ""
}

// passes matches the status of a temporary failure, such as 4.2.2 or 451, or a server's reply that begins with one (RFC 5321
// section 4.2.1, RFC 3463 section 2).
var passes = regexp.MustCompile(`^4(\d\d|\.\d{1,3}\.\d{1,3})($|[ -])`)

// foreignTimes are the time layouts of other services. A time without a zone is in UTC.
var foreignTimes = []string{time.RFC3339, time.RFC1123, time.RFC1123Z, time.DateTime, "2006-01-02T15:04:05", time.DateOnly, "01/02/2006"}

// readCreated reads when something was suppressed: in one of foreignTimes, or in seconds since 1970.
func readCreated(v string) (time.Time, error) {
	if v == "" {
		return time.Time{}, nil
	}
	for _, layout := range foreignTimes {
		if t, err := time.Parse(layout, v); err == nil && t.Year() >= 1970 && t.Year() <= 9998 {
			return t, nil
		}
	}
	if seconds, err := strconv.ParseInt(v, 10, 64); err == nil && seconds >= 0 && seconds < 253_000_000_000 {
		return time.Unix(seconds, 0), nil
	}
	return time.Time{}, invalid("created_at", "invalid_time", "must be a time such as 2026-01-31T12:00:00Z, or seconds since 1970")
}

// shortened cuts a server's reply to the length of a detail, and replaces control characters by spaces.
func shortened(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	if r := []rune(text); len(r) > maxSuppressionDetail {
		return string(r[:maxSuppressionDetail])
	}
	return text
}
