package httpapi

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

const (
	suppressionBatch = 1000     // rows of one statement
	maxImport        = 64 << 20 // bytes
	maxImportErrors  = 100      // that the answer lists
	importsAtOnce    = 3        // per replica; one tenant gets 1
	importBatchTime  = 60 * time.Second
)

// exportColumns is the first line of an export. An import reads what an export wrote.
var exportColumns = []string{"email", "stream", "reason", "origin", "created_at", "expires_at"}

// exportSuppressions streams the tenant's suppressions as CSV (RFC 4180). When it fails half-way, it breaks the connection, so
// that a file that ends early does not look complete.
func (s *Server) exportSuppressions(w http.ResponseWriter, r *http.Request) error {
	q := readQuery(r, "stream", "reason")
	match := q.suppressions(principal(r).Tenant)
	if err := q.err(); err != nil {
		return err
	}
	rows, err := s.store.FindSuppressions(r.Context(), match, record.Suppression{}, suppressionBatch)
	if err != nil {
		return err
	}
	detail := map[string]any{"tenant": match.Tenant, "stream": match.Stream, "reason": match.Reason}
	if err := s.store.Note(r.Context(), principal(r).ID, "suppression.export", "", detail); err != nil {
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

// csvRow returns a row of the export. A quote before a cell keeps spreadsheets from running it as a formula.
func csvRow(x *record.Suppression) []string {
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

// formula reports whether a spreadsheet could take the cell for a formula. Quotes before it do not count: a cell that already
// has one gets one more, so that uncell restores exactly what was there. In East Asian locales the full-width forms of the
// signs begin a formula too (OWASP, "CSV Injection").
func formula(cell string) bool {
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(cell, "'"))
	return strings.ContainsRune("=+-@\t\r\n＝＋－＠", first)
}

// uncell removes the quote that csvRow put before a formula.
func uncell(cell string) string {
	if formula(cell) {
		return strings.TrimPrefix(cell, "'")
	}
	return cell
}

// importSuppressions adds the rows of a CSV file whose first line names the columns. It stores them in batches. If the file
// turns out to be broken further on, the stored rows stay, and the same file can be sent again.
func (s *Server) importSuppressions(w http.ResponseWriter, r *http.Request) error {
	q := readQuery(r, "reason")
	reason := q.suppressions(principal(r).Tenant).Reason
	if err := q.err(); err != nil {
		return err
	}
	if err := checkCSV(r); err != nil {
		return err
	}
	place := s.imports.take(holder{tenant: principal(r).Tenant}, 1, stopReading(w))
	if place == nil {
		return &record.Unavailable{Reason: "busy", RetryAfter: 5 * time.Second}
	}
	defer place.release()
	conn := http.NewResponseController(w)
	in := newCSVImport(http.MaxBytesReader(w, io.NopCloser(paced{place, r.Body}), maxImport), reason, s.clock())
	if err := in.header(); err != nil {
		return readProblem(w, err)
	}
	for more := true; more; {
		_ = conn.SetReadDeadline(time.Now().Add(importBatchTime)) // per batch, not for the whole file
		_ = conn.SetWriteDeadline(time.Now().Add(2 * importBatchTime))
		batch, err := in.batch()
		before := in.result.Added + in.result.Present
		if more = err == nil; err != nil && !errors.Is(err, io.EOF) {
			if err = readProblem(w, err); before > 0 {
				return afterStore(err)
			}
			return err
		}
		if err := s.addBatch(r.Context(), principal(r), batch, &in.result); err != nil && before > 0 {
			return afterStore(err)
		} else if err != nil {
			return err
		}
	}
	return writeJSON(w, http.StatusOK, in.result)
}

func (s *Server) addBatch(ctx context.Context, key *record.Key, batch []record.Suppression, result *api.SuppressionImportResult) error {
	if len(batch) == 0 {
		return nil
	}
	batch[0].By = key.ID
	added, err := s.store.ImportSuppressions(ctx, key.Tenant, batch)
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
		return unsupportedType("text/csv", "The body must be text/csv in UTF-8, not compressed.")
	}
	if r.ContentLength > maxImport {
		return &http.MaxBytesError{Limit: maxImport}
	}
	return nil
}

// csvImport reads a file row by row. An invalid row is counted and skipped.
type csvImport struct {
	rows    *csvRows
	columns map[string]int // index of each column, by our name
	reason  string         // of rows that give none
	now     time.Time
	result  api.SuppressionImportResult
}

func newCSVImport(r io.Reader, reason string, now time.Time) *csvImport {
	return &csvImport{rows: newCSVRows(r), reason: reason, now: now, result: api.SuppressionImportResult{Errors: []api.SuppressionCSVRow{}}}
}

// header reads the first line. Unknown columns are ignored.
func (c *csvImport) header() error {
	row, err := c.rows.names()
	switch {
	case errors.Is(err, io.EOF):
		return refuse(http.StatusBadRequest, "empty_body", "The file is empty.")
	case errors.Is(err, errRow), errors.Is(err, errQuote):
		return invalid("body", "malformed_csv", "has no line of column names first")
	case err != nil:
		return err
	}
	seen := map[string]int{}
	for i, name := range row.fields {
		if i == 0 {
			name = strings.TrimPrefix(name, "\ufeff") // spreadsheets write a byte order mark
		}
		name = plainName(name)
		if _, twice := seen[name]; twice && known(name) {
			return invalid("body", "duplicate_column", "names the column "+name+" twice")
		}
		seen[name] = i
	}
	c.columns = map[string]int{}
	for ours, names := range aliases {
		for _, name := range slices.Backward(names) {
			if i, ok := seen[name]; ok {
				c.columns[ours] = i
			}
		}
	}
	if _, ok := c.columns["email"]; !ok {
		return invalid("body", "missing_column", "must name a column email, or address, in its first line")
	}
	return nil
}

// known reports whether a column of that name is read.
func known(name string) bool {
	for _, names := range aliases {
		if slices.Contains(names, name) {
			return true
		}
	}
	return false
}

// batch reads the next valid rows. At the end of the file it returns the last ones with io.EOF.
func (c *csvImport) batch() ([]record.Suppression, error) {
	batch := make([]record.Suppression, 0, suppressionBatch)
	for len(batch) < suppressionBatch {
		row, err := c.rows.read()
		if errors.Is(err, errRow) || errors.Is(err, errQuote) {
			c.complain(row.line, err.Error())
			continue
		}
		if err != nil {
			return batch, err
		}
		x, err := c.suppression(row.fields)
		var bad *mail.Invalid
		switch {
		case errors.As(err, &bad) && len(row.rest) > 0: // a quote of another row may have closed its quote
			c.rows.reread(row)
			c.complain(row.line, errQuote.Error()+", or: "+bad.Error())
		case errors.As(err, &bad):
			c.complain(row.line, bad.Error())
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

// suppression turns a row into a suppression. An invalid row is a *mail.Invalid.
func (c *csvImport) suppression(row []string) (record.Suppression, error) {
	cell := func(name string) string {
		i, ok := c.columns[name]
		if !ok || i >= len(row) {
			return ""
		}
		return uncell(strings.TrimSpace(row[i]))
	}
	reason, said := readReason(cell("reason"))
	in := api.SuppressionRequest{Email: cell("email"), Stream: cell("stream"), Reason: reason, Detail: cmp.Or(cell("detail"), said)}
	if status := cell("status"); passes.MatchString(status) || status == "" && passes.MatchString(said) {
		return record.Suppression{}, invalid("status", "temporary", "is of a failure that passes, for which nobody is suppressed")
	} else if status != "" && in.Reason == "" {
		in.Reason = "hard_bounce"
	}
	in.Reason = cmp.Or(in.Reason, c.reason)
	if _, foreign := c.columns["status"]; foreign || said != "" {
		in.Detail = shortened(in.Detail)
	}
	if expires := cell("expires_at"); expires != "" {
		t, err := parseTime(expires)
		if err != nil {
			return record.Suppression{}, invalid("expires_at", "invalid_time", err.Error())
		}
		in.ExpiresAt = &t
	}
	x, err := suppressionOf(in, c.now)
	if err != nil {
		return x, err
	}
	x.Origin = "import"
	created, err := readCreated(cell("created_at"))
	if err == nil && !created.IsZero() && created.Before(c.now) {
		x.CreatedAt = created.UTC()
	}
	return x, err
}
