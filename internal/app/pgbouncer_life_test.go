//go:build drill

package app

import (
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
)

// A service with default settings works behind a PgBouncer with default settings: it accepts, sends and receives events.
func TestPgBouncerCarriesTheService(t *testing.T) {
	t.Parallel()
	b, settings := newCircle(t)
	b.dsn = pgtest.PgBouncer(t, b.dsn, nil)
	settings = append(settings, "SENDGATE_DATABASE_CONNECTIONS=18") // the default
	r := b.start(t, settings...)
	const each = 40
	want := map[string]int64{}
	var ids []string
	for _, account := range accountNames() {
		for range each {
			ids = append(ids, submit(t, r.api, []api.SendRequest{letterTo(account, "ann@example.org")})...)
			want[account] += int64(tellings(t, account, "ann"))
		}
	}
	b.awaitTold(t, want)
	for _, id := range ids {
		eventually(t, settleTime, "a message ended", func() bool {
			m, err := r.api.Message(t.Context(), id)
			return err == nil && (m.Status == "delivered" || m.Status == "sent")
		})
	}
	b.checkOnce(t)
	kept := false
	for _, c := range Doctor(t.Context(), b.config(t, settings...)) {
		durable := c.Name == "fsync" || c.Name == "full_page_writes" || c.Name == "synchronous_commit" // off for tests
		if !c.OK && c.Level == "error" && !durable {
			t.Errorf("doctor: %s: %s", c.Name, c.Detail)
		}
		kept = kept || c.Name == "pooler" && c.OK
	}
	if !kept {
		t.Error("doctor does not say that a pooler is in between and keeps sessions")
	}
}
