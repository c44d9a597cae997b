package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"golang.org/x/term"
)

// sheet collects the lines of a command for people, so that a table can be fitted to the width of the terminal.
type sheet struct {
	bytes.Buffer
	table bool // the first line names the columns
}

// head prints the names of the columns of a table. If the table is wider than the terminal, columns are cut or left out.
func head(w io.Writer, names ...string) {
	if t, ok := w.(*sheet); ok {
		t.table = true
	}
	row(w, names...)
}

// print writes the lines in columns. Tables get at most width columns of text; 0 is no bound. Other lines may wrap, since
// all that they say was asked for.
func (t *sheet) print(w io.Writer, width int) error {
	var rows [][]string
	for line := range strings.Lines(t.String()) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	if t.table {
		return printTable(w, rows, width)
	}
	out := tabwriter.NewWriter(w, 0, 4, tableGap, ' ', 0)
	for _, cells := range rows {
		fmt.Fprintln(out, strings.Join(cells, "\t"))
	}
	return flush(out)
}

// printTable aligns all lines by the same columns, also those with empty cells at their end.
func printTable(w io.Writer, rows [][]string, width int) error {
	if width > 0 {
		fit(rows, width)
	}
	widths := columnWidths(rows)
	for _, cells := range rows {
		var line strings.Builder
		for j, c := range cells {
			line.WriteString(c + strings.Repeat(" ", widths[j]-utf8.RuneCountInString(c)+tableGap))
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(line.String(), " ")); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

const (
	tableGap = 2  // spaces between two columns
	cutTo    = 10 // columns are not cut below this width; they are left out instead
)

// fit cuts the widest columns of a table until it fits, and then leaves out columns from the right. The first column, the
// name or id by which other commands find the object, stays whole.
func fit(rows [][]string, width int) {
	widths := columnWidths(rows)
	for n := len(widths); n > 1; n-- {
		if cut := squeeze(widths[:n], width); cut != nil {
			for i, cells := range rows {
				rows[i] = cells[:min(len(cells), n)]
				for j := range rows[i] {
					rows[i][j] = shorten(cells[j], cut[j])
				}
			}
			return
		}
	}
	for i := range rows {
		rows[i] = rows[i][:min(len(rows[i]), 1)]
	}
}

func columnWidths(rows [][]string) []int {
	var widths []int
	for _, cells := range rows {
		for j, c := range cells {
			if j == len(widths) {
				widths = append(widths, 0)
			}
			widths[j] = max(widths[j], utf8.RuneCountInString(c))
		}
	}
	return widths
}

// squeeze returns widths that fit, or nil if there are none.
func squeeze(widths []int, width int) []int {
	cut := append([]int(nil), widths...)
	over := tableGap*(len(cut)-1) - width
	for _, n := range cut {
		over += n
	}
	for over > 0 {
		widest := 1
		for j := 1; j < len(cut); j++ {
			if cut[j] > cut[widest] {
				widest = j
			}
		}
		if len(cut) < 2 || cut[widest] <= cutTo {
			return nil
		}
		cut[widest]--
		over--
	}
	return cut
}

// width returns how many columns of text the output has: those of COLUMNS, or else of the terminal. 0 is no bound.
func (s *Streams) width() int {
	if n, err := strconv.Atoi(s.getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	width, _ := terminalSize(s.Out)
	return width
}

// terminalSize returns the size of a terminal in characters, or zeros if w is none.
func terminalSize(w io.Writer) (width, height int) {
	if f, ok := fileOf(w); ok && isTTY(f) {
		width, height, _ = term.GetSize(int(f.Fd()))
	}
	return width, height
}

// fileOf returns the file that a stream reads or writes.
func fileOf(stream any) (*os.File, bool) {
	if p, ok := stream.(pipeWriter); ok {
		stream = p.Writer
	}
	f, ok := stream.(*os.File)
	return f, ok
}
