package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sendgate/sendgate/internal/postgres/pgtest"
)

func TestMain(m *testing.M) {
	pgtest.Parallel(4)
	code := m.Run()
	if err := dropFree(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// stage is a database, with connections that know its tables, which tests use one after another. A database and its
// connections cost more than most tests. Each test finds it as the migrations left it, or it is not used again.
type stage struct {
	*pgtest.Database
	sql   *pgxpool.Pool
	idle  []pools                           // but for those that accept,
	waits map[time.Duration][]*pgxpool.Pool // which are kept by how long they wait
	shape string                            // of the schema
	day   time.Time                         // on which it was made: its tables are those of the days around it
}

// free are the stages that no test uses.
var free struct {
	sync.Mutex
	stages []*stage
}

// lend gives t a stage until it ends.
func lend(t *testing.T) *stage {
	t.Helper()
	s, err := pick(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if !t.Failed() && s.reset(ctx) == nil {
			free.Lock()
			defer free.Unlock()
			free.stages = append(free.stages, s)
			return
		}
		s.close()
		s.Finish(t)
	})
	return s
}

func pick(ctx context.Context) (*stage, error) {
	free.Lock()
	if n := len(free.stages); n > 0 && free.stages[n-1].day.Equal(day(0)) {
		defer free.Unlock()
		s := free.stages[n-1]
		free.stages = free.stages[:n-1]
		return s, nil
	}
	free.Unlock()
	return newStage(ctx)
}

func newStage(ctx context.Context) (*stage, error) {
	d, err := pgtest.Make(ctx)
	if err != nil {
		return nil, err
	}
	s := &stage{Database: d, waits: map[time.Duration][]*pgxpool.Pool{}, day: day(0)}
	if s.sql, err = lookingPool(d.URL); err != nil {
		return nil, errors.Join(err, d.Drop(ctx))
	}
	if err = dropDays(ctx, s.sql); err == nil {
		err = s.learn(ctx)
	}
	if err == nil {
		s.shape, err = s.look(ctx)
	}
	if err != nil {
		s.close()
		return nil, errors.Join(fmt.Errorf("learn how to reset the database: %w", err), d.Drop(ctx))
	}
	return s, nil
}

// dropFree drops what no test uses any more.
func dropFree() error {
	free.Lock()
	defer free.Unlock()
	var errs []error
	for _, s := range free.stages {
		s.close()
		errs = append(errs, s.Drop(context.Background()))
	}
	return errors.Join(errs...)
}

func (s *stage) close() {
	for _, p := range s.all() {
		p.Close()
	}
}

// pools gives t connections of a store until it ends.
func (s *stage) pools(t *testing.T, acceptWait time.Duration) pools {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	var p pools
	var err error
	if n := len(s.idle); n > 0 {
		p, s.idle = s.idle[n-1], s.idle[:n-1]
	} else {
		p, err = openPools(ctx, s.URL, connections, acceptWait)
		must(t, err)
		p.days.Store(true) // as in a service, which has made the days before it sends
		s.waits[acceptWait] = append(s.waits[acceptWait], p.accept)
	}
	if ps := s.waits[acceptWait]; len(ps) > 0 {
		p.accept, s.waits[acceptWait] = ps[0], ps[1:]
	} else {
		p.accept, err = acceptPool(ctx, s.URL, connections, acceptWait)
		must(t, err)
	}
	t.Cleanup(func() {
		s.idle = append(s.idle, p)
		s.waits[acceptWait] = append(s.waits[acceptWait], p.accept)
	})
	return p
}

// dropDays drops the days after tomorrow: every session learns all of them, and every plan opens them.
func dropDays(ctx context.Context, pool *pgxpool.Pool) error {
	_, err := pool.Exec(ctx, `DO $$ BEGIN EXECUTE (SELECT 'DROP TABLE ' || string_agg(inhrelid::regclass::text, ', ') FROM pg_inherits JOIN pg_class ON oid = inhrelid
		WHERE relkind = 'r' AND right(relname, 8) > to_char(now() AT TIME ZONE 'UTC' + interval '1 day', 'YYYYMMDD')); END $$`)
	return err
}

// learn makes the function that deletes all rows but those that the migrations wrote: first the rows that refer to others.
// TRUNCATE makes every connection forget its plans: it is for so many rows that they slow down whoever comes next, as dead ones.
func (s *stage) learn(ctx context.Context) error {
	tables, err := column[string](ctx, s.sql, `
		WITH RECURSIVE t AS (
			SELECT oid, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
				AND NOT relispartition AND relname <> 'goose_db_version'
		), depth(oid, n) AS (
			SELECT oid, 0 FROM t UNION ALL
			SELECT c.conrelid, d.n + 1 FROM depth d JOIN pg_constraint c ON c.confrelid = d.oid WHERE c.contype = 'f' AND c.conparentid = 0
		) SELECT quote_ident(relname) FROM t JOIN depth USING (oid) GROUP BY relname ORDER BY max(n) DESC, relname`)
	if err != nil {
		return err
	}
	var clear, restore strings.Builder
	statements := []string{`CREATE SCHEMA stage`}
	for _, table := range tables {
		fmt.Fprintf(&clear, "DELETE FROM public.%s; GET DIAGNOSTICS n = ROW_COUNT; total := total + n;\n", table)
	}
	for _, table := range slices.Backward(tables) {
		var kept bool
		if err := s.sql.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+table+`)`).Scan(&kept); err != nil {
			return err
		}
		if kept {
			statements = append(statements, `CREATE TABLE stage.`+table+` AS SELECT * FROM public.`+table)
			fmt.Fprintf(&restore, "INSERT INTO public.%s OVERRIDING SYSTEM VALUE SELECT * FROM stage.%[1]s;\n", table)
		}
	}
	statements = append(statements, `CREATE TABLE stage.sequence AS SELECT format('public.%I', sequencename)::regclass AS id, coalesce(last_value, start_value) AS value, last_value IS NOT NULL AS called
		FROM pg_sequences WHERE schemaname = 'public'`)
	statements = append(statements, `CREATE FUNCTION stage.reset() RETURNS boolean LANGUAGE plpgsql AS $$
		DECLARE n bigint; total bigint := 0; BEGIN
		`+clear.String()+`IF total > 5000 THEN TRUNCATE public.`+strings.Join(tables, `, public.`)+`; END IF;
		`+restore.String()+`PERFORM setval(id, value, called) FROM stage.sequence; RETURN total > 5000; END $$`)
	for _, statement := range statements {
		if _, err := s.sql.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// look describes the schema and the planner's figures: a test that changed them keeps the database to itself.
func (s *stage) look(ctx context.Context) (shape string, err error) {
	err = s.sql.QueryRow(ctx, `SELECT concat_ws(' ',
		(SELECT md5(string_agg(concat_ws(' ', oid, relname, relnatts, relchecks, relhastriggers, reltuples, reloptions), ',' ORDER BY oid))
			FROM pg_class WHERE relnamespace = 'public'::regnamespace),
		(SELECT concat_ws(' ', count(*), max(xmin::text::bigint)) FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
		(SELECT count(*) FROM pg_constraint), (SELECT concat_ws(' ', count(*), max(xmin::text::bigint)) FROM pg_attrdef),
		(SELECT string_agg(concat(oid, tgenabled), ',' ORDER BY oid) FROM pg_trigger),
		(SELECT concat(setconfig) FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())))`).Scan(&shape)
	return shape, err
}

var errUsedUp = errors.New("the database is not as it was")

// reset makes the stage as the migrations left it, or says why that can't be.
func (s *stage) reset(ctx context.Context) error {
	for _, p := range s.all() {
		if err := refresh(ctx, p); err != nil {
			return err
		}
	}
	var busy int
	if err := s.sql.QueryRow(ctx, `SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid())
		+ (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`).Scan(&busy); err != nil {
		return err
	}
	if shape, err := s.look(ctx); err != nil || shape != s.shape || busy > 0 {
		return errors.Join(errUsedUp, err)
	}
	var many bool
	err := s.sql.QueryRow(ctx, `SELECT stage.reset()`).Scan(&many)
	if err == nil && many {
		s.shape, err = s.look(ctx) // TRUNCATE forgets figures
	}
	return err
}

func (s *stage) all() []*pgxpool.Pool {
	all := []*pgxpool.Pool{s.sql}
	for _, p := range s.idle {
		all = append(all, p.engine, p.hooks, p.api)
	}
	for _, ps := range s.waits {
		all = append(all, ps...)
	}
	return all
}

// refresh closes the connections that a test broke.
func refresh(ctx context.Context, p *pgxpool.Pool) error {
	if p.Stat().AcquiredConns() > 0 {
		return errUsedUp
	}
	conns := p.AcquireAllIdle(ctx)
	defer func() {
		for _, c := range conns {
			c.Release()
		}
	}()
	if len(conns) == 0 && p.Stat().TotalConns() > 0 { // the pool is closed
		return errUsedUp
	}
	for _, c := range conns {
		if err := c.Ping(ctx); err != nil {
			_ = c.Conn().Close(ctx)
		}
	}
	return nil
}

func lookingPool(url string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = 4
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	return pgxpool.NewWithConfig(context.Background(), cfg)
}

func column[T any](ctx context.Context, pool *pgxpool.Pool, sql string) ([]T, error) {
	rows, err := pool.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[T])
}
