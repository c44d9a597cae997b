//go:build drill

package app

import (
	"slices"
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// When the account that was to send the notice fails too, another one gets it.
func TestAMailAboutAnIncidentGoesOnToTheNextAccount(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	_, err := r.admin.CreateNotifyRule(t.Context(), api.NotifyRuleRequest{Name: "ops", Channel: "mail", From: "sendgate@example.com", To: []string{"ops@example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	down := []emulator.Fault{{Mode: "error", Status: 503}}
	b.faults(t, map[string][]emulator.Fault{"sendgrid": down, "mailgun": down, "postmark": down})
	for i := range 8 {
		send(t, r.api, letterTo("sendgrid", letter(i).To[0].Email))
	}
	began := "[sendgate] sendgrid: most calls fail"
	eventually(t, toldIn, "a mail tells it", func() bool { return len(b.mails()[began]) > 0 })
	if by := b.mails()[began]; len(by) != 1 || slices.Contains([]string{"sendgrid", "mailgun", "postmark"}, by[0]) {
		t.Errorf("the mail went out by %v, want one account that works", by)
	}
}

// exec changes rows behind the back of the service, and fails if there is none to change.
func (b *bench) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if tag, err := b.rows.Exec(t.Context(), query, args...); err != nil || tag.RowsAffected() == 0 {
		t.Fatalf("%s: %v, %v", query, tag, err)
	}
}
