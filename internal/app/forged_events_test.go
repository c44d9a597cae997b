package app

import (
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// Not parallel with the others: the counts of an account follow its events a moment later.
func TestForgedEventsChangeNothing(t *testing.T) {
	t.Parallel()
	b, settings := newCircle(t)
	r := b.start(t, settings...)
	b.faults(t, everyAccount([]emulator.Fault{{Mode: "hook_bad_signature"}}))
	ids := map[string]string{}
	for _, account := range accountNames() {
		ids[account] = send(t, r.api, letterTo(account, "bounce@example.org"))
	}
	for _, kind := range accountNames() {
		status := reporterOf(t, kind, "").refused
		eventually(t, settleTime, kind+"'s events are refused as this provider wants it", func() bool { return b.refusals(kind, status) >= 1 })
	}
	for account, id := range ids {
		m := becomes(t, r.api, id, settleTime, "sent")
		for _, e := range m.Events {
			if e.Source != "response" {
				t.Errorf("%s: a forged event was taken: %+v", account, e)
			}
		}
		if emulates(account).SMTP {
			continue // whose bounce it is, a forged address does not tell
		}
		eventually(t, settleTime, "the account shows refusals of "+account, func() bool {
			h, err := r.admin.AccountWebhooks(t.Context(), account)
			return err == nil && h.Refused >= 1 && h.Events == 0 && h.LastRefusal != ""
		})
	}
	if got := suppressions(t, r.api); len(got) != 0 {
		t.Errorf("forged bounces suppressed %+v", got)
	}
}

// suppressions lists the suppressed addresses, without the times.
func suppressions(t *testing.T, c *api.Client) []api.Suppression {
	t.Helper()
	page, err := c.Suppressions(t.Context(), "", "", 200)
	if err != nil {
		t.Fatal(err)
	}
	for i := range page.Data {
		page.Data[i].CreatedAt, page.Data[i].Detail = time.Time{}, ""
	}
	return page.Data
}
