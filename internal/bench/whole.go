package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// whole offers messages at a fixed rate to all kinds that report over HTTP, with their signed events coming back. A rate is
// carried if the queue and the events that wait do not grow from the middle of the load to its end.
func whole(ctx context.Context, s *stage, t *table) error {
	g, err := s.gateway(ctx)
	if err != nil {
		return err
	}
	defer g.stop()
	var ready providers
	emu, err := part("emulator", []string{"SENDGATE_BENCH_HOOKS=" + g.url}, &ready)
	if err != nil {
		return err
	}
	defer emu.stop()
	if err := g.accounts(ctx, only(ready.Accounts, []string{"sendgrid", "mailgun", "postmark", "ses", "resend"})); err != nil {
		return err
	}
	l, err := newLetters()
	if err != nil {
		return err
	}
	before, err := g.usage(ctx)
	if err != nil {
		return err
	}
	emulators, err := cpuOf(emu.pid())
	if err != nil {
		return err
	}
	tables, err := g.tables(ctx)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	var offered result
	go func() {
		offered, err = load{
			url: g.url + "/v1/send", key: g.key, clients: 64, rate: s.rate, duration: s.seconds,
			body: func(n int64) []byte { return l.one(fmt.Sprintf("customer-%d", n)) },
		}.run(ctx)
		done <- err
	}()
	pause(ctx, s.seconds/2)
	middle, err := g.behind(ctx)
	if err != nil {
		return err
	}
	if err := <-done; err != nil {
		return err
	}
	end, err := g.behind(ctx)
	if err != nil {
		return err
	}
	if err := await(ctx, "all is sent and told", func() bool {
		left, err := g.behind(ctx)
		return err == nil && left == 0
	}); err != nil {
		return err
	}
	took := time.Since(before.at)
	n := int(offered.answered)
	t.add("whole way: offered", "/s", offered.rate())
	t.add("whole way: carried, from the first to the last event", "/s", float64(n)/took.Seconds())
	t.add("whole way: growth of what waits", "/s", float64(end-middle)/(s.seconds/2).Seconds())
	t.add("whole way: p99 of accept", "ms", ms(offered.quantile(0.99)))
	after, err := cpuOf(emu.pid())
	if err != nil {
		return err
	}
	t.add("whole way: processor of the emulators", "us/message", float64((after-emulators).Microseconds())/float64(n))
	if err := g.grown(ctx, t, "whole way: disk", n, tables); err != nil {
		return err
	}
	return g.report(ctx, t, "whole way", n, before)
}

// behind counts the messages that are not delivered yet.
func (g *gateway) behind(ctx context.Context) (int64, error) {
	return g.number(ctx, `SELECT (SELECT count(*) FROM message) - (SELECT count(DISTINCT message_id) FROM event WHERE type = 'delivered')`)
}

// size measures what a message that was sent takes on disk, and in the log.
func size(ctx context.Context, s *stage, t *table) error {
	g, p, err := s.withInstant(ctx, "sendgrid")
	if err != nil {
		return err
	}
	defer p.stop()
	defer g.stop()
	before, err := g.tables(ctx)
	if err != nil {
		return err
	}
	if err := g.backlog(ctx, s.rows, newLetters); err != nil {
		return err
	}
	if _, _, err := g.drain(ctx, taken{}, s.rows); err != nil {
		return err
	}
	if err := g.grown(ctx, t, "disk", s.rows, before); err != nil {
		return err
	}
	l, err := newLetters()
	if err != nil {
		return err
	}
	t.add("the message as JSON", "bytes", float64(len(l.one("customer-1"))))
	return nil
}

// grown adds how much the tables have grown for each of n messages.
func (g *gateway) grown(ctx context.Context, t *table, name string, n int, before map[string]int64) error {
	after, err := g.tables(ctx)
	if err != nil {
		return err
	}
	rest := 0.0
	for _, of := range slices.Sorted(maps.Keys(after)) {
		per := float64(after[of]-before[of]) / float64(n)
		if per >= 20 {
			t.add(name+": "+of, "bytes/message", per)
		}
		if of != "body" {
			rest += per
		}
	}
	t.add(name+": all but body", "bytes/message", rest)
	return nil
}

// tables is the size of each table with its indexes, in bytes; a partition counts for its table.
func (g *gateway) tables(ctx context.Context) (map[string]int64, error) {
	const sql = `SELECT coalesce(p.relname, c.relname), sum(pg_total_relation_size(c.oid))::bigint
		FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class p ON p.oid = i.inhparent
		WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace GROUP BY 1`
	rows, err := g.rows.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("measure tables: %w", err)
	}
	defer rows.Close()
	sizes := map[string]int64{}
	for rows.Next() {
		var name string
		var bytes int64
		if err := rows.Scan(&name, &bytes); err != nil {
			return nil, err
		}
		sizes[name] = bytes
	}
	return sizes, rows.Err()
}
