package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
)

// A rowset is rows that a statement gets as arrays, one for each column. The first row names the columns; every other row has
// the same ones in the same order.
//
//	i := rowsAs("i", len(calls))
//	for _, c := range calls {
//		i.row().id("id", c.ID).int("n", c.N).text("class", c.Class)
//	}
//	i.queue(b, `UPDATE attempt t SET class = i.class FROM @i WHERE t.message_id = ANY (@i.id) AND t.message_id = i.id AND t.n = i.n`)
//
// In a statement, @i stands for unnest($1::uuid[], $2::int[], $3::text[]) AS i(id, n, class), @i.id for the array of one
// column, and @i.* for the names of all columns. The rowset is the first argument of its statement, and $1 is the next one.
//
// The plans of the engine's statements are made once, before the ids are known. So that a statement looks at the days of its
// ids and not at every day, x = ANY (@i.id) also says x BETWEEN the least and the greatest id. Where one message is looked at
// after the other, @i.id.first and @i.id.last are these two.
//
// Yet such a plan opens and locks all days each time that it runs. @message, @recipient, @attempt and @body stand for the table
// of one day, if all ids of the first such column are of today or yesterday, and else for all days. The names need an alias.
type rowset struct {
	alias  string
	room   int
	fields []field
	n, at  int // how many rows there are, and which column of the last one is next
	values int // of all rows
	err    error
	next   *rowset // a second one of the same statement
}

// field is a column and its values.
type field struct {
	ref
	kind   string
	values interface{ slice() any }
}

// ref names a column of a rowset, or the least or the greatest value of an id column.
type ref struct{ alias, name, end string }

// array holds the values of one column. pgx is quick with slices of plain types.
type array[T any] struct{ all []T }

func (a *array[T]) slice() any { return a.all }

// rowsAs makes an empty rowset, with room for n rows.
func rowsAs(alias string, n int) *rowset {
	return &rowset{alias: alias, room: n, fields: make([]field, 0, 8)}
}

// row begins the next row.
func (r *rowset) row() *rowset {
	r.n, r.at = r.n+1, 0
	return r
}

func add[T any](r *rowset, name, kind string, v T) *rowset {
	if r.n == 1 {
		r.fields = append(r.fields, field{ref{r.alias, name, ""}, kind, &array[T]{make([]T, 0, r.room)}})
	}
	a, ok := r.fields[r.at].values.(*array[T])
	if !ok || r.fields[r.at].name != name {
		panic("rows " + r.alias + ": " + name + " stands where the first row has " + r.fields[r.at].name)
	}
	a.all = append(a.all, v)
	r.at, r.values = r.at+1, r.values+1
	return r
}

func (r *rowset) id(name string, v [16]byte) *rowset        { return add(r, name, "uuid", v) }
func (r *rowset) int(name string, v int) *rowset            { return add(r, name, "int", int32(v)) }      //nolint:gosec // all that is counted here is small
func (r *rowset) small(name string, v int) *rowset          { return add(r, name, "smallint", int16(v)) } //nolint:gosec // at most 9,999
func (r *rowset) big(name string, v int64) *rowset          { return add(r, name, "bigint", v) }
func (r *rowset) text(name, v string) *rowset               { return add(r, name, "text", v) }
func (r *rowset) bool(name string, v bool) *rowset          { return add(r, name, "boolean", v) }
func (r *rowset) time(name string, v time.Time) *rowset     { return add(r, name, "timestamptz", v) }
func (r *rowset) wait(name string, v time.Duration) *rowset { return add(r, name, "interval", v) }
func (r *rowset) bytes(name string, v []byte) *rowset       { return add(r, name, "bytea", v) }
func (r *rowset) raw(name string, v []byte) *rowset         { return add(r, name, "jsonb", v) }

// The next three store null for a zero value, or for a negative number.
func (r *rowset) maybeID(name string, v mail.ID) *rowset { return add(r, name, "uuid", idOrNull(v)) }

func (r *rowset) maybeTime(name string, v time.Time) *rowset {
	return add(r, name, "timestamptz", orNull(v))
}

func (r *rowset) maybeSmall(name string, v int) *rowset {
	if v < 0 {
		return add[*int16](r, name, "smallint", nil)
	}
	n := int16(v) //nolint:gosec // see small
	return add(r, name, "smallint", &n)
}

// json encodes a value. It stores null for a nil or empty one.
func (r *rowset) json(name string, v any) *rowset {
	raw, err := json.Marshal(v)
	if err != nil {
		r.err = fmt.Errorf("encode %s: %w", name, err)
	}
	if s := string(raw); s == "null" || s == "{}" {
		raw = nil
	}
	return r.raw(name, raw)
}

// with adds a rowset of another alias for the same statement.
func (r *rowset) with(next *rowset) *rowset {
	r.next = next
	return r
}

// queue queues a statement for the rows, if there are any.
func (r *rowset) queue(b *pgx.Batch, sql string, args ...any) {
	if r.n > 0 {
		b.Queue(sql, slices.Insert(args, 0, any(r))...)
	}
}

// statements keeps each statement as it is sent, by its written form. There are only as many as are written in this package,
// and a few for each day.
var statements sync.Map

// written is a statement as it stands in this package, and the end of the names of its tables: that of a day, or "".
type written struct{ sql, day string }

// expanded is a statement as it is sent, and the columns whose arrays follow its other arguments.
type expanded struct {
	sql  string
	uses []ref
	of   *ref // the column whose ids decide which day's tables are named; nil if none is named
}

// RewriteQuery implements pgx.QueryRewriter.
func (r *rowset) RewriteQuery(_ context.Context, conn *pgx.Conn, sql string, args []any) (string, []any, error) {
	fields := r.fields
	for s := r; s != nil; s = s.next {
		if s.err != nil || s.n == 0 || s.values != s.n*len(s.fields) {
			return "", nil, errors.Join(s.err, fmt.Errorf("rows %s: %d rows of %d columns have %d values", s.alias, s.n, len(s.fields), s.values))
		}
		if s != r {
			fields = slices.Concat(fields, s.fields)
		}
	}
	e := expandOnce(written{sql, ""}, fields, len(args))
	if e.of != nil && daysOpen(conn) {
		ids, _ := fields[columnOf(fields, *e.of)].values.slice().([][16]byte) // as expand has seen
		if day := dayOf(ids, time.Now()); day != "" {
			e = expandOnce(written{sql, day}, fields, len(args))
		}
	}
	args = slices.Clone(args)
	for _, u := range e.uses {
		k := columnOf(fields, u)
		if k < 0 {
			return "", nil, fmt.Errorf("rows %s have no column %s", u.alias, u.name)
		}
		values := fields[k].values.slice()
		switch ids, _ := values.([][16]byte); u.end {
		case "first":
			values = slices.MinFunc(ids, compareIDs)
		case "last":
			values = slices.MaxFunc(ids, compareIDs)
		}
		args = append(args, values)
	}
	return e.sql, args, nil
}

func columnOf(fields []field, u ref) int {
	return slices.IndexFunc(fields, func(f field) bool { return f.alias == u.alias && f.name == u.name })
}

func compareIDs(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) }

// dayOf is the end of the names of the tables that have the messages with these ids, if all are of one day and that is today or
// yesterday: these tables exist, and drop_day does not drop them. Otherwise it is "".
func dayOf(ids [][16]byte, now time.Time) string {
	first, last := slices.MinFunc(ids, compareIDs), slices.MaxFunc(ids, compareIDs)
	day := mail.ID(first).Time().Format("_20060102")
	if day == mail.ID(last).Time().Format("_20060102") && (day == now.UTC().Format("_20060102") || day == now.UTC().AddDate(0, 0, -1).Format("_20060102")) {
		return day
	}
	return ""
}

// daysKey is where a connection keeps whether its role may use the tables of days directly.
const daysKey = "sendgate.days"

func daysOpen(conn *pgx.Conn) bool {
	if conn == nil {
		return false
	}
	open, _ := conn.PgConn().CustomData()[daysKey].(*atomic.Bool)
	return open != nil && open.Load()
}

var (
	reference = regexp.MustCompile(`@([a-z]+)(?:\.([a-z_]+|\*))?(?:\.(first|last))?`)
	anyOf     = regexp.MustCompile(`([a-z_.]+) = ANY \(@([a-z]+)\.([a-z_]+)\)`)
)

func expandOnce(w written, fields []field, before int) *expanded {
	known, ok := statements.Load(w)
	if !ok {
		known, _ = statements.LoadOrStore(w, expand(w, fields, before))
	}
	e, _ := known.(*expanded)
	return e
}

// expand puts parameters, columns and tables in the place of references. An unknown one stays, and the server refuses it.
func expand(w written, fields []field, before int) *expanded {
	e, sql, tables := &expanded{}, w.sql, false
	param := func(u ref, kind string) string {
		k := slices.Index(e.uses, u)
		if k < 0 {
			k = len(e.uses)
			e.uses = append(e.uses, u)
		}
		return fmt.Sprintf("$%d::%s", before+k+1, kind)
	}
	sql = anyOf.ReplaceAllStringFunc(sql, func(at string) string {
		m := anyOf.FindStringSubmatch(at)
		for _, f := range fields {
			if _, ids := f.values.slice().([][16]byte); ids && f.alias == m[2] && f.name == m[3] {
				return fmt.Sprintf("%s AND %s BETWEEN @%s.%[4]s.first AND @%[3]s.%[4]s.last", at, m[1], m[2], m[3])
			}
		}
		return at
	})
	e.sql = reference.ReplaceAllStringFunc(sql, func(at string) string {
		m := reference.FindStringSubmatch(at)
		alias, name, end := m[1], m[2], m[3]
		var names, params []string
		for _, f := range fields {
			if f.alias != alias || name != "" && name != "*" && name != f.name {
				continue
			}
			names = append(names, f.name)
			switch {
			case end != "":
				if e.of == nil {
					e.of = &ref{alias, name, ""}
				}
				return param(ref{alias, name, end}, f.kind)
			case name != "*":
				params = append(params, param(f.ref, f.kind+"[]"))
			}
		}
		switch {
		case len(names) == 0 && name == "" && slices.Contains(dayTables, alias):
			tables = true
			return alias + w.day
		case len(names) == 0:
			return at
		case name == "*":
			return strings.Join(names, ", ")
		case name != "":
			return params[0]
		}
		return "unnest(" + strings.Join(params, ", ") + ") AS " + alias + "(" + strings.Join(names, ", ") + ")"
	})
	if !tables {
		e.of = nil
	}
	return e
}

// dayTables have a table for each day, and statements that may name it.
var dayTables = []string{"message", "recipient", "attempt", "body"}

// idRows is a rowset i with one column, id.
func idRows[ID ~[16]byte](ids []ID) *rowset {
	i := rowsAs("i", len(ids))
	for _, id := range ids {
		i.row().id("id", id)
	}
	return i
}
