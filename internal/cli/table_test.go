package cli

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestTablesFitTheTerminal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		width int
		want  string
	}{
		{0, "ID        STATUS  SUBJECT\n0193-abc  sent    a long subject of thirty cells\n0193-abd  queued  short\n"},
		{100, "ID        STATUS  SUBJECT\n0193-abc  sent    a long subject of thirty cells\n0193-abd  queued  short\n"},
		{30, "ID        STATUS  SUBJECT\n0193-abc  sent    a long subj…\n0193-abd  queued  short\n"},
		{20, "ID        STATUS\n0193-abc  sent\n0193-abd  queued\n"},
		{9, "ID\n0193-abc\n0193-abd\n"},
	} {
		sheet, out := &sheet{}, bytes.Buffer{}
		head(sheet, "ID", "STATUS", "SUBJECT")
		row(sheet, "0193-abc", "sent", "a long subject of thirty cells")
		row(sheet, "0193-abd", "queued", "short")
		if err := sheet.print(&out, c.width); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, out.String()); diff != "" {
			t.Errorf("width %d (-want +got)\n%s", c.width, diff)
		}
	}
}

// A line that ends early does not move the columns of the next ones.
func TestColumnsStayInLine(t *testing.T) {
	t.Parallel()
	sheet, out := &sheet{}, bytes.Buffer{}
	head(sheet, "ACCOUNT", "LIMIT", "KIND")
	row(sheet, "ses", "14 a second", "ses")
	row(sheet, "", "50 a day", "")
	row(sheet, "relay", "none", "smtp")
	if err := sheet.print(&out, 0); err != nil {
		t.Fatal(err)
	}
	want := "ACCOUNT  LIMIT        KIND\nses      14 a second  ses\n         50 a day\nrelay    none         smtp\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestColumnsBoundsTablesAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]answer{
		"GET /admin/v1/keys": {200, nil, `{"data":[{"id":"1f0c9a2b","name":"checkout-of-the-large-shop","tenant":"default","scopes":["send","messages:read"],` +
			`"created_at":"2026-01-31T12:00:00Z"}]}`},
		"GET /admin/v1/accounts/ses-eu": {200, nil, accountJSON},
	})
	w.env = append(w.env, "COLUMNS=40")
	o := w.run("keys", "list")
	for line := range strings.Lines(o.out) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 40 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	o.want(t, 0, "1f0c9a2b  checkout", "")
	w.run("providers", "show", "ses-eu").want(t, 0, "403 SignatureDoesNotMatch", "")
}
