//go:build unix

package app

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Dev takes no keys and no database from a folder that another user owns or could change, and writes nothing there.
func TestDevStaysOutOfFoldersOfOthers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		folder string
		owner  int
		mode   os.FileMode
		says   string
	}{
		"data of another user":       {"", 54321, 0o755, "belongs to user 54321"},
		"data that others may write": {"", 0, 0o777, "chmod go-w"},
		"database of another user":   {"pg", 54321, 0o755, "belongs to user 54321"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := filepath.Join(t.TempDir(), "data")
			if err := os.MkdirAll(filepath.Join(data, c.folder), 0o711); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(data, c.folder), c.mode); err != nil {
				t.Fatal(err)
			}
			if c.owner != 0 {
				if os.Geteuid() != 0 {
					t.Skip("only root can make folders of another user")
				}
				if err := os.Chown(filepath.Join(data, c.folder), c.owner, c.owner); err != nil {
					t.Fatal(err)
				}
			}
			err := Dev(t.Context(), DevOptions{Listen: "127.0.0.1:0", Data: data, Limits: "none", Out: io.Discard})
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "--data") {
				t.Errorf("Dev = %v, want %q and what to do", err, c.says)
			}
			if _, err := os.Stat(filepath.Join(data, "sendgate.log")); err == nil {
				t.Error("it wrote there")
			}
		})
	}
}
