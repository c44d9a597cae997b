package app

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/provider"
)

const inviteICS = "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:-//example//shop//EN\nMETHOD:REQUEST\nBEGIN:VEVENT\nUID:1@example.com\n" +
	"DTSTAMP:20261130T090000Z\nDTSTART:20261207T090000Z\nSUMMARY:Anprobe für Ann\nORGANIZER:mailto:shop@example.com\n" +
	"ATTENDEE;RSVP=TRUE:mailto:ann@example.org\nEND:VEVENT\nEND:VCALENDAR\n"

// An invitation arrives as one by every account that can carry it, and nobody else gets it.
func TestAnInvitationGoesWhereItCanBeCarried(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	for _, account := range accountNames() {
		prefer(t, b, r, account)
		all := letters(3)
		for i := range all {
			all[i].Calendar = &api.Calendar{Method: "request", Content: inviteICS}
		}
		all[1].HTML = "<p>Anprobe</p>"
		all[2].Account = &account
		none := !specOf(account).Capabilities.Calendar
		if none {
			all = all[:2]
		}
		ids := submit(t, r.api, all)
		b.settle(t, 60*time.Second)
		for i, id := range ids {
			m := message(t, r.api, id)
			entries := b.ledger()[id]
			switch {
			case m.Status != "sent" || len(entries) != 1:
				t.Errorf("by %s: message %d is %s, and %d times in the ledger: %s", account, i, m.Status, len(entries), classes(m))
			case entries[0].Calendar != "REQUEST":
				t.Errorf("by %s: the invitation of message %d is %q", entries[0].Provider, i, entries[0].Calendar)
			case !specOf(entries[0].Provider).Capabilities.Calendar, !none && entries[0].Provider != account:
				t.Errorf("message %d went by %s, want %s", i, entries[0].Provider, account)
			case m.Calendar == nil || m.Calendar.Content != strings.ReplaceAll(inviteICS, "\n", "\r\n"):
				t.Errorf("by %s: message %d shows %+v", account, i, m.Calendar)
			}
		}
	}
	only(t, r, kindsWith(func(s provider.Spec) bool { return !s.Capabilities.Calendar })...)
	b.binds(t, r)
	m := letter(0)
	m.Calendar = &api.Calendar{Method: "REQUEST", Content: inviteICS}
	_, err := r.api.Send(t.Context(), m, "")
	p, _ := errors.AsType[*api.Problem](err)
	if p == nil || p.Status != http.StatusUnprocessableEntity || p.Code != "no_route_capability" || !strings.Contains(p.Detail, "calendar invitation") {
		t.Errorf("where nobody can carry it: %v, want a 422 that says so", err)
	}
	m.Calendar.Method = "CANCEL"
	_, err = r.api.Send(t.Context(), m, "")
	if p, _ = errors.AsType[*api.Problem](err); p == nil || len(p.Errors) != 1 || p.Errors[0].Code != "method_mismatch" {
		t.Errorf("another method: %v, want method_mismatch", err)
	}
}

// prefer gives nearly all weight of the pool to one account. The others stay, for messages that it does not take.
func prefer(t *testing.T, b *bench, r *replica, account string) {
	t.Helper()
	pool, err := r.admin.Pool(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	for i := range pool.Accounts {
		pool.Accounts[i].Weight = 1e-6
		if pool.Accounts[i].Account == account {
			pool.Accounts[i].Weight = 1
		}
	}
	if _, err := r.admin.PutPool(t.Context(), *pool); err != nil {
		t.Fatal(err)
	}
	b.binds(t, r)
}
