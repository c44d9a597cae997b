package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of processor time in /proc: USER_HZ, which is 100 on every Linux that Go runs on (proc(5)).
const tick = 10 * time.Millisecond

// cpuOf is the processor time that a process has used, with that of its children that have ended and of those that live.
// PostgreSQL has a process for each session.
func cpuOf(pid int) (time.Duration, error) {
	f, err := stat(pid)
	if err != nil {
		return 0, err
	}
	total := ticks(f[11], f[12], f[13], f[14]) // utime, stime, cutime, cstime
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	for _, path := range all {
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if c, err := stat(child); err == nil && c[1] == strconv.Itoa(pid) {
			total += ticks(c[11], c[12])
		}
	}
	return total, nil
}

func ticks(fields ...string) time.Duration {
	var n time.Duration
	for _, f := range fields {
		v, _ := strconv.ParseInt(f, 10, 64) // the kernel writes numbers
		n += time.Duration(v) * tick
	}
	return n
}

// stat reads the fields of /proc/PID/stat that follow the name of the program: state, parent and so on.
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, fmt.Errorf("processor time of %d: %w", pid, err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 15 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
	}
	return f, nil
}

// rssOf is the resident memory of a process, in bytes.
func rssOf(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, fmt.Errorf("memory of %d: %w", pid, err)
	}
	f := strings.Fields(string(text))
	if len(f) < 2 {
		return 0, fmt.Errorf("/proc/%d/statm: %q", pid, text)
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// usage is what the processes of a measurement have used so far.
type usage struct {
	gateway, server time.Duration
	commits, wal    int64
	at              time.Time
}

// usage reads it.
func (g *gateway) usage(ctx context.Context) (u usage, err error) {
	u.at = time.Now()
	if u.gateway, err = cpuOf(g.process.pid()); err != nil {
		return u, err
	}
	if u.server, err = cpuOf(g.postmaster); err != nil {
		return u, err
	}
	if g.explain {
		if _, err := g.rows.Exec(ctx, `CREATE EXTENSION IF NOT EXISTS pg_stat_statements; SELECT pg_stat_statements_reset()`); err != nil {
			return u, fmt.Errorf("count statements: %w", err)
		}
	}
	const sql = `SELECT xact_commit, pg_current_wal_insert_lsn() - '0/0' FROM pg_stat_database WHERE datname = current_database()`
	return u, g.rows.QueryRow(ctx, sql).Scan(&u.commits, &u.wal)
}

// report adds what n messages have cost since before.
func (g *gateway) report(ctx context.Context, t *table, name string, n int, before usage) error {
	if err := g.statements(ctx, t, name, n); err != nil {
		return err
	}
	after, err := g.usage(ctx)
	if err != nil {
		return err
	}
	per := func(v float64) float64 { return v / float64(n) }
	t.add(name+": processor of sendgate", "us/message", per(float64((after.gateway - before.gateway).Microseconds())))
	t.add(name+": processor of PostgreSQL", "us/message", per(float64((after.server - before.server).Microseconds())))
	t.add(name+": commits", "per message", per(float64(after.commits-before.commits)))
	rss, err := rssOf(g.process.pid())
	if err != nil {
		return err
	}
	t.add(name+": memory of sendgate after it", "MB", float64(rss)/1e6)
	t.add(name+": log", "bytes/message", per(float64(after.wal-before.wal)))
	return nil
}

// statements adds how many statements n messages took, and prints those that took the most time.
func (g *gateway) statements(ctx context.Context, t *table, name string, n int) error {
	if !g.explain {
		return nil
	}
	const sql = `SELECT sum(calls) OVER (), calls, plans, rows, total_plan_time, total_exec_time, wal_bytes, regexp_replace(left(query, 300), '\s+', ' ', 'g')
		FROM pg_stat_statements JOIN pg_database d ON d.oid = dbid WHERE datname = current_database() ORDER BY total_plan_time + total_exec_time DESC LIMIT 25`
	rows, err := g.rows.Query(ctx, sql)
	if err != nil {
		return fmt.Errorf("count statements: %w", err)
	}
	defer rows.Close()
	var all, calls, plans, touched int64
	var planned, spent, wal float64
	var text string
	for rows.Next() {
		if err := rows.Scan(&all, &calls, &plans, &touched, &planned, &spent, &wal, &text); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(t.log, "   us/message: plan %6.1f, run %6.1f; log/message: %5.0f bytes; %6d calls, %6d plans, %7d rows: %.150s\n",
			1000*planned/float64(n), 1000*spent/float64(n), wal/float64(n), calls, plans, touched, text)
	}
	t.add(name+": statements", "per message", float64(all)/float64(n))
	return rows.Err()
}
