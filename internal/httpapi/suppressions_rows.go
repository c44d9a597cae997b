package httpapi

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"strconv"
	"strings"
)

const (
	maxImportRow   = 64 << 10 // bytes of a row, and of a line
	maxImportLines = 50       // lines that a quoted row may span
)

var (
	errRow   = errors.New("is not well-formed CSV")
	errQuote = errors.New("has a quote that is not closed")
)

// csvRows reads the rows of a CSV file (RFC 4180). A broken row costs only its first line: an unclosed quote swallows the
// lines that follow, so these are read again as rows of their own.
type csvRows struct {
	in    *bufio.Reader
	comma rune
	again [][]byte // lines that are read again
	line  int      // number of the last line returned
}

func newCSVRows(r io.Reader) *csvRows {
	return &csvRows{in: bufio.NewReaderSize(r, maxImportRow), comma: ','}
}

// importRow is a row and the line on which it begins.
type importRow struct {
	fields []string
	line   int
	rest   [][]byte // its lines after the first
}

// nextLine returns a line with its line ending.
func (c *csvRows) nextLine() ([]byte, error) {
	if len(c.again) > 0 {
		line := c.again[0]
		c.again = c.again[1:]
		c.line++
		return line, nil
	}
	line, err := c.in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, invalid("body", "row_too_long", "has a line of more than "+strconv.Itoa(maxImportRow)+" bytes")
	case err != nil && (len(line) == 0 || !errors.Is(err, io.EOF)):
		return nil, err
	}
	c.line++
	return bytes.Clone(line), nil
}

// read returns the next row that is not empty. errRow and errQuote are about the row returned with them; reading then
// continues after that row's first line.
func (c *csvRows) read() (importRow, error) {
	line, err := c.nextLine()
	for err == nil && len(bytes.TrimRight(line, "\r\n")) == 0 {
		line, err = c.nextLine()
	}
	if err != nil {
		return importRow{}, err
	}
	row, text := importRow{line: c.line}, line
	for bytes.Count(text, []byte{'"'})%2 == 1 { // a quote is open: the row goes on
		if len(row.rest) == maxImportLines || len(text) > maxImportRow {
			return c.reread(row), errQuote
		}
		line, err := c.nextLine()
		if errors.Is(err, io.EOF) {
			return c.reread(row), errQuote
		}
		if err != nil {
			return row, err
		}
		row.rest, text = append(row.rest, line), append(bytes.Clone(text), line...)
	}
	if row.fields, err = c.split(text); err != nil {
		return c.reread(row), errRow
	}
	return row, nil
}

// reread puts back the lines of a row after its first one.
func (c *csvRows) reread(row importRow) importRow {
	c.again = append(row.rest, c.again...)
	c.line -= len(row.rest)
	return row
}

// split splits a row into its cells. A row without quotes needs no CSV parser.
func (c *csvRows) split(text []byte) ([]string, error) {
	if bytes.IndexByte(text, '"') < 0 {
		return strings.Split(strings.TrimRight(string(text), "\r\n"), string(c.comma)), nil
	}
	r := csv.NewReader(bytes.NewReader(text))
	r.Comma, r.FieldsPerRecord = c.comma, -1
	return r.Read()
}

// names reads the first row, which names the columns, and detects the separator by it.
func (c *csvRows) names() (importRow, error) {
	if first, _ := c.in.Peek(maxImportRow); len(first) > 0 {
		first, _, _ = bytes.Cut(first, []byte{'\n'})
		for _, comma := range []rune{';', '\t'} { // spreadsheets in many countries write ';', copied tables have tabs
			if bytes.ContainsRune(first, comma) && !bytes.ContainsRune(first, ',') {
				c.comma = comma
			}
		}
	}
	return c.read()
}
