package postgres

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// suppressed lists what match finds, as "email stream reason".
func (b *bed) suppressed(t *testing.T, match record.Suppression) []string {
	t.Helper()
	if match.Tenant == 0 {
		match.Tenant = mail.DefaultTenant
	}
	rows, err := b.db.FindSuppressions(t.Context(), match, record.Suppression{}, 100)
	must(t, err)
	var got []string
	for _, s := range rows {
		got = append(got, fmt.Sprintf("%s %q %s", s.Email, s.Stream, s.Reason))
	}
	return got
}

func TestSuppressionThatLastsLongerStays(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	now := time.Now()
	row := func(reason string, expires time.Duration) record.Suppression {
		s := record.Suppression{Tenant: 1, Email: "ann@example.org", Reason: reason, Origin: "api"}
		if expires != 0 {
			s.ExpiresAt = now.Add(expires)
		}
		return s
	}
	for _, tc := range []struct {
		name          string
		first, second record.Suppression
		want          []string
	}{
		{"first of two for good", row("manual", 0), row("hard_bounce", 0), []string{`ann@example.org "" manual`}},
		{"a complaint among two for good", row("manual", 0), row("complaint", 0), []string{`ann@example.org "" complaint`}},
		{"a complaint that was first", row("complaint", 0), row("manual", 0), []string{`ann@example.org "" complaint`}},
		{"longer than a complaint, which is remembered", row("complaint", time.Hour), row("manual", 0), []string{`ann@example.org "" complaint`}},
		{"for good over a while", row("manual", time.Hour), row("complaint", 0), []string{`ann@example.org "" complaint`}},
		{"not a while over for good", row("manual", 0), row("complaint", time.Hour), []string{`ann@example.org "" manual`}},
		{"longer", row("manual", time.Hour), row("complaint", 2*time.Hour), []string{`ann@example.org "" complaint`}},
		{"not shorter", row("manual", 2*time.Hour), row("complaint", time.Hour), []string{`ann@example.org "" manual`}},
		{"over an expired one", row("manual", -time.Hour), row("complaint", time.Hour), []string{`ann@example.org "" complaint`}},
		{"expired ones do not count", row("manual", -time.Hour), row("complaint", -time.Minute), nil},
	} {
		b.exec(t, `DELETE FROM suppression`)
		must(t, b.db.Suppress(t.Context(), tc.first))
		must(t, b.db.Suppress(t.Context(), tc.second))
		if diff := cmp.Diff(tc.want, b.suppressed(t, record.Suppression{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestSuppressionKeepsWhereItCameFrom(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	created := time.Now().Add(-24 * time.Hour).UTC().Truncate(time.Millisecond)
	want := record.Suppression{
		Tenant: 1, Email: "ann@example.org", Stream: "news", Reason: "unsubscribe", Origin: "unsubscribe", Account: "ses",
		MessageID: mail.NewID(), Detail: "by link", CreatedAt: created, ExpiresAt: created.Add(48 * time.Hour),
	}
	given := want
	given.Email = "Ann@example.org"
	must(t, b.db.Suppress(t.Context(), given))
	got, err := b.db.FindSuppressions(t.Context(), record.Suppression{Tenant: 1, Email: "ANN@example.org"}, record.Suppression{}, 9)
	must(t, err)
	if diff := cmp.Diff([]record.Suppression{want}, got); diff != "" {
		t.Errorf("suppression (-want +got):\n%s", diff)
	}
}

func TestSuppressionsAreFoundAndLiftedByStream(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	add := func(email, stream, reason string) {
		must(t, b.db.Suppress(t.Context(), record.Suppression{Tenant: 1, Email: email, Stream: stream, Reason: reason, Origin: "api"}))
	}
	add("ann@example.org", "", "manual")
	add("ann@example.org", "news", "unsubscribe")
	add("ann@example.org", "offers", "unsubscribe")
	add("bob@example.org", "news", "complaint")
	all := []string{`ann@example.org "" manual`, `ann@example.org "news" unsubscribe`, `ann@example.org "offers" unsubscribe`, `bob@example.org "news" complaint`}
	for _, tc := range []struct {
		match record.Suppression
		want  []string
	}{
		{record.Suppression{}, all},
		{record.Suppression{Email: "bob@example.org"}, all[3:]},
		{record.Suppression{Stream: "news"}, []string{all[1], all[3]}},
		{record.Suppression{Reason: "unsubscribe"}, all[1:3]},
		{record.Suppression{Reason: "unsubscribe", Stream: "offers"}, all[2:3]},
		{record.Suppression{Tenant: 2}, nil},
	} {
		if diff := cmp.Diff(tc.want, b.suppressed(t, tc.match)); diff != "" {
			t.Errorf("find %+v (-want +got):\n%s", tc.match, diff)
		}
	}
	var paged []string
	after := record.Suppression{}
	for range 5 {
		rows, err := b.db.FindSuppressions(t.Context(), record.Suppression{Tenant: 1}, after, 1)
		must(t, err)
		for _, s := range rows {
			paged = append(paged, fmt.Sprintf("%s %q %s", s.Email, s.Stream, s.Reason))
			after = s
		}
	}
	if diff := cmp.Diff(all, paged); diff != "" {
		t.Errorf("one at a time (-want +got):\n%s", diff)
	}
	must(t, b.db.Unsuppress(t.Context(), "tester", 1, "Ann@example.org", true, "news"))
	must(t, b.db.Unsuppress(t.Context(), "tester", 1, "ann@example.org", true, ""))
	if diff := cmp.Diff(all[2:], b.suppressed(t, record.Suppression{})); diff != "" {
		t.Errorf("after two were lifted (-want +got):\n%s", diff)
	}
	if err := b.db.Unsuppress(t.Context(), "tester", 1, "ann@example.org", true, "news"); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("lifted twice: %v, want ErrNotFound", err)
	}
	add("ann@example.org", "news", "manual")
	must(t, b.db.Unsuppress(t.Context(), "tester", 1, "ann@example.org", true))
	if diff := cmp.Diff(all[3:], b.suppressed(t, record.Suppression{})); diff != "" {
		t.Errorf("after all of an address were lifted (-want +got):\n%s", diff)
	}
}

func TestImportCountsWhatIsNew(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	soon := time.Now().Add(time.Hour)
	row := func(email, stream string, expires time.Time) record.Suppression {
		return record.Suppression{Tenant: 99, Email: email, Stream: stream, Reason: "manual", Origin: "import", ExpiresAt: expires}
	}
	must(t, b.db.Suppress(t.Context(), record.Suppression{Tenant: 1, Email: "old@example.org", Reason: "complaint", Origin: "webhook"}))
	added, err := b.db.ImportSuppressions(t.Context(), 1, []record.Suppression{
		row("old@example.org", "", time.Time{}), row("new@example.org", "", soon), row("NEW@example.org", "", time.Time{}),
		row("new@example.org", "", soon), row("new@example.org", "news", soon),
	})
	must(t, err)
	if added != 2 {
		t.Errorf("added = %d, want new@example.org twice, for all streams and for one", added)
	}
	want := []string{`new@example.org "" manual`, `new@example.org "news" manual`, `old@example.org "" complaint`}
	if diff := cmp.Diff(want, b.suppressed(t, record.Suppression{})); diff != "" {
		t.Errorf("suppressions (-want +got):\n%s", diff)
	}
	if got := get[int](t, b, `SELECT count(*) FROM suppression WHERE email = 'new@example.org' AND stream = '' AND expires_at IS NULL`); got != 1 {
		t.Error("of rows for the same address the one that lasts longest was not kept")
	}
	if added, err := b.db.ImportSuppressions(t.Context(), 1, nil); err != nil || added != 0 {
		t.Errorf("import of nothing = %d, %v", added, err)
	}
}
