package postgres

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/internal/postgres/pgtest"
)

func TestOptionsAreReadAsTheServerReadsThem(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		startup, params, rest map[string]string
	}{
		{map[string]string{"search_path": "a,b", "TimeZone": "CET"}, map[string]string{"search_path": "a,b", "timezone": "CET"}, nil},
		{map[string]string{"options": "-c geqo=off -cjit=on --work-mem=8MB"}, map[string]string{"geqo": "off", "jit": "on", "work_mem": "8MB"}, nil},
		{map[string]string{"options": `-c search_path=a\ b\\  -c x.y=`}, map[string]string{"search_path": `a b\`, "x.y": ""}, nil},
		{map[string]string{"options": "-c jit=on", "jit": "off"}, map[string]string{"jit": "off"}, nil},
		{map[string]string{"options": "-e -c jit=on", "a": "b"}, map[string]string{"a": "b"}, map[string]string{"options": "-e -c jit=on"}},
		{map[string]string{"options": "-c"}, nil, map[string]string{"options": "-c"}},
		{map[string]string{"options": "-c jit"}, nil, map[string]string{"options": "-c jit"}},
		{map[string]string{"options": " "}, nil, nil},
	} {
		params, rest := spread(tc.startup)
		if !maps.Equal(params, tc.params) || !maps.Equal(rest, tc.rest) {
			t.Errorf("spread(%v) = %v, %v, want %v, %v", tc.startup, params, rest, tc.params, tc.rest)
		}
	}
}

// inForce are the parameters that a pool's sessions are to have beside those of every pool.
func inForce(p pools) map[*pgxpool.Pool]map[string]string {
	pinned := func(timeout string) map[string]string {
		return map[string]string{
			"statement_timeout": timeout, "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
			"idle_in_transaction_session_timeout": "2s",
		}
	}
	return map[*pgxpool.Pool]map[string]string{
		p.accept: {"statement_timeout": "20s", "lock_timeout": "20s"}, p.engine: pinned("10s"), p.hooks: pinned("5s"), p.api: {"statement_timeout": "2s"},
	}
}

func checkParams(t *testing.T, db *DB, more map[string]string) {
	t.Helper()
	for pool, own := range inForce(db.pools) {
		want := map[string]string{
			"TimeZone": "UTC", "jit": "off", "lock_timeout": "1s", "idle_in_transaction_session_timeout": "5s", "enable_seqscan": "on",
			"application_name": "sendgate",
		}
		maps.Copy(want, own)
		maps.Copy(want, more)
		got := map[string]string{}
		for name := range want {
			var v string
			must(t, pool.QueryRow(t.Context(), `SELECT current_setting($1)`, name).Scan(&v))
			got[name] = v
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("parameters in force (-want +got)\n%s", diff)
		}
	}
}

// withQuery adds parameters to a connection string.
func withQuery(t *testing.T, dsn string, more ...string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	must(t, err)
	q := u.Query()
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // which the driver reads as the server's own clients do
	return u.String()
}

func TestEverySessionHasItsParametersAndThoseOfTheURL(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	checkParams(t, b.db, nil)
	theirs := b.open(t, Options{AcceptWait: patient, URL: withQuery(t, b.url, "work_mem", "5MB", "jit", "on", "application_name", "shop",
		"options", `-c geqo=off -c search_path=public,pg_catalog -c TimeZone=CET`)})
	checkParams(t, theirs, map[string]string{"work_mem": "5MB", "application_name": "shop", "geqo": "off", "search_path": "public,pg_catalog"})
	_, err := b.open(t, Options{URL: withQuery(t, b.url, "wrk_mem", "5MB")}).Config(t.Context())
	if err == nil || !strings.Contains(err.Error(), "wrk_mem") {
		t.Errorf("a parameter that the server does not know: %v, want it named", err)
	}
	must(t, Migrate(t.Context(), withQuery(t, b.url, "options", "-c work_mem=5MB", "pool_max_conns", "3"), &bytes.Buffer{}))
}

func TestParametersComeBackAfterAnOldDayWasDropped(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	b.exec(t, `SELECT ensure_partitions('2020-01-01', '2020-01-01')`)
	n, err := b.db.DropPartitions(t.Context(), "body", time.Now().AddDate(-1, 0, 0))
	must(t, err)
	if n != 1 {
		t.Errorf("dropped %d days, want 1", n)
	}
	checkParams(t, b.db, nil)
}

func TestPgBouncer(t *testing.T) {
	t.Parallel()
	dsn := pgtest.NewURL(t)
	for name, tc := range map[string]struct {
		settings map[string]string
		pooled   bool
	}{
		"default settings":       {nil, false},
		"transaction":            {map[string]string{"pool_mode": "transaction"}, true},
		"transaction, by turns":  {map[string]string{"pool_mode": "transaction", "server_round_robin": "1", "min_pool_size": "2"}, true},
		"transaction, one":       {map[string]string{"pool_mode": "transaction", "default_pool_size": "1"}, true},
		"transaction, parallels": {map[string]string{"pool_mode": "transaction", "min_pool_size": "7", "server_round_robin": "1"}, true},
		"statement":              {map[string]string{"pool_mode": "statement"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			through := pgtest.PgBouncer(t, dsn, tc.settings)
			for range 3 { // the pool is empty at first
				pooler, err := CheckSessions(t.Context(), through)
				if !pooler || errors.Is(err, ErrPooled) != tc.pooled || !tc.pooled && err != nil {
					t.Errorf("CheckSessions = %t, %v, want a pooler, and ErrPooled: %t", pooler, err, tc.pooled)
				}
			}
			for what, err := range map[string]error{
				"Migrate": Migrate(t.Context(), through, &bytes.Buffer{}), "MigrateStatus": MigrateStatus(t.Context(), through, &bytes.Buffer{}),
			} {
				if errors.Is(err, ErrPooled) != tc.pooled || !tc.pooled && err != nil {
					t.Errorf("%s = %v, want ErrPooled: %t", what, err, tc.pooled)
				}
				if err != nil && strings.Contains(err.Error(), "\n") {
					t.Errorf("%s says it in more than a line: %v", what, err)
				}
			}
			if !tc.pooled {
				// The store relies on the settings of its sessions.
				url := withQuery(t, through, "work_mem", "5MB", "options", "-c geqo=off")
				for range 2 { // the second finds the sessions of the first
					db, err := Open(t.Context(), Options{URL: url, Box: newBox(t, 1), AcceptWait: patient})
					must(t, err)
					checkParams(t, db, map[string]string{"work_mem": "5MB", "geqo": "off"})
					db.Close()
				}
			}
		})
	}
}

// A busy pooler shows itself as well.
func TestPgBouncerInTransactionModeIsSeenUnderLoad(t *testing.T) {
	t.Parallel()
	dsn := pgtest.NewURL(t)
	for _, turns := range []string{"0", "1"} {
		through := pgtest.PgBouncer(t, dsn, map[string]string{"pool_mode": "transaction", "default_pool_size": "6", "server_round_robin": turns})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		const others = 8
		for range others {
			go func() {
				defer func() { done <- struct{}{} }()
				conn, err := pgx.Connect(ctx, through)
				if err != nil {
					return
				}
				defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it was only there to disturb
				for ctx.Err() == nil {
					_, _ = conn.PgConn().Exec(ctx, `SELECT pg_sleep(random() / 500)`).ReadAll()
				}
			}()
		}
		missed := 0
		for range 10 {
			if _, err := CheckSessions(ctx, through); !errors.Is(err, ErrPooled) {
				missed++
			}
		}
		cancel()
		for range others {
			<-done
		}
		if missed > 0 {
			t.Errorf("by turns %s: %d of 10 looks under load missed the pooler", turns, missed)
		}
	}
}

func TestAPlainServerIsNotTakenForAPooler(t *testing.T) {
	t.Parallel()
	dsn := pgtest.NewURL(t)
	for range 3 {
		pooler, err := CheckSessions(t.Context(), dsn)
		if pooler || err != nil {
			t.Fatalf("CheckSessions = %t, %v", pooler, err)
		}
	}
}
