package httpapi

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

func TestSuppressionComesAndGoes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	writer, reader := r.client(r.write), r.client(r.read)
	added, err := writer.Suppress(t.Context(), api.SuppressionRequest{Email: "ann@EXAMPLE.org"})
	if err != nil {
		t.Fatal(err)
	}
	want := &api.Suppression{Email: "ann@example.org", Reason: "manual", Origin: "api", CreatedAt: r.clock.now()}
	if diff := cmp.Diff(want, added); diff != "" {
		t.Errorf("added (-want +got):\n%s", diff)
	}
	check := func(email string) int {
		page, err := reader.Suppressions(t.Context(), email, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Data)
	}
	if check("ann@example.ORG") != 1 || check("bob@example.org") != 0 || check("") != 1 {
		t.Error("the list does not hold exactly the one address")
	}
	if err := writer.Unsuppress(t.Context(), "ann@example.org"); err != nil {
		t.Fatal(err)
	}
	if check("ann@example.org") != 0 {
		t.Error("the address is still suppressed")
	}
	if err := writer.Unsuppress(t.Context(), "ann@example.org"); code(err) != "404 not_found" {
		t.Errorf("second removal = %v, want 404", err)
	}
}

func TestSuppressedAddressWithOddCharactersCanBeLifted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client(r.write)
	for _, email := range []string{"a/b@example.org", "a%2fb@example.org", "a+b@example.org", "a#?b@example.org"} {
		if _, err := c.Suppress(t.Context(), api.SuppressionRequest{Email: email}); err != nil {
			t.Fatalf("suppress %s: %v", email, err)
		}
		if err := c.Unsuppress(t.Context(), email); err != nil {
			t.Errorf("unsuppress %s: %v", email, err)
		}
	}
	if len(r.store.suppressions) != 0 {
		t.Errorf("left over: %v", r.store.suppressions)
	}
}

func TestSuppressionsArePagedAndPerTenant(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, email := range []string{"c@example.org", "a@example.org", "b@example.org"} {
		if _, err := r.client(r.write).Suppress(t.Context(), api.SuppressionRequest{Email: email, Reason: "complaint"}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	cursor := ""
	for range 3 {
		page, err := r.client(r.read).Suppressions(t.Context(), "", cursor, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range page.Data {
			got = append(got, s.Email)
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"a@example.org", "b@example.org", "c@example.org"}, got); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
	other := r.store.addKey(func(k *record.Key) { k.Tenant = 2 }, record.ScopeRead)
	if page, err := r.client(other).Suppressions(t.Context(), "", "", 0); err != nil || len(page.Data) != 0 {
		t.Errorf("other tenant's list = %v, %v, want empty", page, err)
	}
}

func TestSuppressionRefusesNonsense(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	tests := map[string]string{
		`{"email":"ann"}`: "email",
		`{}`:              "email",
		`{"email":"ann@example.org","reason":"spite"}`:  "reason",
		`{"email":"ann@example.org","raeson":"manual"}`: "raeson",
		`{"email":"Ann <ann@example.org>"}`:             "email",
	}
	for body, field := range tests {
		a := r.do("POST", "/v1/suppressions", r.send, body)
		r.want(a, 422, "invalid")
		if a.problem.Errors[0].Field != field {
			t.Errorf("%s: complains about %q, want %q", body, a.problem.Errors[0].Field, field)
		}
	}
	if r.store.count("Suppress") != 0 {
		t.Error("a refused suppression reached the store")
	}
}
