package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// TakesNoWrites reports whether the server refused a write since its disk is full, or since it takes none at all.
func TakesNoWrites(err error) bool { return isCode(err, "53100", readOnly) }

// ProbeWrite reports whether the database can store anything: a table of 256 kB, since a full disk
// still has room in the pages that are there, which is gone again at once; and a commit.
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
	if err != nil {
		return fmt.Errorf("probe: %w", unavailable(err))
	}
	return nil
}

var errProbed = errors.New("undo the probe")
