package postgres

import (
	"context"
	"strings"
	"testing"
)

// A thousand messages are kept for each that is open, so the check may read the open ones only. A day of settled messages shows
// any plan that reads more.
func TestBooksCostWhatIsOpen(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	must(t, dropDays(t.Context(), b.sql))
	for _, table := range append([]string{"ready", "inflight", "unknown"}, b.days(t)...) {
		b.exec(t, `ALTER TABLE `+table+` SET (autovacuum_enabled = off)`)
	}
	r := b.watch(t, &b.db.engine)
	day := ""
	look := func(state string) {
		t.Helper()
		r.seen = nil
		b.books(t)
		n, begun, set := 0, false, "SELECT"
		for _, s := range r.seen {
			switch sql := strings.TrimSpace(s.sql); {
			case sql == "begin isolation level repeatable read read only":
				begun = true
			case strings.HasPrefix(sql, "SET LOCAL enable_"):
				set = sql
			case strings.HasPrefix(sql, "WITH"):
				n++
				b.checkBooks(t, state, set, s.sql, day)
			}
		}
		if n != 4 || !begun {
			t.Errorf("%s: %d statements were looked at, in one snapshot: %t; want 4", state, n, begun)
		}
	}
	b.exec(t, `VACUUM ANALYZE ready, inflight, unknown, message, recipient, attempt, body`)
	look("empty tables")
	b.fill(t, 5_000)
	day = get[string](t, b, `SELECT right(tableoid::regclass::text, 8) FROM message LIMIT 1`)
	b.exec(t, `UPDATE attempt SET class = 'transient', finished_at = now()`)
	look("5,000 open messages since the last analyze")
	b.exec(t, `VACUUM ANALYZE ready, inflight, unknown, message, recipient, attempt, body`)
	look("5,000 open messages")
	b.exec(t, `DELETE FROM ready WHERE id NOT IN (SELECT id FROM ready LIMIT 30); UPDATE message SET status = 'sent' WHERE id NOT IN (SELECT id FROM ready)`)
	look("30 open messages since the last analyze")
	b.exec(t, `VACUUM ANALYZE ready, inflight, unknown, message, recipient, attempt, body`)
	look("30 open messages")
	b.exec(t, `UPDATE message SET status = 'sent'`)
	look("30 contradictions")
}

// checkBooks asks for the plan as it is made in the transaction that checks the books.
func (b *bed) checkBooks(t *testing.T, state, set, sql, day string) {
	t.Helper()
	tx, err := b.db.engine.Begin(t.Context())
	must(t, err)
	defer func() { must(t, tx.Rollback(context.Background())) }()
	_, err = tx.Exec(t.Context(), set)
	must(t, err)
	rows, err := tx.Query(t.Context(), "EXPLAIN (COSTS OFF) "+sql)
	must(t, err)
	plan := ""
	for line := ""; rows.Next(); {
		must(t, rows.Scan(&line))
		plan += line + "\n"
	}
	must(t, rows.Err())
	if bad := readsKept(strings.Split(plan, "\n"), day); bad != "" {
		t.Errorf("%s: %s\nin the plan of\n%s\n%s", state, bad, sql, plan)
	}
	if sql == placesSQL && !strings.Contains(plan, "Merge Full Join") {
		t.Errorf("%s: messages and queue don't meet in the order of their ids:\n%s", state, plan)
	}
}

// readsKept returns the first line of a plan that reads more of what is kept than is open, or that sorts what is open in
// order to join it. Of days without a message only a whole table counts: any index of theirs is as good.
func readsKept(plan []string, day string) string {
	join := -1 // indentation of the join
	for i, line := range plan {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if join >= 0 && indent <= join {
			join = -1
		}
		if strings.Contains(line, "Merge Full Join") {
			join = indent
		}
		if join >= 0 && strings.Contains(line, "->  Sort") {
			return line
		}
		if strings.Contains(line, "Seq Scan on message_") || strings.Contains(line, "Seq Scan on attempt_") || strings.Contains(line, "Seq Scan on recipient_") {
			return line
		}
		m := keptIndex.FindStringSubmatch(line)
		if m == nil || m[1] != day || m[2] == "id_idx" || m[2] == "message_id_n_idx" || // the indexes of what is open
			m[2] == "pkey" && strings.Contains(plan[i+1], "Index Cond:") {
			continue
		}
		return line
	}
	return ""
}
