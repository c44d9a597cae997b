package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/record"
)

// kept is how long the counts of a step are kept.
var kept = map[time.Duration]string{record.Minute: "49 hours", record.Hour: "400 days"}

// AddSeries adds counts to their minutes and hours, and removes what is older than its step is kept. Counts of equal labels and
// the same minute are to be given once.
func (db *DB) AddSeries(ctx context.Context, counts []record.Count) error {
	if len(counts) == 0 {
		return nil
	}
	counts = slices.Clone(counts)
	slices.SortFunc(counts, func(a, b record.Count) int { // the order of locks, for all replicas
		return strings.Compare(fmt.Sprint(a.Measure, a.At.Unix(), a.Account, a.Stream, a.Detail), fmt.Sprint(b.Measure, b.At.Unix(), b.Account, b.Stream, b.Detail))
	})
	var measures []string
	i := rowsAs("i", len(counts))
	for _, c := range counts {
		i.row().text("measure", c.Measure).time("at", c.At).text("account", c.Account).text("stream", c.Stream).text("detail", c.Detail).big("n", c.N)
		measures = append(measures, c.Measure)
	}
	var b pgx.Batch
	for _, step := range []time.Duration{record.Minute, record.Hour} {
		i.queue(&b, `
INSERT INTO series AS s (step, at, measure, account, stream, detail, n)
SELECT $1::int, date_bin($1::int * interval '1 s', at, 'epoch'), measure, account, stream, detail, n FROM @i
ON CONFLICT (step, measure, at, account, stream, detail) DO UPDATE SET n = s.n + EXCLUDED.n`, int32(step.Seconds()))
		b.Queue(`DELETE FROM series WHERE step = $1 AND measure = ANY ($2) AND at < now() - $3::interval`, int32(step.Seconds()), slices.Compact(measures), kept[step])
	}
	return failed("add to the series", db.inTx(ctx, func(tx pgx.Tx) error { return tx.SendBatch(ctx, &b).Close() }))
}

// Series returns counts, by measure, labels and time.
func (db *DB) Series(ctx context.Context, f record.SeriesFilter) ([]record.Count, error) {
	const q = `
SELECT measure, at, CASE WHEN $6 THEN account ELSE '' END, CASE WHEN $7 THEN stream ELSE '' END, CASE WHEN $8 THEN detail ELSE '' END, sum(n)::bigint
FROM series
WHERE step = $1 AND measure = ANY ($2) AND at >= $3 AND at < $4 AND ($5 = '' OR account = $5)
GROUP BY 1, 2, 3, 4, 5
ORDER BY 1, 3, 4, 5, 2
LIMIT $9`
	counts, err := pgx.CollectRows(query(ctx, db.api, q, int32(f.Step.Seconds()), f.Measures, f.Since, f.Until, f.Account, f.ByAccount, f.ByStream, f.ByDetail, f.Limit),
		pgx.RowToStructByPos[record.Count])
	return counts, failed("read series", err)
}
