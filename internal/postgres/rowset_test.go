package postgres

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
)

// calls is a rowset with a column of most kinds.
func calls(ids ...mail.ID) *rowset {
	i := rowsAs("i", len(ids))
	for k, id := range ids {
		i.row().id("id", id).int("n", k).text("class", "c").json("avoid", map[string]int{})
	}
	return i
}

func TestRowsetTakesThePlaceOfItsNames(t *testing.T) {
	t.Parallel()
	one, two := mail.NewID(), mail.NewID()
	x := rowsAs("x", 1)
	x.row().bool("held", true).maybeTime("until", time.Time{})
	for _, c := range []struct {
		name, sql string
		set       *rowset
		args      []any
		want      string
		wantArgs  []any
	}{
		{
			"rows, one column, and other arguments", `UPDATE t SET n = i.n, a = $1 FROM @i WHERE id = ANY (@i.id) AND id = i.id`, calls(one, two),
			[]any{"a"},
			`UPDATE t SET n = i.n, a = $1 FROM unnest($2::uuid[], $3::int[], $4::text[], $5::jsonb[]) AS i(id, n, class, avoid) WHERE id = ANY ($2::uuid[]) AND id BETWEEN $6::uuid AND $7::uuid AND id = i.id`,
			[]any{"a", [][16]byte{one, two}, []int32{0, 1}, []string{"c", "c"}, [][]byte{nil, nil}, [16]byte(one), [16]byte(two)},
		},
		{
			"the least and the greatest id", `SELECT @i.id.last, i.id FROM @i WHERE m BETWEEN @i.id.first AND @i.id.last`, idRows([]mail.ID{two, one}), nil,
			`SELECT $1::uuid, i.id FROM unnest($2::uuid[]) AS i(id) WHERE m BETWEEN $3::uuid AND $1::uuid`,
			[]any{[16]byte(two), [][16]byte{two, one}, [16]byte(one)},
		},
		{
			"any of what is no id", `DELETE FROM t WHERE t.n = ANY (@i.n)`, calls(one), nil,
			`DELETE FROM t WHERE t.n = ANY ($1::int[])`,
			[]any{[]int32{0}},
		},
		{
			"only the columns that are named", `SELECT unnest(@i.n) WHERE $1`, calls(one),
			[]any{true},
			`SELECT unnest($2::int[]) WHERE $1`,
			[]any{true, []int32{0}},
		},
		{
			"all names", `INSERT INTO t (@i.*) SELECT * FROM @i`, calls(one), nil,
			`INSERT INTO t (id, n, class, avoid) SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::jsonb[]) AS i(id, n, class, avoid)`,
			[]any{[][16]byte{one}, []int32{0}, []string{"c"}, [][]byte{nil}},
		},
		{
			"two rowsets", `SELECT FROM @x JOIN unnest(@i.id) ON true`, calls(one).with(x), nil,
			`SELECT FROM unnest($1::boolean[], $2::timestamptz[]) AS x(held, until) JOIN unnest($3::uuid[]) ON true`,
			[]any{[]bool{true}, []*time.Time{nil}, [][16]byte{one}},
		},
	} {
		for range 2 { // the second time from memory
			sql, args, err := c.set.RewriteQuery(t.Context(), nil, c.sql, c.args)
			if diff := cmp.Diff(c.want, sql) + cmp.Diff(c.wantArgs, args); diff != "" || err != nil {
				t.Errorf("%s: %v\n%s", c.name, err, diff)
			}
		}
	}
}

func TestRowsetWithAMistakeReachesNoDatabase(t *testing.T) {
	t.Parallel()
	x := rowsAs("x", 1)
	x.row().bool("held", true)
	_, _, err := calls(mail.NewID()).with(x).RewriteQuery(t.Context(), nil, `SELECT unnest(@x.held), unnest(@i.id)`, nil)
	must(t, err)
	short, bad := calls(mail.NewID()), rowsAs("i", 1)
	short.row().id("id", mail.NewID())
	bad.row().json("avoid", func() {})
	for _, c := range []struct {
		name, sql string
		set       *rowset
		want      string
	}{
		{"no rows", `SELECT FROM @i`, rowsAs("i", 0), "0 rows"},
		{"a short row", `SELECT FROM @i`, short, "2 rows of 4 columns have 5 values"},
		{"a value without JSON", `SELECT FROM @i`, bad, "encode avoid"},
		{"a statement of other rows", `SELECT unnest(@x.held), unnest(@i.id)`, calls(mail.NewID()), "no column held"},
	} {
		if _, _, err := c.set.RewriteQuery(t.Context(), nil, c.sql, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one that says %q", c.name, err, c.want)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("columns in another order were taken")
		}
	}()
	calls(mail.NewID()).row().int("n", 1)
}

func TestDayOfIDs(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 10, 0, 0, 1, 0, time.UTC)
	id := func(at time.Time) [16]byte {
		ms := at.UnixMilli()
		return [16]byte{byte(ms >> 40), byte(ms >> 32), byte(ms >> 24), byte(ms >> 16), byte(ms >> 8), byte(ms), 0x70}
	}
	midnight := now.Truncate(24 * time.Hour)
	for name, c := range map[string]struct {
		at   []time.Time
		want string
	}{
		"today":                  {[]time.Time{now, midnight}, "_20260310"},
		"yesterday":              {[]time.Time{midnight.Add(-time.Millisecond), midnight.Add(-24 * time.Hour)}, "_20260309"},
		"both":                   {[]time.Time{midnight, midnight.Add(-time.Millisecond)}, ""},
		"the day before":         {[]time.Time{midnight.Add(-24*time.Hour - time.Millisecond)}, ""},
		"tomorrow":               {[]time.Time{midnight.Add(24 * time.Hour)}, ""},
		"an id without a time":   {[]time.Time{time.UnixMilli(0)}, ""},
		"the last of the day":    {[]time.Time{midnight.Add(24*time.Hour - time.Millisecond)}, "_20260310"},
		"in another time zone":   {[]time.Time{now.In(time.FixedZone("", 3600))}, "_20260310"},
		"today and an older one": {[]time.Time{now, midnight.Add(-72 * time.Hour)}, ""},
	} {
		var ids [][16]byte
		for _, at := range c.at {
			ids = append(ids, id(at))
		}
		if got := dayOf(ids, now); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestStatementsNameTheTablesOfADay(t *testing.T) {
	t.Parallel()
	fields := calls(mail.NewID()).fields
	const sql = `UPDATE @attempt a SET n = 1 FROM @i WHERE a.id = ANY (@i.id) AND EXISTS (SELECT FROM @event)`
	for day, want := range map[string]string{"": "attempt a", "_20260310": "attempt_20260310 a"} {
		e := expand(written{sql, day}, fields, 0)
		if !strings.HasPrefix(e.sql, "UPDATE "+want+" SET") || e.of == nil || *e.of != (ref{"i", "id", ""}) || !strings.Contains(e.sql, "@event") {
			t.Errorf("day %q: %s, by %v", day, e.sql, e.of)
		}
	}
	if e := expand(written{`DELETE FROM ready WHERE id = ANY (@i.id)`, ""}, fields, 0); e.of != nil {
		t.Errorf("a statement without such a table depends on the day of %v", e.of)
	}
}

func TestDaysAreOpenToARoleThatMayUseThem(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.db.days.Store(false)
	_, err := b.db.EnsurePartitions(t.Context())
	must(t, err)
	if !b.db.days.Load() {
		t.Error("the owner may not use the tables of days")
	}
	if get[bool](t, b, strings.ReplaceAll(daysOpenSQL, "$1::text[]", "ARRAY['message', 'no_such_table']")) {
		t.Error("a table that is not there may be used")
	}
	tx := b.begin(t)
	_, err = tx.Exec(t.Context(), `SET LOCAL ROLE pg_signal_backend`) // which has no rights on our tables
	must(t, err)
	var open bool
	must(t, tx.QueryRow(t.Context(), daysOpenSQL, dayTables).Scan(&open))
	if open {
		t.Error("a role without rights may use them")
	}
}
