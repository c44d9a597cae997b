package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/catalog"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

// secretsByAccount holds secrets by field, by account.
type secretsByAccount = map[string]map[string]seal.Secret

// devKeys are the values that dev.env keeps from the last run: the API keys, of which the database has only hashes, and the
// URL of the private database.
type devKeys struct{ api, admin, database string }

func (d *dev) envPath() string { return filepath.Join(d.Data, "dev.env") }

// readDevEnv reads the keys of an earlier run, or none.
func readDevEnv(path string) (devKeys, error) {
	b, err := os.ReadFile(path) //nolint:gosec // under the data folder that the user named
	if errors.Is(err, fs.ErrNotExist) {
		return devKeys{}, nil
	}
	if err != nil {
		return devKeys{}, fmt.Errorf("read keys: %w", err)
	}
	var k devKeys
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "SENDGATE_API_KEY":
			k.api = value
		case "SENDGATE_ADMIN_KEY":
			k.admin = value
		case "SENDGATE_DATABASE_URL":
			k.database = value
		}
	}
	return k, nil
}

// writeEnv replaces dev.env as a whole, readable by its owner only.
func (d *dev) writeEnv(url string) error {
	var b bytes.Buffer
	for _, kv := range [][2]string{
		{"SENDGATE_URL", url},
		{"SENDGATE_API_KEY", d.keys.api},
		{"SENDGATE_ADMIN_KEY", d.keys.admin},
		{"SENDGATE_DATABASE_URL", d.dsn},
		{"SENDGATE_EMULATOR_URL", d.emu.URL()},
	} {
		fmt.Fprintf(&b, "%s=%s\n", kv[0], kv[1])
	}
	next := d.envPath() + ".new"
	if err := os.WriteFile(next, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", d.envPath(), err)
	}
	if err := os.Rename(next, d.envPath()); err != nil {
		return fmt.Errorf("write %s: %w", d.envPath(), err)
	}
	return nil
}

// storeAccounts makes the accounts, or updates existing ones to the addresses, secrets and limits of this run. Weights,
// pauses and rules that the user set stay.
func (d *dev) storeAccounts(ctx context.Context, db *postgres.DB) error {
	c, err := db.Config(ctx)
	if err != nil {
		return err
	}
	accounts, secrets, err := Emulated(d.emu, d.Limits == "documented")
	if err != nil {
		return err
	}
	for _, acc := range accounts {
		if old := c.Account(acc.Name); old == nil {
			err = db.CreateAccount(ctx, "dev", acc, secrets[acc.Name])
		} else { // addresses and keys of the emulators are new
			acc.Concurrency = old.Concurrency
			err = db.UpdateAccount(ctx, "dev", acc, secrets[acc.Name])
		}
		if err != nil {
			return err
		}
		if old := c.Account(acc.Name); old != nil && !sameWindows(old.Limits, acc.Limits) {
			if err := db.SetLimits(ctx, "dev", acc.Name, acc.Limits); err != nil {
				return err
			}
		}
	}
	return equalWeights(ctx, db, accounts)
}

func sameWindows(a, b []limit.Window) bool {
	have := map[limit.Window]bool{}
	for _, w := range a {
		have[w] = true
	}
	for _, w := range b {
		if !have[w] {
			return false
		}
	}
	return len(a) == len(b)
}

// Emulated returns the accounts of a running emulator, as an operator would set up real ones, and their secrets by account.
// There is one of each kind, named after it. limited gives them their documented limits.
func Emulated(emu *emulator.Emulator, limited bool) ([]route.Account, map[string]map[string]seal.Secret, error) {
	var accounts []route.Account
	secrets := secretsByAccount{}
	for _, e := range emu.Accounts() {
		settings, err := json.Marshal(e.Settings)
		if err != nil {
			return nil, nil, fmt.Errorf("settings of %s: %w", e.Kind, err)
		}
		kind := provider.Kind(e.Kind)
		spec, _ := catalog.Spec(kind)
		acc := route.Account{Name: e.Kind, Kind: kind, Settings: settings, Concurrency: spec.Concurrency}
		if limited {
			acc.Limits = catalog.DocumentedLimits(kind)
		}
		accounts = append(accounts, acc)
		secrets[acc.Name] = map[string]seal.Secret{}
		for field, value := range e.Secrets {
			secrets[acc.Name][field] = seal.NewSecret(value)
		}
	}
	return accounts, secrets, nil
}
