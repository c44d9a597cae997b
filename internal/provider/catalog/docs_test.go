package catalog

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// firstCells returns the first cell of each row of the table whose header begins with the given cells.
func firstCells(t *testing.T, file, header string) []string {
	t.Helper()
	text, err := os.ReadFile("../../../" + file)
	if err != nil {
		t.Fatal(err)
	}
	_, below, ok := strings.Cut(string(text), "\n"+header)
	if !ok {
		t.Fatalf("%s has no table with the header %q", file, header)
	}
	table, _, _ := strings.Cut(below, "\n\n")
	var cells []string
	for _, row := range strings.Split(table, "\n")[2:] { // below the header and its line
		cells = append(cells, strings.TrimSpace(strings.Split(row, "|")[1]))
	}
	return cells
}

// A provider that nobody can read about can't be set up.
func TestTheDocumentsDescribeEveryKind(t *testing.T) {
	t.Parallel()
	for _, table := range []struct{ file, header string }{
		{"README.md", "| kind | limits |"},
		{"README.md", "| kind | reports |"},
		{"docs/webhooks.md", "| kind | wrong signature or password |"},
	} {
		cells := firstCells(t, table.file, table.header)
		for _, s := range Specs() {
			if !slices.Contains(cells, "`"+string(s.Kind)+"`") {
				t.Errorf("the table %q in %s has no row for `%s`: add one", table.header, table.file, s.Kind)
			}
		}
	}
	for _, file := range []string{"docs/providers.md", "docs/webhooks.md"} {
		text, err := os.ReadFile("../../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range Specs() {
			if !strings.Contains(string(text), "\n## "+string(s.Kind)+"\n") {
				t.Errorf("%s has no section \"## %s\": add one", file, s.Kind)
			}
		}
	}
}
