package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
)

// table gathers the values of each figure over the rounds.
type table struct {
	log   io.Writer
	names []string // in order of appearance
	rows  map[string]*row
}

// row is one figure: a value for each round, and the ceiling that was measured beside it, or 0.
type row struct {
	unit             string
	values, ceilings []float64
}

func newTable(log io.Writer) *table { return &table{log: log, rows: map[string]*row{}} }

// add notes a value.
func (t *table) add(name, unit string, value float64) { t.beside(name, unit, value, 0) }

// beside notes a value and its ceiling.
func (t *table) beside(name, unit string, value, ceiling float64) {
	r := t.rows[name]
	if r == nil {
		r = &row{unit: unit}
		t.rows[name] = r
		t.names = append(t.names, name)
	}
	r.values, r.ceilings = append(r.values, value), append(r.ceilings, ceiling)
	_, _ = fmt.Fprintf(t.log, "   %s: %s %s\n", name, number(value), unit)
}

// print writes medians, the range of the values, and the median of the ratios to the ceilings.
func (t *table) print(to io.Writer) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "figure\tmedian\tlowest\thighest\tunit\tceiling\tratio\t")
	for _, name := range t.names {
		r := t.rows[name]
		ceiling, ratio := "", ""
		if r.ceilings[0] > 0 {
			ratios := make([]float64, len(r.values))
			for i := range r.values {
				ratios[i] = r.values[i] / r.ceilings[i]
			}
			ceiling, ratio = number(median(r.ceilings)), fmt.Sprintf("%.2f", median(ratios))
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", name, number(median(r.values)), number(slices.Min(r.values)), number(slices.Max(r.values)),
			r.unit, ceiling, ratio)
	}
	_ = w.Flush()
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// number has three digits that count, and no exponent.
func number(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
