package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// vault is one column of sealed values. Add each new one of the schema here; a test looks at every column of bytes.
type vault struct {
	table, column string
	id, name      string // expressions of type text: the row's id, and the field to which a value is bound
	binding       func(id, name string) string
}

var vaults = []vault{
	{"account_secret", "sealed", "account_id::text", "field", func(id, name string) string { return "account/" + id + "/" + name }},
	{"webhook_endpoint", "secret", "id::text", "'" + record.EndpointSecret + "'::text", endpointBinding},
	{"webhook_endpoint", "old_secret", "id::text", "'" + record.EndpointSecret + "'::text", endpointBinding}, // it was the secret
	{"webhook_endpoint", "headers", "id::text", "'" + record.EndpointHeaders + "'::text", endpointBinding},
	{"person", "totp", "id::text", "'" + totpField + "'::text", personBinding},
}

func endpointBinding(id, name string) string { return "endpoint/" + id + "/" + name }

// sealedValue is one value in a column.
type sealedValue struct {
	id, name string
	sealed   []byte
}

const resealBatch = 500

// Reseal seals anew every value that is sealed under a previous key, and counts them. It calls done after each batch. It holds
// no lock for longer than one value takes: a value that somebody stores meanwhile stays as it is. If it is interrupted, another
// run finishes the work. Without write it only counts.
func (db *DB) Reseal(ctx context.Context, write bool, done func(record.Sealed)) (record.Sealed, error) {
	var count record.Sealed
	for _, v := range vaults {
		after := sealedValue{}
		for {
			batch, err := v.read(ctx, db, after)
			if err != nil {
				return count, fmt.Errorf("reseal %s.%s: %w", v.table, v.column, unavailable(err))
			}
			for i := range batch {
				if err := v.reseal(ctx, db, &batch[i], write, &count); err != nil {
					return count, fmt.Errorf("reseal %s.%s: %w", v.table, v.column, unavailable(err))
				}
			}
			done(count)
			if len(batch) < resealBatch {
				break
			}
			after = batch[len(batch)-1]
		}
	}
	return count, nil
}

// read reads the next values after one, at most resealBatch.
func (v *vault) read(ctx context.Context, db *DB, after sealedValue) ([]sealedValue, error) {
	rows := query(ctx, db.api, fmt.Sprintf(`SELECT %s, %s, %s FROM %s WHERE %[3]s IS NOT NULL AND (%[1]s, %[2]s) > ($1, $2)
		ORDER BY 1, 2 LIMIT %[5]d`, v.id, v.name, v.column, v.table, resealBatch), after.id, after.name)
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (s sealedValue, err error) {
		return s, row.Scan(&s.id, &s.name, &s.sealed)
	})
}

// reseal seals one value anew if needed, and counts it.
func (v *vault) reseal(ctx context.Context, db *DB, s *sealedValue, write bool, count *record.Sealed) error {
	fresh, err := db.box.Reseal(s.sealed, v.binding(s.id, s.name))
	switch {
	case errors.Is(err, seal.ErrSealed):
		count.Unreadable = append(count.Unreadable, v.binding(s.id, s.name))
		return nil
	case err != nil:
		return err
	case fresh == nil:
		count.Current++
		return nil
	case !write:
		count.Previous++
		return nil
	}
	tag, err := db.api.Exec(ctx, fmt.Sprintf(`UPDATE %s SET %s = $3 WHERE %s = $1 AND %s = $2 AND %[2]s = $4`, v.table, v.column, v.id, v.name),
		s.id, s.name, fresh, s.sealed)
	switch {
	case err != nil:
		return err
	case tag.RowsAffected() == 0: // another process stored a new value meanwhile, under the present key or a previous one
		count.Changed++
	default:
		count.Resealed++
	}
	return nil
}
