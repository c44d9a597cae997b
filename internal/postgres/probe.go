package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// TakesNoWrites reports whether the server refused a write because its disk is full, or because it is read-only.
func TakesNoWrites(err error) bool { return isCode(err, "53100", readOnly) }

// ProbeWrite returns an error if the database can't store anything. It writes a table of 256 kB, because a full disk still has
// room in existing pages, and rolls that back at once. Then it commits.
func (db *DB) ProbeWrite(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
	defer cancel()
	err := pgx.BeginFunc(ctx, db.api, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT probe_write()`); err != nil {
			return err
		}
		return errProbed
	})
	if errors.Is(err, errProbed) {
		_, err = db.api.Exec(ctx, commitSQL)
	}
	return failed("probe", err)
}

// errProbed rolls back the table of ProbeWrite.
var errProbed = errors.New("undo the probe")
