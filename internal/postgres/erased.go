package postgres

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// Whose data were erased gets no mail, and is known by a hash only. Its key is made by the first erasure; replicas read it with the
// configuration. Until then nothing is hashed and no table is asked.

// erasedAddress stands in the place of an erased address. It can't be mailed (RFC 2606 section 2).
const erasedAddress = "erased@erased.invalid"

const erasureBinding = "erasure/key"

// readErasureKey reads the key of the hashes, if there is one. A key that does not open is as good as none: doctor lists it.
func (db *DB) readErasureKey(ctx context.Context, tx pgx.Tx) error {
	if db.box == nil {
		return nil
	}
	var sealed []byte
	err := tx.QueryRow(ctx, `SELECT sealed FROM erasure_key`).Scan(&sealed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	if s, err := db.box.Open(sealed, erasureBinding); err == nil {
		db.erasure.Store(&s)
	}
	return nil
}

// needErasureKey makes the key if there is none, and reads it.
func (db *DB) needErasureKey(ctx context.Context, tx pgx.Tx) error {
	if db.box == nil {
		return errors.New("there is no secret key")
	}
	random := make([]byte, sha256.Size)
	_, _ = rand.Read(random) // never fails
	sealed := db.box.Seal(seal.NewSecret(base64.StdEncoding.EncodeToString(random)), erasureBinding)
	if _, err := tx.Exec(ctx, `INSERT INTO erasure_key (sealed) VALUES ($1) ON CONFLICT DO NOTHING`, sealed); err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, `SELECT sealed FROM erasure_key`).Scan(&sealed); err != nil {
		return err
	}
	s, err := db.box.Open(sealed, erasureBinding)
	if err != nil {
		return fmt.Errorf("key of the hashes of erased addresses: %w", err)
	}
	db.erasure.Store(&s)
	return nil
}

// erasedHash is the hash of a folded address, or "" while nobody was erased.
func (db *DB) erasedHash(folded string) string {
	key := db.erasure.Load()
	if key == nil {
		return ""
	}
	h := hmac.New(sha256.New, []byte(key.Reveal()))
	h.Write([]byte(folded))
	return hex.EncodeToString(h.Sum(nil))
}

// hideErased removes from events what would bring an erased address back: providers report for days what became of a mail. It looks
// at events about an address that is no recipient of their message any more.
func (db *DB) hideErased(ctx context.Context, tx pgx.Tx, facts []*fact) error {
	if db.erasure.Load() == nil {
		return nil
	}
	byHash := map[string][]*fact{}
	for _, f := range facts {
		if f.N < 0 && strings.Contains(f.Recipient, "@") {
			h := db.erasedHash(mail.FoldAddress(f.Recipient))
			byHash[h] = append(byHash[h], f)
		}
	}
	hashes := make([]string, 0, len(byHash))
	for h := range byHash {
		hashes = append(hashes, h)
	}
	if len(hashes) == 0 {
		return nil
	}
	found, err := pgx.CollectRows(query(ctx, tx, `SELECT DISTINCT hash FROM erased WHERE hash = ANY ($1)
		AND tenant_id = ANY (ARRAY(SELECT id FROM tenant))`, hashes), pgx.RowTo[string])
	if err != nil {
		return err
	}
	type payload struct{ intake, payload int }
	hidden := map[payload]bool{}
	for _, h := range found {
		for _, f := range byHash[h] {
			f.Recipient, f.URL = erasedAddress, ""
			if f.Bounce != nil {
				f.Bounce.Text = ""
			}
			hidden[payload{f.intake, f.payload}] = true
		}
	}
	for _, f := range facts { // the payload has the address, whatever event keeps it
		if hidden[payload{f.intake, f.payload}] {
			f.raw = nil
		}
	}
	return nil
}

// erasedSuppression is the suppression of an address whose data were erased, or none.
func (db *DB) erasedSuppression(ctx context.Context, tenant mail.TenantID, folded string) ([]record.Suppression, error) {
	rows := query(ctx, db.api, `SELECT at FROM erased WHERE tenant_id = $1 AND hash = $2`, tenant, db.erasedHash(folded))
	return collect("look for an erased address", rows, func(row pgx.CollectableRow) (record.Suppression, error) {
		s := record.Suppression{Tenant: tenant, Email: folded, Reason: "erased", Origin: "api"}
		return s, row.Scan(&s.CreatedAt)
	})
}
