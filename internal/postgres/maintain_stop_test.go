//go:build drill

package postgres

import (
	"testing"
)

func TestDropPartitionsGoesOnWhereItWasStopped(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	ctx := t.Context()
	b.exec(t, `SELECT ensure_partitions($1::date, $2::date)`, day(-6), day(-2))
	reader := b.begin(t) // a report that takes its time
	_, err := reader.Exec(ctx, `SELECT count(*) FROM body`)
	must(t, err)
	if n, err := b.db.DropPartitions(ctx, "body", day(-3)); n != 0 || err == nil {
		t.Fatalf("DropPartitions under a reader = %d, %v; want it to give up", n, err)
	}
	if n := get[int](t, b, `SELECT count(*) FROM pg_inherits WHERE inhdetachpending`); n != 1 {
		t.Fatalf("%d partitions are half detached, want 1", n)
	}
	must(t, reader.Rollback(ctx))
	b.exec(t, `ALTER TABLE recipient DETACH PARTITION recipient_`+day(-5).Format("20060102")) // and one process died between detach and drop
	for _, table := range []string{"body", "recipient"} {
		if n, err := b.db.DropPartitions(ctx, table, day(-3)); n != 3 || err != nil {
			t.Errorf("DropPartitions(%s) = %d, %v; want 3", table, n, err)
		}
		if got := b.partitions(t, table)[0]; got != day(-3).Format("20060102") {
			t.Errorf("oldest day of %s is %s", table, got)
		}
		if n := get[int](t, b, `SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ $1`, "^"+table+"_"); n != 11 {
			t.Errorf("%d tables of %s, want 11", n, table)
		}
	}
	b.acceptN(t, 1)
}
