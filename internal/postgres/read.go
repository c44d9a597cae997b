package postgres

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sendgate/sendgate/internal/mail"
)

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// query runs a statement. If that fails, the rows carry the error, and pgx.CollectRows and pgx.ForEachRow return it.
func query(ctx context.Context, on querier, sql string, args ...any) pgx.Rows {
	rows, _ := on.Query(ctx, sql, args...)
	return rows
}

// collect reads all rows of a query. An error begins with the words of doing.
func collect[T any](doing string, rows pgx.Rows, scan pgx.RowToFunc[T]) ([]T, error) {
	all, err := pgx.CollectRows(rows, scan)
	return all, failed(doing, err)
}

// listing is a statement that grows by the conditions of a filter. Every value is a parameter.
type listing struct {
	sql  string
	args []any
}

// and adds a condition if it is wanted. In it, $? is the value.
func (l *listing) and(wanted bool, condition string, value any) {
	if wanted {
		l.args = append(l.args, value)
		l.sql += " AND " + strings.ReplaceAll(condition, "$?", "$"+strconv.Itoa(len(l.args)))
	}
}

// newest selects the rows of a time and before an id, as far as these are given, and ends the statement: newest first.
func (l *listing) newest(id string, since, until time.Time, before mail.ID, limit int) (string, []any) {
	l.and(!since.IsZero(), id+" >= $?", [16]byte(mail.IDAt(since)))
	l.and(!until.IsZero(), id+" < $?", [16]byte(mail.IDAt(until)))
	l.and(!before.IsZero(), id+" < $?", [16]byte(before))
	return l.sql + " ORDER BY " + id + " DESC LIMIT $" + strconv.Itoa(len(l.args)+1), append(l.args, limit)
}

// intoID is where a scan writes an id.
func intoID(id *mail.ID) *[16]byte { return (*[16]byte)(id) }

// A nullableID becomes the zero id if a scan reads null.
type nullableID mail.ID

// ScanUUID implements pgtype.UUIDScanner.
func (id *nullableID) ScanUUID(v pgtype.UUID) error {
	*id = v.Bytes
	return nil
}

// A nullableTime becomes the zero time if a scan reads null.
type nullableTime time.Time

// ScanTimestamptz implements pgtype.TimestamptzScanner.
func (t *nullableTime) ScanTimestamptz(v pgtype.Timestamptz) error {
	*t = nullableTime(v.Time)
	return nil
}

func orNoID(id *mail.ID) *nullableID      { return (*nullableID)(id) }
func orNoTime(t *time.Time) *nullableTime { return (*nullableTime)(t) }
