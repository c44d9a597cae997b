package postgres

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/internal/record"
)

func TestSeriesAddUpOverReplicasMinutesAndHours(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	hour := time.Now().UTC().Truncate(time.Hour)
	first, second := hour.Add(3*time.Minute), hour.Add(4*time.Minute+59*time.Second)
	var wg sync.WaitGroup
	for i := range 8 { // replicas, which name the same rows in opposite orders
		counts := []record.Count{
			{Measure: "sent", At: first, Account: "a", Stream: "bulk", N: 1},
			{Measure: "sent", At: first, Account: "b", N: 2},
			{Measure: "sent", At: second, Account: "a", Stream: "transactional", N: 3},
			{Measure: "bounced", At: first, Account: "a", Detail: "hard", N: 1},
		}
		if i%2 == 0 {
			counts[0], counts[3], counts[1], counts[2] = counts[3], counts[0], counts[2], counts[1]
		}
		wg.Go(func() {
			if err := b.db.AddSeries(t.Context(), counts); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	read := func(f record.SeriesFilter) []record.Count {
		t.Helper()
		f.Since, f.Until, f.Limit = hour, hour.Add(time.Hour), 100
		got, err := b.db.Series(t.Context(), f)
		must(t, err)
		return got
	}
	minute := func(n int) time.Time { return hour.Add(time.Duration(n) * time.Minute) }
	for name, tc := range map[string]struct {
		f    record.SeriesFilter
		want []record.Count
	}{
		"minutes": {record.SeriesFilter{Measures: []string{"sent"}, Step: record.Minute}, []record.Count{{Measure: "sent", At: minute(3), N: 24}, {Measure: "sent", At: minute(4), N: 24}}},
		"the hour, by account": {record.SeriesFilter{Measures: []string{"sent", "bounced"}, Step: record.Hour, ByAccount: true}, []record.Count{
			{Measure: "bounced", At: hour, Account: "a", N: 8}, {Measure: "sent", At: hour, Account: "a", N: 32}, {Measure: "sent", At: hour, Account: "b", N: 16},
		}},
		"one account, by stream": {record.SeriesFilter{Measures: []string{"sent"}, Step: record.Hour, Account: "a", ByStream: true}, []record.Count{
			{Measure: "sent", At: hour, Stream: "bulk", N: 8}, {Measure: "sent", At: hour, Stream: "transactional", N: 24},
		}},
		"by detail": {record.SeriesFilter{Measures: []string{"bounced"}, Step: record.Minute, ByDetail: true}, []record.Count{{Measure: "bounced", At: minute(3), Detail: "hard", N: 8}}},
	} {
		if diff := cmp.Diff(tc.want, read(tc.f), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestOldStepsOfASeriesAreRemoved(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	now := time.Now()
	for _, age := range []time.Duration{0, 48 * time.Hour, 50 * time.Hour, 399 * 24 * time.Hour, 402 * 24 * time.Hour} {
		must(t, b.db.AddSeries(t.Context(), []record.Count{{Measure: "sent", At: now.Add(-age), N: 1}}))
	}
	if minutes, hours := get[int](t, b, `SELECT count(*) FROM series WHERE step = 60`), get[int](t, b, `SELECT count(*) FROM series WHERE step = 3600`); minutes != 2 || hours != 4 {
		t.Errorf("minutes kept = %d, hours = %d; want 2 of two days, 4 of 400", minutes, hours)
	}
	must(t, b.db.AddSeries(t.Context(), nil))
}
