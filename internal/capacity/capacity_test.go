package capacity

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/provider"
)

// near compares floats to a millionth.
var near = cmpopts.EquateApprox(1e-6, 1e-9)

// load is a month of 720,000 messages: 1,000 an hour on average, and 10,000 in the busiest hour.
func load(edit func(*Load)) Load {
	l := Load{
		PerMonth: 720_000, Peak: 10, Size: 30_000, Recipients: 1, Retention: Span(90 * 24 * time.Hour), BodyRetention: Span(7 * 24 * time.Hour),
	}
	if edit != nil {
		edit(&l)
	}
	return l
}

func window(n int, per time.Duration, unit limit.Unit) limit.Window {
	return limit.Window{N: n, Per: per, Unit: unit}
}

func account(name string, weight float64, limits ...limit.Window) Account {
	return Account{Name: name, Kind: name, State: "active", Weight: weight, Limits: limits}
}

func TestTheBusiestHourIsPartOfTheMonth(t *testing.T) {
	t.Parallel()
	rest := (720_000 - 10_000.) / 719
	for _, tc := range []struct {
		peak float64
		span time.Duration
		want float64
	}{
		{1, time.Minute, 1000. / 60},
		{1, 24 * time.Hour, 24_000},
		{10, time.Second, 10_000. / 3600},
		{10, time.Hour, 10_000},
		{10, 2 * time.Hour, 10_000 + rest},
		{10, 24 * time.Hour, 10_000 + 23*rest},
		{10, 720 * time.Hour, 720_000},
		{10, 744 * time.Hour, 720_000 + 24*rest},
		{720, time.Hour, 720_000}, // all mail of the month
		{720, 24 * time.Hour, 720_000},
	} {
		got := load(func(l *Load) { l.Peak = tc.peak }).within(tc.span)
		if !cmp.Equal(got, tc.want, near) {
			t.Errorf("peak %g: %g messages within %s, want %g", tc.peak, got, tc.span, tc.want)
		}
	}
}

// A limit in each unit, and limits that bind nowhere, at the peak only, and beside it too.
func TestWhereALimitBinds(t *testing.T) {
	t.Parallel()
	batch := provider.BatchSpec{Max: 500}
	alike := provider.BatchSpec{Max: 1000, MaxRecipients: 1000, Alike: true}
	hours := func(h float64) time.Duration { return time.Duration(h * float64(time.Hour)) }
	drained := hours((10_000 - 4900) / (4900 - 710_000./719)) // 10,000 in an hour, 4,900 may go, and then that many are to spare
	const day = 10_000 + 23*710_000./719
	for _, tc := range []struct {
		name    string
		limit   limit.Window
		batch   provider.BatchSpec
		edit    func(*Load)
		needs   float64
		binds   float64
		verdict Verdict
		wait    time.Duration
	}{
		{"messages fit", window(20_000, time.Hour, limit.Messages), batch, nil, 10_000, 720_000 * .98 * 2, Fits, 0},
		{"messages wait at the peak", window(5000, time.Hour, limit.Messages), batch, nil, 10_000, 720_000 * .49, Waits, drained},
		{"messages never get through", window(1000, time.Hour, limit.Messages), batch, nil, 10_000, 720_000 * .098, TooSmall, 0},
		{"even mail", window(1100, time.Hour, limit.Messages), batch, func(l *Load) { l.Peak = 1 }, 1000, 720_000 * .98 * 1.1, Fits, 0},
		{
			"recipients of a day wait", window(50_000, 24*time.Hour, limit.Recipients), batch, func(l *Load) { l.Recipients = 2 }, 2 * day, 720_000 * .98 * 25_000 / day,
			Waits, hours((2*day - 49_000) / (49_000./24 - 2*710_000./719)),
		},
		{
			"recipients of a day are too many", window(50_000, 24*time.Hour, limit.Recipients), batch, func(l *Load) { l.Recipients = 3 }, 3 * day,
			720_000 * .98 * 50_000 / 3 / day, TooSmall, 0,
		},
		{"a month's quota", window(600_000, 720*time.Hour, limit.Messages), batch, nil, 720_000, 600_000 * .98, TooSmall, 0},
		{"requests, each message alone", window(5000, time.Hour, limit.Requests), provider.BatchSpec{}, nil, 10_000, 720_000 * .49, Waits, drained},
		{"requests of 34 messages: a call has 1 MiB", window(5000, time.Hour, limit.Requests), batch, nil, 10_000. / 34, 720_000 * .98 * 17, Fits, 0},
		{"of 100: transactional", window(5000, time.Hour, limit.Requests), batch, func(l *Load) { l.Size = 1000 }, 100, 720_000 * .98 * 50, Fits, 0},
		{"of 500: bulk", window(5000, time.Hour, limit.Requests), batch, func(l *Load) { l.Size, l.Bulk = 1000, 1 }, 20, 720_000 * .98 * 250, Fits, 0},
		{"half of it bulk", window(5000, time.Hour, limit.Requests), batch, func(l *Load) { l.Size, l.Bulk = 1000, .5 }, 60, 720_000 * .98 * 5000 / 60, Fits, 0},
		{"of one: content differs", window(5000, time.Hour, limit.Requests), alike, func(l *Load) { l.Size = 1000 }, 10_000, 720_000 * .49, Waits, drained},
		{
			"of 250: so many have 1,000 recipients", window(5000, time.Hour, limit.Requests), alike,
			func(l *Load) { l.Size, l.Bulk, l.Recipients = 1000, 1, 4 }, 40, 720_000 * .98 * 125, Fits, 0,
		},
		{"large messages go alone", window(20_000, time.Hour, limit.Requests), batch, func(l *Load) { l.Size, l.Bulk = 300_000, 1 }, 10_000, 720_000 * .98 * 2, Fits, 0},
	} {
		a := account("a", 1, tc.limit)
		a.Batch = tc.batch
		got := spread(load(tc.edit), []Account{a})[0].Limits[0]
		want := Window{N: tc.limit.N, Per: Span(tc.limit.Per), Unit: tc.limit.Unit, Needs: tc.needs, BindsAt: tc.binds, Verdict: tc.verdict, Wait: Span(tc.wait)}
		if diff := cmp.Diff(want, got, near, cmp.Comparer(func(a, b Span) bool { return max(a-b, b-a) < Span(time.Millisecond) })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestWhoGetsTheMail(t *testing.T) {
	t.Parallel()
	paused, small := account("paused", 5), account("small", 5)
	paused.State, small.Can.MaxBytes = "paused", 10_000
	few := account("few", 5)
	few.Can.MaxRecipients = 2
	for _, tc := range []struct {
		name     string
		accounts []Account
		want     []float64
		no       string // words of why the first gets none
		pool     Pool
	}{
		{"none", nil, nil, "", Pool{}},
		{"by weight", []Account{account("a", 1), account("b", 3)}, []float64{.25, .75}, "", Pool{Mail: true}},
		{"a zero weight", []Account{account("a", 0, window(1, time.Hour, limit.Messages)), account("b", 3)}, []float64{0, 1}, "weight 0", Pool{Mail: true}},
		{"only zero weights", []Account{account("a", 0), account("b", 0)}, []float64{0, 0}, "weight 0", Pool{}},
		{"a paused one", []Account{paused, account("b", 3)}, []float64{0, 1}, "paused", Pool{Mail: true}},
		{"messages too large for one", []Account{small, account("b", 3)}, []float64{0, 1}, "over the cap of 10000", Pool{Mail: true}},
		{"too many recipients for one", []Account{few, account("b", 3)}, []float64{0, 1}, "3 recipients", Pool{Mail: true}},
		{
			"next to nothing",
			[]Account{account("a", 1e-320, window(1e7, time.Second, limit.Messages)), account("b", 1, window(20_000, time.Hour, limit.Messages))},
			[]float64{0, 1},
			"",
			Pool{Mail: true, First: "b", Binds: 720_000 * .98 * 2},
		},
		{"the first limit", []Account{
			account("a", 1, window(10_000, time.Hour, limit.Messages), window(20_000, time.Hour, limit.Messages)),
			account("b", 3, window(10_000, time.Hour, limit.Messages), window(5000, time.Hour, limit.Messages)),
		}, []float64{.25, .75}, "", Pool{Mail: true, First: "b", Binds: 720_000 * .98 * 5000 / 7500, Carries: .98 * (10_000 + 5000) / 10_000 * 720_000}},
		{
			"one without a limit",
			[]Account{account("a", 1, window(10_000, time.Hour, limit.Messages)), account("b", 1)},
			[]float64{.5, .5},
			"",
			Pool{Mail: true, First: "a", Binds: 720_000 * .98 * 2},
		},
	} {
		l := load(func(l *Load) { l.Recipients = 2.1 })
		p := Compute(l, "", true, tc.accounts, Costs{})
		var got []float64
		for _, a := range p.Accounts {
			got = append(got, a.Share)
		}
		tc.pool.Spill = true
		if diff := cmp.Diff(tc.want, got, near) + cmp.Diff(tc.pool, p.Pool, near); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
		if tc.no != "" && !strings.Contains(p.Accounts[0].NoMail, tc.no) {
			t.Errorf("%s: no mail because of %q, want %q", tc.name, p.Accounts[0].NoMail, tc.no)
		}
		if _, err := json.Marshal(p); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	wait := Compute(load(nil), "", false, []Account{
		account("a", 1, window(10_000, time.Hour, limit.Messages)), account("b", 1),
	}, Costs{})
	if want := 720_000 * .98 * 2; !cmp.Equal(wait.Pool.Carries, want, near) {
		t.Errorf("a pool that waits carries %g, want %g: what its first limit allows", wait.Pool.Carries, want)
	}
}

func TestOnlyPossibleLoadsAreValid(t *testing.T) {
	t.Parallel()
	if err := load(nil).Validate(); err != nil {
		t.Error(err)
	}
	for field, edits := range map[string][]func(*Load){
		"per-month":      {func(l *Load) { l.PerMonth = 0 }, func(l *Load) { l.PerMonth = 2e10 }, func(l *Load) { l.PerMonth = math.NaN() }, func(l *Load) { l.PerMonth = math.Inf(1) }},
		"peak":           {func(l *Load) { l.Peak = .5 }, func(l *Load) { l.Peak = 721 }},
		"size":           {func(l *Load) { l.Size = 0 }, func(l *Load) { l.Size = 40e6 }},
		"recipients":     {func(l *Load) { l.Recipients = 0 }, func(l *Load) { l.Recipients = 1001 }, func(l *Load) { l.Recipients = math.NaN() }},
		"bulk":           {func(l *Load) { l.Bulk = -1 }, func(l *Load) { l.Bulk = 1.01 }},
		"retention":      {func(l *Load) { l.Retention = 0 }, func(l *Load) { l.Retention = math.MaxInt64 }},
		"body-retention": {func(l *Load) { l.BodyRetention = 0 }, func(l *Load) { l.BodyRetention = l.Retention + 1 }},
	} {
		for _, edit := range edits {
			if err := load(edit).Validate(); err == nil || !strings.HasPrefix(err.Error(), field+" must be") {
				t.Errorf("%s: %v, want an error that begins with the field", field, err)
			}
		}
	}
}

func TestHardwareFollowsTheCosts(t *testing.T) {
	t.Parallel()
	c := Costs{
		Accept: Work{100, 200}, Dispatch: Work{300, 400}, Event: Work{50, 100}, PerKB: Work{10, 20}, Size: 10_000, Events: 2,
		Row: 1000, RecipientRow: 100, EventRow: 200, BodyRatio: .5, Log: 3000, EventLog: 500, LogRatio: 1,
	}
	// 10,000 messages a second in the busiest hour. Each takes 100+300+4*50+20*10 and 200+400+4*100+20*20 microseconds.
	l := load(func(l *Load) { l.PerMonth, l.Recipients = 10_000*3600*72, 2 })
	got := hardware(l, c)
	perDay, rows := l.PerMonth/30, 1000+100+4*200.
	want := Hardware{
		GatewayBusy: 8, PostgresBusy: 14, Cores: 44, Replicas: 8, Connections: 8*18 + 3, OneMore: 9*18 + 3,
		GatewayGB: 4, PostgresGB: .16 + .005*147 + 36e6*rows/1e9,
		BodiesGB: perDay * 8 * 15_000 / 1e9, RowsGB: perDay * 91 * rows / 1e9,
		LogPerDayGB: perDay * (3000 + 2000 + 30_000) / 1e9,
		Apart:       []Machine{{For: "Postgres", Count: 1}, {For: "sendgate", Count: 9, Size: "2 vCPU, 2 GB, 60 GB disk", Price: 9 * 18}},
		Prices:      machineSources,
	}
	want.DiskGB = 1.3*(want.BodiesGB+want.RowsGB) + 2
	if diff := cmp.Diff(want, got, near); diff != "" {
		t.Errorf("large (-want +got):\n%s", diff)
	}
	small := hardware(load(func(l *Load) { l.PerMonth = 1000 }), c)
	if small.Cores != 1 || small.Replicas != 1 || small.Connections != 21 || len(small.Alone) != 1 || small.Alone[0].Size == "" || small.Alone[0].Volume != 0 {
		t.Errorf("small: %+v, want one machine", small)
	}
	short := hardware(load(func(l *Load) { l.Size = 200 }), c)
	if zero := hardware(load(func(l *Load) { l.Size = 10_000 }), c); short.GatewayBusy != zero.GatewayBusy {
		t.Errorf("a message below the measured size takes %g cores, want %g as measured", short.GatewayBusy, zero.GatewayBusy)
	}
}

func TestPricesAreThoseOfTheCheapestPlan(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		kind       string
		recipients float64
		want       string // plan and dollars
		dollars    float64
		atMost     bool
	}{
		{"sendgrid", 1, "Essentials 50K", 19.95, false},
		{"sendgrid", 50_000, "Essentials 50K", 19.95, false},
		{"sendgrid", 50_001, "Essentials 50K", 21.25, true},
		{"sendgrid", 100_001, "Pro 100K", 91.05, true},
		{"sendgrid", 2.6e6, "", 0, false},
		{"postmark", 12_000, "Basic", 18.60, true},
		{"postmark", 20_000, "Pro", 29.50, true},
		{"postmark", 400_000, "", 0, false},
		{"ses", 1e6, "à la carte", 100, false},
		{"ses", 1e10, "à la carte", 1e6, false},
		{"smtp", 1, "", 0, false},
		{"ses", 0, "", 0, false},
	} {
		got := price(tc.kind, tc.recipients)
		switch {
		case got == nil && tc.want == "":
		case got == nil || got.Plan != tc.want || !cmp.Equal(got.Dollars, tc.dollars, near) || got.AtMost != tc.atMost:
			t.Errorf("%s for %g recipients: %+v, want %q at %g, at most %t", tc.kind, tc.recipients, got, tc.want, tc.dollars, tc.atMost)
		}
	}
	for _, r := range tariffs {
		if !strings.HasPrefix(r.source, "https://") || len(r.date) < len("2006-01") || r.most < r.included {
			t.Errorf("%s %s: %+v, want a source, a date and a range", r.kind, r.name, r)
		}
	}
}
