package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// TakesNoWrites reports whether the server refused a write since its disk is full, or since it takes none at all.
func TakesNoWrites(err error) bool { return isCode(err, "53100", readOnly) }

// probeSQL takes new pages of the disk, since a full one still has room in the pages that are there. Rows below 2 kB are not
// compressed.
const probeSQL = `
CREATE UNLOGGED TABLE sendgate_probe_%s AS SELECT repeat('x', 1900) AS filler FROM generate_series(1, 128)`

// ProbeWrite reports whether the database can store anything: a table of 256 kB, which is gone again at once, and a commit.
func (db *DB) ProbeWrite(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
	defer cancel()
	err := pgx.BeginFunc(ctx, db.api, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf(probeSQL, strings.ToLower(rand.Text()[:10]))); err != nil { // replicas probe at the same time
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
