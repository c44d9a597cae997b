package httpapi

import (
	"cmp"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
)

// query reads the parameters of a call and collects their mistakes. Use what it reads only after err returned nil.
type query struct {
	values url.Values
	complaints
	malformed, badCursor error
}

const (
	defaultLimit = 50
	maxLimit     = 200
	maxCursor    = 1024
	maxParameter = 320
	maxRepeated  = 20
)

// readQuery reads the query of a request. It allows only the known parameters, each at most once.
func readQuery(r *http.Request, known ...string) *query {
	return readRepeating(r, "", known...)
}

// readRepeating is readQuery with one more parameter, which may be given up to maxRepeated times.
func readRepeating(r *http.Request, repeated string, known ...string) *query {
	values, err := url.ParseQuery(r.URL.RawQuery)
	q := &query{values: values}
	if err != nil {
		q.malformed = refuse(http.StatusBadRequest, "malformed_query", "The query is not well-formed.")
	}
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
	return q
}

// noQuery refuses every parameter.
func noQuery(r *http.Request) error { return readQuery(r).err() }

func (q *query) unknown(name string, known []string) {
	message := "is not a parameter of this call" + didYouMean(name, known)
	if len(name) > 64 || !utf8.ValidString(name) {
		name = "query"
	}
	q.complain(name, "unknown_parameter", message)
}

// err returns the answer for the mistakes, or nil.
func (q *query) err() error { return cmp.Or(q.malformed, q.complaints.err(), q.badCursor) }

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

// parsed returns a parameter that parse reads, or the zero value if it is absent.
func parsed[T any](q *query, name string, parse func(string) (T, error), code, message string) (out T) {
	v := q.text(name)
	if v == "" {
		return out
	}
	out, err := parse(v)
	if err != nil {
		q.complain(name, code, message)
	}
	return out
}

// email returns a parameter that is an address, in canonical form.
func (q *query) email(name string) string {
	return parsed(q, name, mail.ParseAddress, "invalid_address", "must be one email address").Email
}

// id returns a parameter that is an id.
func (q *query) id(name string) mail.ID {
	return parsed(q, name, mail.ParseID, "invalid_id", "must be an id")
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
	return parsed(q, name, parseTime, "invalid_time", errTime.Error())
}

var errTime = errors.New("must be RFC 3339, such as 2026-01-31T12:00:00Z")

// parseTime reads a time that can be stored.
func parseTime(v string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, v)
	if err != nil || t.Year() < 1970 || t.Year() > 9998 {
		return time.Time{}, errTime
	}
	return t, nil
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

// position reads the cursor parameter as cursorAt does.
func position[T any](q *query, c *cursors, l listing, parse func(string) (T, error)) (at T) {
	at, q.badCursor = cursorAt(c, l, q.values.Get("cursor"), parse)
	return at
}

// pageOf makes a page. A listing asks the store for one row more than it shows: if all of them came, a next page exists, and its
// cursor is made from the place of the last row shown.
func pageOf[Row, Out any](c *cursors, l listing, rows []Row, asked int, place func(*Row) string, view func(*Row) Out) api.Page[Out] {
	next := ""
	if len(rows) >= asked {
		rows = rows[:asked-1]
		next = c.seal(l, place(&rows[asked-2]))
	}
	return api.Page[Out]{Data: views(rows, view), NextCursor: next}
}
