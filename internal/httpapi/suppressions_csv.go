package httpapi

import (
	"context"
	"encoding/csv"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
)

const (
	suppressionBatch = 1000     // rows of one statement
	maxImport        = 64 << 20 // bytes
	maxImportRow     = 64 << 10 // bytes
	maxImportErrors  = 100      // that are told
	importsAtOnce    = 3        // per replica, of one tenant 1
	importBatchTime  = 60 * time.Second
)

// exportColumns is the first line of an export. An import reads what an export wrote.
var exportColumns = []string{"email", "stream", "reason", "origin", "created_at", "expires_at"}

// exportSuppressions streams the tenant's suppressions as CSV (RFC 4180). When it can't go on, it breaks the connection: a
// file that ends early must not look whole.
func (s *Server) exportSuppressions(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(r, "stream", "reason")
	if err != nil {
		return err
	}
	match := q.suppressions(principal(r).Tenant)
	if err := q.err(); err != nil {
		return err
	}
	rows, err := s.store.FindSuppressions(r.Context(), match, mail.Suppression{}, suppressionBatch)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8; header=present")
	w.Header().Set("Content-Disposition", `attachment; filename="suppressions.csv"`)
	out := csv.NewWriter(w)
	out.UseCRLF = true
	err = out.Write(exportColumns)
	for err == nil && len(rows) > 0 {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(importBatchTime))
		for i := range rows {
			err = errors.Join(err, out.Write(csvRow(&rows[i])))
		}
		if err == nil && len(rows) == suppressionBatch {
			rows, err = s.store.FindSuppressions(r.Context(), match, rows[len(rows)-1], suppressionBatch)
			continue
		}
		break
	}
	out.Flush()
	if err = errors.Join(err, out.Error()); err != nil {
		s.log.WarnContext(r.Context(), "export of suppressions broke off", "request_id", requestID(r.Context()), "error", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

func csvRow(x *mail.Suppression) []string {
	expires := ""
	if !x.ExpiresAt.IsZero() {
		expires = x.ExpiresAt.UTC().Format(timeFormat)
	}
	row := []string{x.Email, x.Stream, x.Reason, x.Origin, x.CreatedAt.UTC().Format(timeFormat), expires}
	for i, cell := range row {
		if formula(cell) {
			row[i] = "'" + cell
		}
	}
	return row
}

// formula reports whether a spreadsheet could take the cell for one, or for one that was made safe: then one quote more is
// put before it, so that uncell gives back exactly what was there. In East Asian locales the full-width forms of the signs
// begin one too (OWASP, "CSV Injection").
func formula(cell string) bool {
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(cell, "'"))
	return strings.ContainsRune("=+-@\t\r\n＝＋－＠", first)
}

func uncell(cell string) string {
	if formula(cell) {
		return strings.TrimPrefix(cell, "'")
	}
	return cell
}

// importSuppressions adds the rows of a CSV file whose first line names the columns. It is stored in batches: what was
// stored stays when the file turns out to be broken further on, and the same file can be sent again.
func (s *Server) importSuppressions(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	if err := checkCSV(r); err != nil {
		return err
	}
	place := s.imports.take(holder{tenant: principal(r).Tenant}, 1, stopReading(w))
	if place == nil {
		return &mail.Unavailable{Reason: "busy", RetryAfter: 5 * time.Second}
	}
	defer place.release()
	conn := http.NewResponseController(w)
	in := newCSVImport(http.MaxBytesReader(w, io.NopCloser(paced{place, r.Body}), maxImport), s.clock())
	if err := in.header(); err != nil {
		return importProblem(w, err)
	}
	for more := true; more; {
		_ = conn.SetReadDeadline(time.Now().Add(importBatchTime)) // per batch, not for the whole file
		_ = conn.SetWriteDeadline(time.Now().Add(2 * importBatchTime))
		batch, err := in.batch()
		before := in.result.Added + in.result.Present
		if more = err == nil; err != nil && !errors.Is(err, io.EOF) {
			if err = importProblem(w, err); before > 0 {
				return afterStore(err)
			}
			return err
		}
		if err := s.addBatch(r.Context(), principal(r).Tenant, batch, &in.result); err != nil && before > 0 {
			return afterStore(err)
		} else if err != nil {
			return err
		}
	}
	return writeJSON(w, http.StatusOK, in.result)
}

func (s *Server) addBatch(ctx context.Context, t mail.TenantID, batch []mail.Suppression, result *api.SuppressionImportResult) error {
	if len(batch) == 0 {
		return nil
	}
	added, err := s.store.ImportSuppressions(ctx, t, batch)
	if err != nil {
		return err
	}
	result.Added += added
	result.Present += int64(len(batch)) - added
	return nil
}

func checkCSV(r *http.Request) error {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := params["charset"]
	if err != nil || kind != "text/csv" || charset != "" && !strings.EqualFold(charset, "utf-8") || r.Header.Get("Content-Encoding") != "" {
		e := refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "The body must be text/csv in UTF-8, not compressed.")
		e.header = http.Header{"Accept-Post": {"text/csv"}}
		return e
	}
	if r.ContentLength > maxImport {
		return &http.MaxBytesError{Limit: maxImport}
	}
	return nil
}

// importProblem tells an error of the file from one of the connection.
func importProblem(w http.ResponseWriter, err error) error {
	var own *refusal
	var bad *mail.Invalid
	if errors.As(err, &own) || errors.As(err, &bad) {
		return err
	}
	return readProblem(w, err)
}

// csvImport reads a file row by row. A row that means nothing is counted and skipped.
type csvImport struct {
	rows    *csv.Reader
	bound   *rowBound
	columns map[string]int
	now     time.Time
	result  api.SuppressionImportResult
}

func newCSVImport(r io.Reader, now time.Time) *csvImport {
	bound := &rowBound{r: r}
	rows := csv.NewReader(bound)
	rows.FieldsPerRecord, rows.ReuseRecord = -1, true
	return &csvImport{rows: rows, bound: bound, now: now, result: api.SuppressionImportResult{Errors: []api.SuppressionCSVRow{}}}
}

// rowBound ends a file in which one row is longer than maxImportRow: the reader of rows holds a whole one in memory.
type rowBound struct {
	r    io.Reader
	left int
}

// Read implements io.Reader.
func (b *rowBound) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, invalid("body", "row_too_long", "has a row of more than "+strconv.Itoa(maxImportRow)+" bytes; is a quote missing?")
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (c *csvImport) read() ([]string, error) {
	c.bound.left = maxImportRow
	return c.rows.Read()
}

// header reads the first line. Columns that we do not know are left alone.
func (c *csvImport) header() error {
	names, err := c.read()
	var syntax *csv.ParseError
	switch {
	case errors.Is(err, io.EOF):
		return refuse(http.StatusBadRequest, "empty_body", "The file is empty.")
	case errors.As(err, &syntax):
		return invalid("body", "malformed_csv", "has no line of column names first")
	case err != nil:
		return err
	}
	c.columns = map[string]int{}
	for i, name := range names {
		if i == 0 {
			name = strings.TrimPrefix(name, "\ufeff") // which spreadsheets write
		}
		name = strings.ToLower(strings.TrimSpace(name))
		if _, twice := c.columns[name]; twice && slices.Contains(importColumns, name) {
			return invalid("body", "duplicate_column", "names the column "+name+" twice")
		}
		c.columns[name] = i
	}
	if _, ok := c.columns["email"]; !ok {
		return invalid("body", "missing_column", "must name a column email in its first line")
	}
	return nil
}

// importColumns are those that are read. The origin of what is imported is the import.
var importColumns = []string{"email", "stream", "reason", "detail", "created_at", "expires_at"}

// batch reads the next rows that mean something. At the end it returns those that are left, with io.EOF.
func (c *csvImport) batch() ([]mail.Suppression, error) {
	batch := make([]mail.Suppression, 0, suppressionBatch)
	for len(batch) < suppressionBatch {
		row, err := c.read()
		var syntax *csv.ParseError
		switch {
		case errors.As(err, &syntax):
			c.complain(syntax.StartLine, "is not well-formed CSV")
			continue
		case err != nil:
			return batch, err
		}
		line, _ := c.rows.FieldPos(0)
		x, err := c.suppression(row)
		var bad *mail.Invalid
		switch {
		case errors.As(err, &bad):
			c.complain(line, bad.Error())
		case err != nil:
			return batch, err
		default:
			batch = append(batch, x)
		}
	}
	return batch, nil
}

func (c *csvImport) complain(line int, message string) {
	if c.result.Invalid++; len(c.result.Errors) < maxImportErrors {
		c.result.Errors = append(c.result.Errors, api.SuppressionCSVRow{Line: line, Message: message})
	}
}

func (c *csvImport) suppression(row []string) (mail.Suppression, error) {
	cell := func(name string) string {
		i, ok := c.columns[name]
		if !ok || i >= len(row) {
			return ""
		}
		return uncell(strings.TrimSpace(row[i]))
	}
	in := api.SuppressionRequest{Email: cell("email"), Stream: cell("stream"), Reason: cell("reason"), Detail: cell("detail")}
	expires, err := csvTime("expires_at", cell("expires_at"))
	if err != nil {
		return mail.Suppression{}, err
	}
	in.ExpiresAt = optional(expires)
	x, err := suppressionOf(in, c.now)
	if err != nil {
		return x, err
	}
	x.Origin = "import"
	created, err := csvTime("created_at", cell("created_at"))
	if err == nil && !created.IsZero() && created.Before(c.now) {
		x.CreatedAt = created.UTC()
	}
	return x, err
}

func csvTime(field, v string) (time.Time, error) {
	if v == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, v)
	if err != nil || t.Year() < 1970 || t.Year() > 9998 {
		return time.Time{}, invalid(field, "invalid_time", "must be RFC 3339, such as 2026-01-31T12:00:00Z")
	}
	return t, nil
}
