package httpapi

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sendgate/sendgate/internal/mail"
)

// query reads the parameters of a listing and collects their mistakes.
type query struct {
	values url.Values
	fields []mail.Field
}

const (
	defaultLimit = 50
	maxLimit     = 200
	maxCursor    = 1024
	maxParameter = 320
	maxRepeated  = 20
)

// readQuery reads the query of a request. It allows only the known parameters, each at most once.
func readQuery(r *http.Request, known ...string) (*query, error) {
	return readRepeating(r, "", known...)
}

// readRepeating is readQuery with one more parameter, which may be given up to maxRepeated times.
func readRepeating(r *http.Request, repeated string, known ...string) (*query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "malformed_query", "The query is not well-formed.")
	}
	q := &query{values: values}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch {
		case repeated != "" && name == repeated:
			if len(values[name]) > maxRepeated {
				q.complain(name, "too_many", "given more than "+strconv.Itoa(maxRepeated)+" times")
			}
		case !slices.Contains(known, name):
			q.unknown(name, known)
		case len(values[name]) > 1:
			q.complain(name, "duplicate", "given more than once")
		}
	}
	return q, nil
}

// noQuery refuses every parameter.
func noQuery(r *http.Request) error {
	q, err := readQuery(r)
	if err != nil {
		return err
	}
	return q.err()
}

func (q *query) unknown(name string, known []string) {
	message := "is not a parameter of this call"
	if hint := didYouMean(name, known); hint != "" {
		message += "; " + hint
	}
	if len(name) > 64 || !utf8.ValidString(name) {
		name = "query"
	}
	q.complain(name, "unknown_parameter", message)
}

func (q *query) complain(field, code, message string) {
	q.fields = append(q.fields, mail.Field{Field: field, Code: code, Message: message})
}

// err returns the 422 for all mistakes, or nil.
func (q *query) err() error {
	if len(q.fields) == 0 {
		return nil
	}
	return &mail.Invalid{Fields: q.fields}
}

// text returns a parameter that is stored text: bounded, valid UTF-8, without control characters.
func (q *query) text(name string) string {
	v := q.values.Get(name)
	if len(v) > maxParameter {
		q.complain(name, "too_long", "must have at most "+strconv.Itoa(maxParameter)+" bytes")
		return ""
	}
	if !clean(v) {
		q.complain(name, "control_char", "must be UTF-8 without control characters")
		return ""
	}
	return v
}

// clean reports whether s is UTF-8 without control characters.
func clean(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) < 0
}

// email returns a parameter that is an address, in canonical form.
func (q *query) email(name string) string {
	v := q.text(name)
	if v == "" {
		return ""
	}
	a, err := mail.ParseAddress(v)
	if err != nil {
		q.complain(name, "invalid_address", "must be one email address")
		return ""
	}
	return a.Email
}

// id returns a parameter that is an id.
func (q *query) id(name string) mail.ID {
	v := q.text(name)
	if v == "" {
		return mail.ID{}
	}
	id, err := mail.ParseID(v)
	if err != nil {
		q.complain(name, "invalid_id", "must be an id")
	}
	return id
}

// flag returns a parameter that is true or false; the default is false.
func (q *query) flag(name string) bool {
	v := q.values.Get(name)
	if v != "" && v != "true" && v != "false" {
		q.complain(name, "not_boolean", "must be true or false")
	}
	return v == "true"
}

// status returns a parameter that is a message status.
func (q *query) status(name string) mail.Status {
	v := mail.Status(q.text(name))
	if v != "" && !v.Valid() {
		q.complain(name, "unknown_status", "is not a message status")
		return ""
	}
	return v
}

// moment returns a parameter that is a time.
func (q *query) moment(name string) time.Time {
	v := q.text(name)
	if v == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, v)
	if err != nil || t.Year() < 1970 || t.Year() > 9998 {
		q.complain(name, "invalid_time", "must be RFC 3339, such as 2026-01-31T12:00:00Z")
		return time.Time{}
	}
	return t
}

// limit returns how many rows a page may have.
func (q *query) limit() int {
	v := q.values.Get("limit")
	if v == "" && !q.values.Has("limit") {
		return defaultLimit
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > maxLimit {
		q.complain("limit", "out_of_range", "must be 1 to "+strconv.Itoa(maxLimit))
		return defaultLimit
	}
	return n
}

// filter returns the parameters that select rows, in canonical order. A cursor is bound to them.
func (q *query) filter() string {
	rest := url.Values{}
	for name, values := range q.values {
		if name != "limit" && name != "cursor" {
			rest[name] = values
		}
	}
	return rest.Encode()
}

// cursor opens the cursor parameter for the listing; "" means the first page.
func (q *query) cursor(c *cursors, l listing) (string, error) {
	token := q.values.Get("cursor")
	switch {
	case token == "":
		return "", nil
	case len(token) > maxCursor:
		return "", errCursor()
	}
	return c.open(l, token)
}

// page cuts rows to limit. Listings ask the store for limit+1 rows: if the extra row is there, a next page exists, and its
// cursor is made from the last row shown.
func page[T any](c *cursors, l listing, rows []T, limit int, key func(*T) string) (shown []T, next string) {
	if len(rows) <= limit {
		return rows, ""
	}
	return rows[:limit], c.seal(l, key(&rows[limit-1]))
}
