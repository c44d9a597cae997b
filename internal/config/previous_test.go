package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/seal"
)

// Earlier keys in a file open what they sealed, and the present key seals. An error about the file names its
// setting and shows nothing of the keys: the file may be readable by others, or may not be a file of keys.
func TestPreviousKeysComeFromAFile(t *testing.T) {
	t.Parallel()
	one, two := strings.Repeat("1a", seal.KeySize), strings.Repeat("2b", seal.KeySize)
	write := func(mode os.FileMode, text string) string {
		file := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	box := func(settings ...string) *seal.Box {
		t.Helper()
		c, err := Load(append([]string{"SENDGATE_DATABASE_URL=" + testDSN}, settings...))
		if err != nil {
			t.Fatal(err)
		}
		b, err := c.Box()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const place = "account/1/api_key"
	sealed := box("SENDGATE_SECRET_KEY="+one).Seal(seal.NewSecret("s"), place)
	for name, text := range map[string]string{
		"one": one, "a line each": two + "\n" + one + "\n", "lines of Windows": two + "\r\n" + one + "\r\n", "a list": two + "," + one,
	} {
		file := "SENDGATE_SECRET_KEY_PREVIOUS_FILE=" + write(0o600, text)
		ring := box("SENDGATE_SECRET_KEY="+testKey, file)
		if got, err := ring.Open(sealed, place); err != nil || got.Reveal() != "s" {
			t.Errorf("%s: what an earlier key sealed does not open: %v", name, err)
		}
		if _, err := box("SENDGATE_SECRET_KEY="+testKey).Open(ring.Seal(seal.NewSecret("t"), place), place); err != nil {
			t.Errorf("%s: the present key does not open what is sealed now: %v", name, err)
		}
		if _, err := box("SENDGATE_SECRET_KEY="+testKey).Open(sealed, place); err == nil {
			t.Errorf("%s: opens without the earlier key", name)
		}
	}
	for name, settings := range map[string][]string{
		"others may read":     {"SENDGATE_SECRET_KEY_PREVIOUS_FILE=" + write(0o604, one)},
		"missing":             {"SENDGATE_SECRET_KEY_PREVIOUS_FILE=/nonexistent/keys"},
		"a folder":            {"SENDGATE_SECRET_KEY_PREVIOUS_FILE=" + t.TempDir()},
		"no key":              {"SENDGATE_SECRET_KEY_PREVIOUS_FILE=" + write(0o600, one[:40])},
		"five keys":           {"SENDGATE_SECRET_KEY_PREVIOUS_FILE=" + write(0o600, strings.Repeat(one+"\n", 5))},
		"more than any keys":  {"SENDGATE_SECRET_KEY_PREVIOUS_FILE=" + write(0o600, one+strings.Repeat("\n", 4096))},
		"beside the variable": {"SENDGATE_SECRET_KEY_PREVIOUS_FILE=" + write(0o600, one), "SENDGATE_SECRET_KEY_PREVIOUS=" + two},
	} {
		_, err := Load(base(settings...))
		if err == nil || !strings.Contains(err.Error(), "SENDGATE_SECRET_KEY_PREVIOUS_FILE") || strings.Contains(err.Error(), one[:40]) || strings.Contains(err.Error(), two) {
			t.Errorf("%s: %v, want an error that names the setting and no key", name, err)
		}
	}
}
