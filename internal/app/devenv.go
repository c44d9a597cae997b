package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
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

// devKeys are what a data folder remembers of its last run, in dev.env: the API keys, which are in the database as
// hashes, and the URL of its private database.
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

// storeAccounts makes the five accounts, or updates those that are there: addresses, secrets and limits are those of
// this run. Weights, pauses and rules that the user set stay.
func (d *dev) storeAccounts(ctx context.Context, db *postgres.DB) error {
	c, err := db.Config(ctx)
	if err != nil {
		return err
	}
	accounts, secrets, err := Emulated(d.emu, d.secret, d.Limits == "documented")
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

// Emulated describes the accounts of a running emulator as an operator would the real ones: five, named as their kinds.
// verpKey signs the bounce addresses of the relay. limited gives them their documented limits.
func Emulated(emu *emulator.Emulator, verpKey string, limited bool) ([]route.Account, map[string]map[string]seal.Secret, error) {
	host, port, err := net.SplitHostPort(emu.SMTPAddr())
	if err != nil {
		return nil, nil, fmt.Errorf("emulator address: %w", err)
	}
	smtpPort, err := strconv.Atoi(port)
	if err != nil {
		return nil, nil, fmt.Errorf("emulator address: %w", err)
	}
	c, at, keys := emulator.DefaultCredentials(), emu.URL(), emu.HookKeys()
	kinds := []struct {
		kind     provider.Kind
		settings map[string]any
		secrets  map[string]string
	}{
		{"sendgrid", map[string]any{"base_url": at + "/sendgrid", "lookups_per_minute": 6000, "webhook_public_keys": []string{keys.SendGridPublicKey}}, map[string]string{"api_key": c.SendGridKey}},
		{"mailgun", map[string]any{"base_url": at + "/mailgun", "domain": c.MailgunDomain}, map[string]string{"api_key": c.MailgunKey, "webhook_signing_key": keys.MailgunSigningKey}},
		{
			"postmark",
			map[string]any{"base_url": at + "/postmark", "webhook_username": keys.PostmarkUsername},
			map[string]string{"server_token": c.PostmarkToken, "webhook_password": keys.PostmarkPassword},
		},
		{
			"ses",
			map[string]any{
				"base_url": at + "/ses", "region": c.AWSRegion, "configuration_set": "sendgate",
				"sns_topic_arns": []string{keys.SNSTopicARN}, "sns_base_url": at + "/ses", "sns_ca_pem": keys.SNSCAPEM,
			},
			map[string]string{"access_key_id": c.AWSAccessKeyID, "secret_access_key": c.AWSSecretAccessKey},
		},
		{
			"smtp",
			map[string]any{
				"host": host, "port": smtpPort, "tls": "none", "username": c.SMTPUser, "smtputf8": true,
				"bounce_domain": "bounces.sendgate.test",
			},
			map[string]string{"password": c.SMTPPassword, "verp_key": verpKey},
		},
	}
	var accounts []route.Account
	secrets := secretsByAccount{}
	for _, k := range kinds {
		settings, err := json.Marshal(k.settings)
		if err != nil {
			return nil, nil, fmt.Errorf("settings of %s: %w", k.kind, err)
		}
		spec, _ := catalog.Spec(k.kind)
		acc := route.Account{Name: string(k.kind), Kind: k.kind, Settings: settings, Concurrency: spec.Concurrency}
		if limited {
			acc.Limits = catalog.DocumentedLimits(k.kind)
		}
		accounts = append(accounts, acc)
		secrets[acc.Name] = map[string]seal.Secret{}
		for field, value := range k.secrets {
			secrets[acc.Name][field] = seal.NewSecret(value)
		}
	}
	return accounts, secrets, nil
}
