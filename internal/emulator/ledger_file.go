package emulator

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// openLedgerFile opens or creates the file, reads its entries and cuts off an incomplete last line.
func openLedgerFile(path string) (*os.File, []Entry, int64, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("open ledger: %w", err)
	}
	entries, size, err := readLedger(f)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Sync(), syncDir(filepath.Dir(path)))
	}
	if err != nil {
		return nil, nil, 0, errors.Join(fmt.Errorf("read ledger %s: %w", path, err), f.Close())
	}
	return f, entries, size, nil
}

// syncDir makes the file's name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readLedger returns the entries and the length of the valid part. Only the end may be damaged, because a crash interrupted a
// write. A valid line after an invalid one means that another program wrote to the file; then nothing is cut.
func readLedger(r io.Reader) ([]Entry, int64, error) {
	var entries []Entry
	var good int64
	br := bufio.NewReaderSize(r, 1<<20)
	bad := 0
	for n := 1; ; n++ {
		line, err := br.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return entries, good, nil
		}
		if err != nil {
			return nil, 0, err
		}
		var e Entry
		if json.Unmarshal(bytes.TrimSpace(line), &e) != nil || e.Provider == "" {
			if bad == 0 {
				bad = n
			}
			continue
		}
		if bad != 0 {
			return nil, 0, fmt.Errorf("line %d is not an entry, but line %d is", bad, n)
		}
		entries = append(entries, e)
		good += int64(len(line))
	}
}
