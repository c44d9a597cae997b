package httpapi

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

func TestSubjectsAreCountedExportedAndErasedInSteps(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	c := r.client(r.store.addKey(nil, record.ScopeSubjectsRead, record.ScopeSubjectsWrite))
	count, err := c.CountSubject(ctx, api.SubjectRequest{Address: "Ann@example.org"})
	if err != nil || count.Messages != 3 || count.Open != 1 || len(count.Accounts) != 1 || count.Accounts[0].Account != "ses-eu" {
		t.Errorf("count = %+v, %v", count, err)
	}
	var rows []string
	for q := (api.SubjectRequest{Address: "ann@example.org"}); ; {
		page, err := c.ExportSubject(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range page.Data {
			rows = append(rows, row.Kind+" "+string(row.Row))
		}
		if q.Cursor = page.Cursor; q.Cursor == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{`suppression {"place":""}`, `suppression {"place":"rest:"}`}, rows); diff != "" {
		t.Errorf("export (-want +got):\n%s", diff)
	}
	var steps []string
	for q := (api.SubjectErasure{Address: "ann@example.org"}); ; {
		e, err := c.EraseSubject(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		steps = append(steps, fmt.Sprint(e.Cancelled, e.Messages, e.Events, e.Open))
		if q.Cursor = e.Cursor; q.Cursor == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"1 0 0 0", "0 3 0 1", "0 0 4 0"}, steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

func TestSubjectsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	c := r.client(r.store.addKey(nil, record.ScopeSubjectsRead, record.ScopeSubjectsWrite))
	first, err := c.EraseSubject(ctx, api.SubjectErasure{Address: "ann@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func() error{
		"409 subject_waiting": func() error {
			_, err := c.EraseSubject(ctx, api.SubjectErasure{Address: "wait@example.org"})
			return err
		},
		"422 invalid": func() error { _, err := c.CountSubject(ctx, api.SubjectRequest{Address: "nobody"}); return err },
		"422 invalid ": func() error {
			_, err := c.CountSubject(ctx, api.SubjectRequest{Address: "a@example.org", Tenant: "nobody"})
			return err
		},
		// A cursor is of one person.
		"400 invalid_cursor": func() error {
			_, err := c.EraseSubject(ctx, api.SubjectErasure{Address: "bob@example.org", Cursor: first.Cursor})
			return err
		},
		"403 scope_missing": func() error {
			_, err := r.client(r.admin).CountSubject(ctx, api.SubjectRequest{Address: "a@example.org"})
			return err
		},
	} {
		if got := code(try()); got != name && got+" " != name {
			t.Errorf("%s, want %s", got, name)
		}
	}
	if _, err := c.EraseSubject(ctx, api.SubjectErasure{Address: "wait@example.org", CancelWaiting: true}); err != nil {
		t.Errorf("with cancel_waiting: %v", err)
	}
}
