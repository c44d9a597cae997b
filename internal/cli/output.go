package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// format has the flags that every client command takes.
type format struct {
	JSON bool `name:"json" help:"Print the API's JSON."`
}

// paging has the flags of the commands that print one page of a listing.
type paging struct {
	Limit  int    `default:"50" help:"At most this many, 1 to 200."`
	Cursor string `help:"Continue where the last page ended."`
}

// Validate implements kong's check of a command.
func (p *paging) Validate() error { return checkLimit(p.Limit) }

func checkLimit(n int) error {
	if n < 1 || n > maxPage {
		return usagef("--limit must be 1 to %d, got %d", maxPage, n)
	}
	return nil
}

// show prints v as JSON, or calls human for people.
func (f format) show(s *Streams, v any, human func(w io.Writer)) error {
	if f.JSON {
		return printJSON(s.Out, v)
	}
	t := &sheet{}
	human(t)
	return t.print(s.Out, s.width())
}

// showPage is show, and also tells people how to see the next page.
func (f format) showPage(s *Streams, v any, next string, human func(w io.Writer)) error {
	if err := f.show(s, v, human); err != nil {
		return err
	}
	if next != "" && !f.JSON {
		fmt.Fprintln(s.Err, "more: add --cursor", next)
	}
	return nil
}

// encoder writes JSON for terminals and programs, none of which is a browser.
func encoder(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e
}

func printJSON(w io.Writer, v any) error {
	e := encoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func flush(t *tabwriter.Writer) error {
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// row prints one line of a table. Cells are cleaned: they may come from a message or from a provider.
func row(w io.Writer, cells ...string) {
	for i, c := range cells {
		cells[i] = clean(c)
	}
	fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
}

// clean replaces characters that would move the cursor, colour the terminal, turn the writing direction or break a table.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' {
			return '\ufffd'
		}
		return r
	}, s)
}

// oneLine is clean for errors with several lines, such as those of the database.
func oneLine(s string) string {
	return clean(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\t' }), " "))
}

// stamp returns a time in UTC to the second, or "-" for the zero time.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

func stampOf(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return stamp(*t)
}

// orDash returns "-" for an empty cell, which keeps the columns of a table in place.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// number formats weights with at most four digits, without trailing zeros.
func number(f float64) string { return strings.TrimSuffix(fmt.Sprintf("%.4g", f), ".0") }
