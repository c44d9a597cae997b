package postgres

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// hashOf is some hash.
func hashOf(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:]
}

// person makes a user who has used the link, with one session of that name.
func (b *bed) person(t *testing.T, name string) {
	t.Helper()
	must(t, b.db.CreateUser(t.Context(), "ops", name, record.RoleSupport, hashOf("link "+name)))
	must(t, b.db.Welcome(t.Context(), name, record.Welcome{
		Link: hashOf("link " + name), Password: "$argon2id$" + name, Step: 100, Codes: [][]byte{hashOf("code " + name)}, Session: b.newSession("session " + name),
	}, seal.NewSecret("secret "+name)))
}

func (b *bed) newSession(token string) record.NewSession {
	return record.NewSession{Hash: hashOf(token), From: netip.MustParsePrefix("192.0.2.7/32"), Agent: "test"}
}

func TestLoginComesBackAsItWasSetUp(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.person(t, "ann")
	l, secret, err := b.db.Login(t.Context(), "ann")
	must(t, err)
	if l.Name != "ann" || l.Role != record.RoleSupport || !l.Ready || l.Codes != 1 || l.Password != "$argon2id$ann" || l.Step != 100 ||
		fmt.Sprint(l.Networks) != "[192.0.2.7/32]" || secret.Reveal() != "secret ann" || l.SignedInAt.IsZero() {
		t.Errorf("login = %+v", l)
	}
	for _, err := range []error{
		errOf(b.db.Login(t.Context(), "bob")), errOf2(b.db.User(t.Context(), "bob")), b.db.SetUser(t.Context(), "ops", "bob", nil, new(bool)),
		b.db.ResetUser(t.Context(), "ops", "bob", hashOf("x")), b.db.EndUserSessions(t.Context(), "ops", "bob", ""),
		b.db.EndUserSessions(t.Context(), "ops", "ann", "unknown"), b.db.CreateLink(t.Context(), "ops", "bob", hashOf("x"), true),
		errOf2(b.db.UserSessions(t.Context(), "bob")), errOf2(b.db.LinkOf(t.Context(), hashOf("link ann"))), errOf2(b.db.SessionOf(t.Context(), hashOf("x"))),
	} {
		if !errors.Is(err, record.ErrNotFound) {
			t.Errorf("of what is not there: %v, want ErrNotFound", err)
		}
	}
	if err := b.db.CreateUser(t.Context(), "ops", "ann", record.RoleViewer, hashOf("y")); !errors.Is(err, record.ErrConflict) {
		t.Errorf("a second ann: %v, want ErrConflict", err)
	}
	if got := get[string](t, b, `SELECT string_agg(actor || ' ' || action, ', ' ORDER BY id) FROM audit`); got != "ops user.create, user:ann user.welcome" {
		t.Errorf("audit = %s", got)
	}
}

func errOf[A, B any](_ A, _ B, err error) error { return err }
func errOf2[A any](_ A, err error) error        { return err }

func TestASignInUsesItsCodeUp(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.person(t, "ann")
	u, err := b.db.User(t.Context(), "ann")
	must(t, err)
	try := func(step int64, code, password string) error {
		return b.db.SignIn(t.Context(), record.SignIn{User: u, Password: password, Step: step, Code: hashOf(code), Session: b.newSession(fmt.Sprint(step, code, time.Now()))})
	}
	must(t, try(101, "", "$argon2id$ann"))
	must(t, try(0, "code ann", "$argon2id$ann"))
	for name, err := range map[string]error{
		"the same step": try(101, "", "$argon2id$ann"), "an older one": try(100, "", "$argon2id$ann"),
		"the recovery code again": try(0, "code ann", "$argon2id$ann"), "a password that was changed": try(102, "", "$argon2id$old"),
	} {
		if !errors.Is(err, record.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
	}
	must(t, try(102, "", "$argon2id$ann"))
}

func TestSessionsAndLinksEndByThemselves(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.person(t, "ann")
	lives := func() bool {
		t.Helper()
		_, err := b.db.SessionOf(t.Context(), hashOf("session ann"))
		if err != nil && !errors.Is(err, record.ErrNotFound) {
			t.Fatal(err)
		}
		all, listErr := b.db.UserSessions(t.Context(), "ann")
		must(t, listErr)
		if (err == nil) != (len(all) == 1) {
			t.Errorf("read: %v, listed: %d", err, len(all))
		}
		return err == nil
	}
	b.exec(t, `UPDATE person_session SET seen_at = now() - interval '59 minutes'`)
	if !lives() {
		t.Error("ended within the hour")
	}
	if idle := get[float64](t, b, `SELECT extract(epoch FROM now() - seen_at)::float8 FROM person_session`); idle > 30 {
		t.Errorf("a use does not count: idle for %g s", idle)
	}
	b.exec(t, `UPDATE person_session SET seen_at = now() - interval '61 minutes'`)
	if lives() {
		t.Error("lives after an idle hour")
	}
	b.exec(t, `UPDATE person_session SET seen_at = now(), expires_at = now() - interval '1 second'`)
	if lives() {
		t.Error("lives beyond its end")
	}
	must(t, b.db.CreateLink(t.Context(), "ops", "ann", hashOf("late"), false))
	b.exec(t, `UPDATE person_link SET expires_at = now() - interval '1 second'`)
	if _, err := b.db.LinkOf(t.Context(), hashOf("late")); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("an expired link: %v", err)
	}
	if err := b.db.Welcome(t.Context(), "ann", record.Welcome{Link: hashOf("late"), Password: "x", Session: b.newSession("z")}, seal.NewSecret("s")); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("an expired link was used: %v", err)
	}
	if n, err := b.db.Sweep(t.Context()); n != 2 || err != nil {
		t.Errorf("swept %d, %v, want the link and the session", n, err)
	}
}

func TestAPersonHasABoundedNumberOfSessions(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.person(t, "ann")
	u, err := b.db.User(t.Context(), "ann")
	must(t, err)
	for i := range int64(sessionsKept + 5) {
		s := b.newSession(fmt.Sprint("more ", i))
		s.From = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32)
		must(t, b.db.SignIn(t.Context(), record.SignIn{User: u, Password: "$argon2id$ann", Step: 101 + i, Session: s}))
	}
	if n := get[int](t, b, `SELECT count(*) FROM person_session`); n != sessionsKept {
		t.Errorf("%d sessions are kept", n)
	}
	if _, err := b.db.SessionOf(t.Context(), hashOf("session ann")); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("the oldest session: %v", err)
	}
	if n := get[int](t, b, `SELECT cardinality(networks) FROM person`); n != 8 {
		t.Errorf("%d networks are kept", n)
	}
}
