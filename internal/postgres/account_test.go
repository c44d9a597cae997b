package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

func revealed(t *testing.T, db *DB, id int32) map[string]string {
	t.Helper()
	secrets, err := db.Secrets(t.Context(), id)
	must(t, err)
	plain := map[string]string{}
	for f, s := range secrets {
		plain[f] = s.Reveal()
	}
	return plain
}

func TestSecretsAreSealedToTheirRowAndField(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	create := func(name string, secrets map[string]seal.Secret) int32 {
		must(t, b.db.CreateAccount(ctx, "ops", route.Account{Name: name, Kind: "smtp", Concurrency: 1}, secrets))
		return b.config(t).Account(name).ID
	}
	one := create("one", map[string]seal.Secret{"user": seal.NewSecret("canary-user"), "password": seal.NewSecret("canary-password")})
	create("two", map[string]seal.Secret{"user": seal.NewSecret("canary-other"), "password": seal.NewSecret("canary-password")})
	if diff := cmp.Diff(map[string]string{"user": "canary-user", "password": "canary-password"}, revealed(t, b.db, one)); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	must(t, b.db.UpdateAccount(ctx, "ops", route.Account{Name: "one", Kind: "smtp", Concurrency: 1}, map[string]seal.Secret{"password": seal.NewSecret("canary-new")}))
	if diff := cmp.Diff(map[string]string{"user": "canary-user", "password": "canary-new"}, revealed(t, b.db, one)); diff != "" {
		t.Errorf("secrets after one was changed (-want +got):\n%s", diff)
	}
	if dump := b.dump(t); strings.Contains(dump, "canary") || strings.Contains(dump, fmt.Sprintf("%x", "canary")) || !strings.Contains(dump, "account.update") {
		t.Error("a secret stands in the tables in plain")
	}
	if _, err := b.open(t, Options{Box: newBox(t, 2)}).Secrets(ctx, one); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("with another key: %v, want ErrSealed", err)
	}
	swap := func(what, sql string) {
		t.Helper()
		b.exec(t, `UPDATE account_secret a SET sealed = k.sealed FROM account_secret k WHERE `+sql)
		if _, err := b.db.Secrets(ctx, one); !errors.Is(err, seal.ErrSealed) {
			t.Errorf("%s: %v, want ErrSealed", what, err)
		}
		if _, is := errors.AsType[*record.Unavailable](func() error { _, err := b.db.Secrets(ctx, one); return err }()); is {
			t.Errorf("%s is told as an outage", what)
		}
	}
	swap("two fields of a row swapped", `a.account_id = k.account_id AND a.field <> k.field`)
	must(t, b.db.UpdateAccount(ctx, "ops", route.Account{Name: "one", Kind: "smtp", Concurrency: 1}, map[string]seal.Secret{"user": seal.NewSecret("u"), "password": seal.NewSecret("p")}))
	swap("one field of two rows swapped", `a.field = 'user' AND k.field = 'user' AND a.account_id <> k.account_id`)
}

// dump is the text of every table that holds configuration.
func (b *bed) dump(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, table := range list[string](t, b, `SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`) {
		all.WriteString(strings.Join(list[string](t, b, `SELECT x::text FROM `+pgx.Identifier{table}.Sanitize()+` x`), "\n"))
	}
	return all.String()
}

func TestPauseResumeAndUpdateOfAnAccount(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	id := b.relay(t)
	created := b.config(t).Account("relay").UpdatedAt
	park := func() {
		b.exec(t, `INSERT INTO account_park (account_id, sender_domain, reason) VALUES ($1, '', '401'), ($1, 'example.com', 'not verified') ON CONFLICT DO NOTHING`, id)
	}
	park()
	must(t, b.db.PauseAccount(ctx, "ops", "relay"))
	if a := b.config(t).Account("relay"); !a.Paused || len(a.Parked) != 2 || a.Parked[0].Since.IsZero() {
		t.Errorf("paused account = %+v", a)
	}
	b.exec(t, `UPDATE rate_account SET blocked_until = now() + interval '1 h', reason = '429'`)
	must(t, b.db.ResumeAccount(ctx, "ops", "relay"))
	blocks, err := b.db.Blocks(ctx)
	must(t, err)
	if a := b.config(t).Account("relay"); a.Paused || len(a.Parked) != 0 || len(blocks) != 0 {
		t.Errorf("resumed account = %+v, blocked for %v", a, blocks)
	}
	park()
	must(t, b.db.UpdateAccount(ctx, "ops", route.Account{Name: "relay", Kind: "smtp", Concurrency: 7, Settings: []byte(`{"host": "h"}`)}, nil))
	a := b.config(t).Account("relay")
	if a.ID != id || a.Concurrency != 7 || string(a.Settings) != `{"host": "h"}` || len(a.Parked) != 0 || !a.UpdatedAt.After(created) {
		t.Errorf("updated account = %+v", a)
	}
}

func TestDeletedAccountDrainsAndFreesItsName(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	must(t, b.db.CreateAccount(ctx, "ops", route.Account{Name: "relay", Kind: "smtp", Concurrency: 1}, map[string]seal.Secret{"password": seal.NewSecret("p")}))
	_, err := b.db.UpdatePool(ctx, "ops", route.Pool{Name: "default", Overflow: route.Spill, Members: []route.Member{{Account: "relay", Weight: 1}}}, 1)
	must(t, err)
	f := b.fly(t, submission())
	must(t, b.db.DeleteAccount(ctx, "ops", "relay"))
	if p := b.config(t).Pool("default"); len(p.Members) != 0 || p.Version != 3 {
		t.Errorf("pool of the deleted account = %+v, want it empty at version 3", p)
	}
	must(t, b.db.CreateAccount(ctx, "ops", route.Account{Name: "relay", Kind: "smtp", Concurrency: 2}, nil))
	draining := func(stage string) {
		t.Helper()
		c := b.config(t)
		if len(c.Accounts) != 2 || c.Accounts[0].ID != f.account || !c.Accounts[0].Draining || c.Accounts[1].Draining || c.Account("relay").Concurrency != 2 {
			t.Errorf("%s: accounts = %+v", stage, c.Accounts)
		}
		if got := revealed(t, b.db, f.account)["password"]; got != "p" {
			t.Errorf("%s: the secret of the draining account is %q", stage, got)
		}
	}
	draining("in flight")
	b.expire(t, f.owner)
	_, _, err = b.db.Rescue(ctx, waits)
	must(t, err)
	draining("unknown")
	if n, err := b.db.ForgetSecrets(ctx); n != 0 || err != nil {
		t.Errorf("ForgetSecrets while a message is unknown = %d, %v; want none", n, err)
	}
	b.exec(t, `UPDATE unknown SET decide_at = now()`)
	_, _, err = b.db.DecideUnknown(ctx, false, 2)
	must(t, err)
	if c := b.config(t); len(c.Accounts) != 1 || c.Accounts[0].Draining {
		t.Errorf("drained: accounts = %+v", c.Accounts)
	}
	if n, err := b.db.ForgetSecrets(ctx); n != 1 || err != nil {
		t.Errorf("ForgetSecrets of a drained account = %d, %v; want 1", n, err)
	}
	if v := b.view(t, f.id); len(v.Attempts) != 1 || v.Attempts[0].Account != "relay" {
		t.Errorf("attempts through the deleted account = %+v", v.Attempts)
	}
	must(t, b.db.DeleteAccount(ctx, "ops", "relay"))
	if got := get[int](t, b, `SELECT count(*) FROM account_secret`); got != 0 {
		t.Errorf("%d secrets outlive an account that had nothing to drain", got)
	}
}

func TestConfigIsOneSnapshot(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.relay(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 30 {
			overflow, weight := route.Spill, 1.0
			if i%2 == 0 {
				overflow, weight = route.Wait, 2.0
			}
			p := route.Pool{Name: "default", Overflow: overflow, Members: []route.Member{{Account: "relay", Weight: weight}}}
			if _, err := b.db.UpdatePool(context.WithoutCancel(t.Context()), "ops", p, 0); err != nil {
				t.Errorf("update pool: %v", err)
			}
		}
	}()
	for {
		c := b.config(t)
		if p := c.Pool("default"); len(p.Members) > 0 && (p.Overflow == route.Wait) != (p.Members[0].Weight == 2) {
			t.Fatalf("version %d mixes two configurations: %+v", c.Version, p)
		}
		select {
		case <-done:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func TestTwoProcessesWithDifferentKeysAreOneTooMany(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	other := b.open(t, Options{Box: newBox(t, 2)})
	check := func(when string, db *DB, want error) {
		t.Helper()
		if err := db.CheckKey(t.Context()); !errors.Is(err, want) {
			t.Errorf("%s: CheckKey = %v, want %v", when, err, want)
		}
	}
	owner := b.replica(t)
	check("no secrets", other, nil)
	for _, name := range []string{"one", "two"} {
		a := route.Account{Name: name, Kind: "smtp", Concurrency: 20}
		must(t, b.db.CreateAccount(t.Context(), "tester", a, map[string]seal.Secret{"password": seal.NewSecret("p")}))
	}
	check("one key", b.db, nil)
	check("another key beside it", other, seal.ErrSealed)
	must(t, other.UpdateAccount(t.Context(), "tester", route.Account{Name: "one", Kind: "smtp", Concurrency: 20},
		map[string]seal.Secret{"password": seal.NewSecret("p")}))
	check("some of either", other, nil)
	check("some of either", b.db, nil)
	must(t, other.UpdateAccount(t.Context(), "tester", route.Account{Name: "two", Kind: "smtp", Concurrency: 20},
		map[string]seal.Secret{"password": seal.NewSecret("p")}))
	check("all of the other's", b.db, seal.ErrSealed)
	b.expire(t, owner)
	check("alone, with another key", b.db, nil)
}
