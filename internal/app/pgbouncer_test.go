//go:build unix

package app

import (
	"errors"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
)

// A service with its default settings works over a PgBouncer with its own: it accepts, sends and is told what became of it.
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
			want[account] += int64(tellings(account, "ann"))
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

func TestPgBouncerInTransactionModeIsNamed(t *testing.T) {
	t.Parallel()
	dsn := pgtest.NewURL(t)
	for _, mode := range []string{"transaction", "statement"} {
		b := &bench{dsn: pgtest.PgBouncer(t, dsn, map[string]string{"pool_mode": mode}), secret: strings.Repeat("5e", 32)}
		a, err := New(b.config(t), quiet())
		if err != nil {
			t.Fatal(err)
		}
		err = a.Start(t.Context())
		if !errors.Is(err, postgres.ErrPooled) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "pool_mode = session") {
			t.Errorf("serve behind %s pooling: %v, want one line that says what to use instead", mode, err)
		}
		checks := Doctor(t.Context(), b.config(t))
		if len(checks) != 1 || checks[0].Name != "pooler" || checks[0].OK || !strings.Contains(checks[0].Fix, "pool_mode = session") {
			t.Errorf("doctor behind %s pooling: %+v, want the pooler and nothing else", mode, checks)
		}
	}
}
