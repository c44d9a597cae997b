package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"
)

type suppressImportCmd struct {
	File   string `arg:"" help:"CSV file whose first line names the columns; \"-\" reads standard input."`
	Reason string `help:"Reason for rows without one: manual, hard_bounce, soft_bounce, complaint or unsubscribe; \"manual\" when absent."`
	format
}

// Help implements kong.HelpProvider.
func (*suppressImportCmd) Help() string {
	return `Takes files of suppressions export, and the exports of SendGrid, Mailgun, Postmark and SES as they are, with commas, semicolons or tabs, of at most 64 MiB. ` +
		`Only the column email (or address) is required; stream, reason, detail, created_at and expires_at are optional. Rows that can't be read are listed ` +
		`and skipped, and the exit code is then 1. It can be repeated: addresses that are suppressed already stay as they are.

Examples:

  sendgate suppressions import bounces.csv
  sendgate suppressions import mailgun-complaints.csv --reason complaint
  cut -d, -f2 export.csv | sendgate suppressions import -`
}

// Run implements the command.
func (c *suppressImportCmd) Run(ctx context.Context, s *Streams, client mailClient) error {
	in, size, err := c.open(s)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	r := &countingReader{r: in}
	p := startProgress(s.Err, func(time.Duration) string { return "read " + sizeText(r.n.Load()) + size })
	result, err := client.ImportSuppressions(ctx, r, c.Reason)
	p.stop()
	if err != nil {
		return err
	}
	err = c.show(s, result, func(w io.Writer) {
		row(w, "added", count(result.Added))
		row(w, "already there", count(result.Present))
		row(w, "skipped", count(result.Invalid))
		for _, e := range result.Errors {
			row(w, "line "+strconv.Itoa(e.Line), e.Message)
		}
	})
	if err == nil && result.Invalid > 0 {
		return fmt.Errorf("rows skipped: %d; correct them and import the file again", result.Invalid)
	}
	return err
}

// open returns the file, and its size as " of 3.1 MB" if that is known.
func (c *suppressImportCmd) open(s *Streams) (in io.ReadCloser, size string, err error) {
	if c.File == "-" {
		return io.NopCloser(s.In), "", nil
	}
	f, err := os.Open(s.path(c.File))
	if err != nil {
		return nil, "", fmt.Errorf("read suppressions: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		size = " of " + sizeText(info.Size())
	}
	return f, size, nil
}

// countingReader counts the bytes read from r. Other goroutines may load n meanwhile.
type countingReader struct {
	r io.Reader
	n atomic.Int64
}

// Read implements io.Reader.
func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// countingWriter counts the bytes written to w. Other goroutines may load n meanwhile.
type countingWriter struct {
	w io.Writer
	n atomic.Int64
}

// Write implements io.Writer.
func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// sizeText returns a size such as "512 bytes", "3.1 kB" or "12.4 MB".
func sizeText(n int64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	default:
		return fmt.Sprintf("%d bytes", n)
	}
}

type suppressExportCmd struct {
	File string `arg:"" optional:"" default:"-" help:"File to write; it is replaced only when the export is complete. \"-\" is standard output."`
	format
}

// Help implements kong.HelpProvider.
func (*suppressExportCmd) Help() string {
	return `The file can be imported again. --json prints the name and the size of the file, so it needs a FILE.

Examples:

  sendgate suppressions export suppressions.csv
  sendgate suppressions export | wc -l`
}

// exported is what the export command prints about its file.
type exported struct {
	File  string `json:"file"`
	Bytes int64  `json:"bytes"`
}

// Run implements the command.
func (c *suppressExportCmd) Run(ctx context.Context, s *Streams) error {
	if c.File == "-" && c.JSON {
		return usagef("--json describes the written file, but the export goes to standard output: give a FILE (see sendgate suppressions export --help)")
	}
	client, err := s.caller()
	if err != nil {
		return err
	}
	if c.File == "-" {
		_, err := export(ctx, s, client, s.Out)
		return err
	}
	n, err := replaceFile(s.path(c.File), func(w io.Writer) (int64, error) { return export(ctx, s, client, w) })
	if err != nil {
		return err
	}
	return c.show(s, exported{c.File, n}, func(w io.Writer) { row(w, "written", c.File, sizeText(n)) })
}

// export writes the CSV to to, shows its progress on standard error, and returns the number of bytes.
func export(ctx context.Context, s *Streams, client mailClient, to io.Writer) (int64, error) {
	w := &countingWriter{w: to}
	p := startProgress(s.Err, func(time.Duration) string { return "written " + sizeText(w.n.Load()) })
	defer p.stop()
	err := client.ExportSuppressions(ctx, w)
	return w.n.Load(), err
}

// replaceFile writes a file beside path and renames it to path once it is complete. Only its owner can read it, since it
// contains addresses.
func replaceFile(path string, write func(io.Writer) (int64, error)) (n int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.part")
	if err != nil {
		return 0, fmt.Errorf("write suppressions: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	n, err = write(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return n, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return n, fmt.Errorf("write suppressions: %w", err)
	}
	return n, nil
}
