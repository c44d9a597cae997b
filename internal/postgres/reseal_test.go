package postgres

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/seal"
)

func keyRing(t *testing.T, fills ...byte) *seal.Box {
	t.Helper()
	var keys [][]byte
	for _, fill := range fills {
		keys = append(keys, bytes.Repeat([]byte{fill}, seal.KeySize))
	}
	box, err := seal.NewBox(keys[0], keys[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func reseal(t *testing.T, db *DB, write bool) record.Sealed {
	t.Helper()
	n, err := db.Reseal(t.Context(), write, func(record.Sealed) {})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Everything that is sealed goes from one key to the next, while the old one is a previous key, and is usable all the time.
func TestResealMovesEverySecretToThePresentKey(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	one := b.account(t, "one")
	if err := b.db.UpdateAccount(ctx, "t", route.Account{Name: "one", Concurrency: 5}, map[string]seal.Secret{"a": seal.NewSecret("A"), "b": seal.NewSecret("B")}); err != nil {
		t.Fatal(err)
	}
	e, err := b.db.CreateEndpoint(ctx, "t", record.Endpoint{Tenant: mail.DefaultTenant, URL: "https://a.example/"}, seal.NewSecret("whsec_1"), seal.NewSecret("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.db.RotateEndpoint(ctx, "t", mail.DefaultTenant, e.ID, seal.NewSecret("whsec_2"), time.Hour); err != nil {
		t.Fatal(err)
	}
	usable := func(what string, db *DB) {
		t.Helper()
		secrets, err := db.Secrets(ctx, one)
		if err != nil || secrets["a"].Reveal() != "A" || secrets["b"].Reveal() != "B" {
			t.Errorf("%s: secrets of the account: %v", what, err)
		}
		_, of, err := db.EndpointSecrets(ctx, mail.DefaultTenant, e.ID)
		if err != nil || of[record.EndpointSecret].Reveal() != "whsec_2" || of[record.EndpointOldSecret].Reveal() != "whsec_1" || of[record.EndpointHeaders].Reveal() != "{}" {
			t.Errorf("%s: secrets of the endpoint: %v", what, err)
		}
	}
	ring, next := b.open(t, Options{Box: keyRing(t, 2, 1)}), b.open(t, Options{Box: keyRing(t, 2)})
	usable("before", ring)
	if n := reseal(t, ring, false); n.Previous != 5 || n.Current != 0 || len(n.Unreadable) != 0 {
		t.Errorf("before: %+v, want 5 under the previous key", n)
	}
	if n := reseal(t, next, true); len(n.Unreadable) != 5 || n.Resealed != 0 {
		t.Errorf("without the previous key: %+v, want 5 that do not open", n)
	}
	if n := reseal(t, ring, true); n.Resealed != 5 || n.Current+n.Changed+len(n.Unreadable) != 0 {
		t.Errorf("resealed: %+v, want 5", n)
	}
	if n := reseal(t, ring, true); n.Resealed != 0 || n.Current != 5 {
		t.Errorf("again: %+v, want nothing to do", n)
	}
	usable("with the new key alone", next)
}

func TestUnreadableSecretsAreShown(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	b.account(t, "one")
	if err := b.db.UpdateAccount(ctx, "t", route.Account{Name: "one", Concurrency: 5}, map[string]seal.Secret{"a": seal.NewSecret("A"), "b": seal.NewSecret("B")}); err != nil {
		t.Fatal(err)
	}
	e, err := b.db.CreateEndpoint(ctx, "t", record.Endpoint{Tenant: mail.DefaultTenant, URL: "https://a.example/"}, seal.NewSecret("whsec_1"), seal.NewSecret("{}"))
	if err != nil {
		t.Fatal(err)
	}
	lost := b.open(t, Options{Box: keyRing(t, 2)})
	names := func() []string {
		t.Helper()
		c, err := lost.Config(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return c.Account("one").Unreadable
	}
	if diff := cmp.Diff([]string{"a", "b"}, names()); diff != "" {
		t.Errorf("unreadable (-want +got):\n%s", diff)
	}
	if err := lost.UpdateAccount(ctx, "t", route.Account{Name: "one", Concurrency: 5}, map[string]seal.Secret{"a": seal.NewSecret("A")}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"b"}, names()); diff != "" {
		t.Errorf("after one was given (-want +got):\n%s", diff)
	}
	if got, err := lost.Secrets(ctx, 1); !errors.Is(err, seal.ErrSealed) || !strings.Contains(err.Error(), "b:") || got["a"].Reveal() != "A" {
		t.Errorf("Secrets = %v, want the one that opens, and ErrSealed that names the other", err)
	}
	shown := func() []string {
		t.Helper()
		got, err := lost.Endpoint(ctx, mail.DefaultTenant, e.ID)
		all, err2 := lost.Endpoints(ctx, mail.DefaultTenant)
		if err != nil || err2 != nil || !slices.Equal(all[0].Unreadable, got.Unreadable) {
			t.Fatalf("%v, %v, %+v", err, err2, all)
		}
		return got.Unreadable
	}
	if diff := cmp.Diff([]string{"secret", "headers"}, shown()); diff != "" {
		t.Errorf("of the endpoint (-want +got):\n%s", diff)
	}
	// A rotation heals at once: the secret that does not open is not kept beside the new one.
	if _, err := lost.RotateEndpoint(ctx, "t", mail.DefaultTenant, e.ID, seal.NewSecret("whsec_2"), time.Hour); err != nil {
		t.Fatal(err)
	}
	none := seal.Secret{}
	if _, err := lost.UpdateEndpoint(ctx, "t", mail.DefaultTenant, e.ID, &none, func(*record.Endpoint) error { return nil }); err != nil {
		t.Fatal(err)
	}
	_, of, err := lost.EndpointSecrets(ctx, mail.DefaultTenant, e.ID)
	if err != nil || of[record.EndpointSecret].Reveal() != "whsec_2" || len(of) != 1 || shown() != nil {
		t.Errorf("after the rotation: %v, %v, %v", of, err, shown())
	}
}

// A change is stored only over what it was judged by: else a change of settings could meet secrets that came after it was judged.
func TestUpdateAccountRefusesWhatChangedMeanwhile(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.account(t, "one")
	c, err := b.db.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	read := *c.Account("one")
	if err := b.db.UpdateAccount(t.Context(), "t", read, map[string]seal.Secret{"a": seal.NewSecret("A")}); err != nil {
		t.Fatal(err)
	}
	if err := b.db.UpdateAccount(t.Context(), "t", read, nil); !errors.Is(err, record.ErrStale) {
		t.Errorf("a second change of the same reading: %v, want ErrStale", err)
	}
}

// Whoever seals another column has to reseal it too.
func TestEverySealedColumnIsKnown(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	rows, err := b.db.api.Query(t.Context(), `SELECT DISTINCT table_name || '.' || column_name FROM information_schema.columns
		WHERE data_type = 'bytea' AND table_schema = 'public' AND table_name !~ '_p?[0-9]{6,}$' ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		got = append(got, name)
	}
	want = []string{
		"api_key.hash", "audit_link.hash", "body.payload", "event.raw", "hook_token.body", "idempotency.fingerprint",
		"person_code.hash", "person_link.hash", "person_session.hash",
	} // what is bytes and not sealed
	for _, v := range vaults {
		want = append(want, v.table+"."+v.column)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("columns of bytes (-known +there):\n%s", diff)
	}
}

// A value that somebody stores between the reading and the writing of a reseal stays.
func TestResealLeavesWhatWasStoredMeanwhile(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ctx := t.Context()
	one := b.account(t, "one")
	give := func(db *DB, secret string) {
		t.Helper()
		must(t, db.UpdateAccount(ctx, "t", route.Account{Name: "one", Concurrency: 5}, map[string]seal.Secret{"a": seal.NewSecret(secret)}))
	}
	give(b.db, "old")
	ring := b.open(t, Options{Box: keyRing(t, 2, 1)})
	read, err := vaults[0].read(ctx, ring, sealedValue{})
	if err != nil || len(read) != 1 {
		t.Fatalf("read %d values, %v", len(read), err)
	}
	give(ring, "new")
	var n record.Sealed
	must(t, vaults[0].reseal(ctx, ring, &read[0], true, &n))
	if n.Changed != 1 || n.Resealed != 0 {
		t.Errorf("counted %+v, want one that others stored", n)
	}
	if got, err := ring.Secrets(ctx, one); err != nil || got["a"].Reveal() != "new" {
		t.Errorf("the secret is not the new one: %v", err)
	}
}
