package app

import (
	"context"
	"fmt"
	"strings"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/record"
)

// Sealed counts what Reseal did.
type Sealed = record.Sealed

// Reseal seals secrets under the present secret key that are sealed under a previous one, and calls done with its progress.
// Other processes may run meanwhile if they have both keys.
func Reseal(ctx context.Context, cfg config.Config, done func(record.Sealed)) (record.Sealed, error) {
	box, err := cfg.Box()
	if err != nil {
		return record.Sealed{}, err
	}
	db, err := postgres.Open(ctx, postgres.Options{URL: cfg.DatabaseURL.Reveal(), Box: box})
	if err != nil {
		return record.Sealed{}, err
	}
	defer db.Close()
	if err := db.Ping(ctx); err != nil {
		return record.Sealed{}, err
	}
	return db.Reseal(ctx, true, done)
}

// secretKeyCheck checks under which keys the stored secrets are sealed.
func secretKeyCheck(ctx context.Context, db *postgres.DB) Check {
	c := Check{Name: "secret key", Level: "error"}
	n, err := db.Reseal(ctx, false, func(record.Sealed) {})
	switch {
	case err != nil:
		c.Detail = err.Error()
	case len(n.Unreadable) > 0:
		c.Detail = fmt.Sprintf("%d of %d stored secrets can't be decrypted, such as %s", len(n.Unreadable), n.Current+n.Previous+len(n.Unreadable),
			strings.Join(n.Unreadable[:min(len(n.Unreadable), 3)], ", "))
		c.Fix = "set SENDGATE_SECRET_KEY_PREVIOUS to the key that they were encrypted with, or store them again: docs/operations.md, \"The secret key\""
	case n.Previous > 0:
		c.Level, c.Detail = "warn", fmt.Sprintf("%d of %d stored secrets are encrypted with a previous key", n.Previous, n.Current+n.Previous)
		c.Fix = "run sendgate secrets reseal once all replicas have the present key"
	default:
		c.OK, c.Detail = true, fmt.Sprintf("decrypts all %d stored secrets", n.Current)
	}
	return c
}
