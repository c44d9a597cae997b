package main

import (
	"strings"
	"testing"
)

func TestTableShowsMediansAndRatiosOfTheSameRound(t *testing.T) {
	t.Parallel()
	var log, out strings.Builder
	table := newTable(&log)
	for _, round := range [][2]float64{{100, 200}, {300, 400}, {90, 300}} {
		table.beside("accept", "/s", round[0], round[1])
	}
	table.add("p99", "ms", 1.5)
	table.print(&out)
	var rows []string
	for line := range strings.Lines(out.String()) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	want := "figure median lowest highest unit ceiling ratio\naccept 100 90.0 300 /s 300 0.50\np99 1.50 1.50 1.50 ms"
	if got := strings.Join(rows, "\n"); got != want {
		t.Errorf("table:\n%s\nwant:\n%s", got, want)
	}
	if !strings.Contains(log.String(), "accept: 300 /s") {
		t.Errorf("no line for each value: %q", log.String())
	}
}
