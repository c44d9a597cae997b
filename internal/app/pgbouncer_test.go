//go:build unix

package app

import (
	"errors"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
)

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
