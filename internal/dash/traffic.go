package dash

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/sendgate/sendgate/api"
)

// A window is a time that plots show.
type window struct {
	Name string // in URLs
	Text string
	step time.Duration
	n    int // steps
}

// windows are the times to choose from. The first one is the default.
func windows() []window {
	return []window{{"1h", "1 hour", time.Minute, 60}, {"24h", "24 hours", time.Minute, 1440}, {"30d", "30 days", time.Hour, 720}}
}

const (
	trafficKept = 5 * time.Second  // how long one reading serves all viewers
	storedAfter = 10 * time.Second // all replicas have stored what they counted by then
)

// traffic is what was counted in a window, as plots.
type traffic struct {
	Window  window
	Windows []window
	Until   time.Time // where the last step ends
	Plots   []plot
}

// plot is one picture. Each line has one value for each step.
type plot struct {
	Title string
	Unit  string
	From  int64 // the first step, in Unix seconds
	Step  int   // seconds
	Lines []line
}

// line has nil in a step without a value.
type line struct {
	Name string     `json:"name"`
	V    []*float64 `json:"v"`
}

// Data is what the script draws.
func (p plot) Data() (string, error) {
	data, err := json.Marshal(struct {
		From  int64  `json:"from"`
		Step  int    `json:"step"`
		Unit  string `json:"unit"`
		Lines []line `json:"lines"`
	}{p.From, p.Step, p.Unit, p.Lines})
	return string(data), err
}

// Last returns the value of the last step, Mean that of an average one, and Most the highest; 0 without any.
func (l line) Last() float64 {
	if v := l.V[len(l.V)-1]; v != nil {
		return *v
	}
	return 0
}

// Mean is described at Last.
func (l line) Mean() float64 {
	sum, n := 0.0, 0
	for _, v := range l.V {
		if v != nil {
			sum, n = sum+*v, n+1
		}
	}
	return sum / float64(max(n, 1))
}

// Most is described at Last.
func (l line) Most() float64 {
	most := 0.0
	for _, v := range l.V {
		if v != nil {
			most = max(most, *v)
		}
	}
	return most
}

// showTraffic is the page of the plots, and the part of it that is refreshed.
func showTraffic(v *visit) error {
	t, err := v.readTraffic(v.r.URL.Query().Get("window"))
	if err != nil {
		return err
	}
	if v.partial() {
		return v.show(200, "plots", "traffic", "Traffic", t)
	}
	return v.show(200, "traffic", "traffic", "Traffic", t)
}

// readTraffic returns a reading that is at most trafficKept old. It is of the whole installation: see current.
func (v *visit) readTraffic(name string) (traffic, error) {
	i := max(slices.IndexFunc(windows(), func(w window) bool { return w.Name == name }), 0)
	w := windows()[i]
	q := api.SeriesQuery{Measures: []string{"accepted", "sent", "delivered", "bounced", "complained"}, Step: "minute"}
	if w.step == time.Hour {
		q.Step = "hour"
	}
	q.Until = v.Now().UTC().Add(-storedAfter).Truncate(w.step)
	q.Since = q.Until.Add(-time.Duration(w.n) * w.step)
	if !v.may("routing:read") {
		_, err := v.api.Series(v.r.Context(), q) // the API says why not
		return traffic{}, err
	}
	return v.traffic[w.Name].get(v, trafficKept, func(ctx context.Context) (traffic, error) { return v.plots(ctx, w, q) })
}

func (v *visit) plots(ctx context.Context, w window, q api.SeriesQuery) (traffic, error) {
	t := traffic{Window: w, Windows: windows(), Until: q.Until}
	totals, err := v.api.Series(ctx, q)
	if err != nil {
		return t, err
	}
	times := q
	times.Measures = []string{"accept_seconds", "sent_seconds"}
	took, err := v.api.Series(ctx, times)
	if err != nil {
		return t, err
	}
	q.Measures, q.By = []string{"sent"}, "account"
	shares, err := v.api.Series(ctx, q)
	if err != nil {
		return t, err
	}
	p := plot{From: q.Since.Unix(), Step: int(w.step.Seconds()), Unit: "per minute"}
	t.Plots = []plot{
		p.of("Accepted, and what became of it", perMinute(totals, w, "accepted", "sent", "delivered")),
		p.of("Trouble", perMinute(totals, w, "bounced", "complained")), p.of("Sent, by account", byAccount(shares, w)),
	}
	p.Unit = "seconds"
	t.Plots = append(t.Plots, p.of("How long it took", quantileLines(took, w)))
	return t, nil
}

func (p plot) of(title string, lines []line) plot {
	p.Title, p.Lines = title, lines
	return p
}

// perMinute returns a line for each measure, zeros if nothing was counted.
func perMinute(page *api.SeriesPage, w window, measures ...string) []line {
	var lines []line
	for _, m := range measures {
		counts := make([]int64, w.n)
		for _, s := range page.Data {
			if s.Measure == m && len(s.N) == w.n {
				counts = s.N
			}
		}
		lines = append(lines, line{m, rates(counts, w)})
	}
	return lines
}

// byAccount returns a line for each account that something was counted for.
func byAccount(page *api.SeriesPage, w window) []line {
	var lines []line
	for _, s := range page.Data {
		if len(s.N) == w.n {
			lines = append(lines, line{cmp.Or(s.Account, "no account"), rates(s.N, w)})
		}
	}
	return lines
}

func rates(counts []int64, w window) []*float64 {
	out := make([]*float64, len(counts))
	for i, n := range counts {
		v := float64(n) / w.step.Minutes()
		out[i] = &v
	}
	return out
}

// timeNames name the times as people do.
var timeNames = map[string]string{"accept_seconds": "a request", "sent_seconds": "accepted to sent"}

func quantileLines(page *api.SeriesPage, w window) []line {
	var lines []line
	for _, s := range page.Data {
		if name, ok := timeNames[s.Measure]; ok && len(s.P50) == w.n && len(s.P95) == w.n {
			lines = append(lines, line{name + ", median", s.P50}, line{name + ", 95 %", s.P95})
		}
	}
	return lines
}
