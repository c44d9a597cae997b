//go:build mutants

package drill

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	onlyMutant = flag.String("mutant", "", "the one to try, M07; all without it")
	soundFirst = flag.Bool("sound", true, "see first that each test passes without its bug; false where all tests have just passed")
)

// verdict is the result for a mutant, or for the sound program before it.
type verdict string

const (
	killed   verdict = "killed"
	survived verdict = "SURVIVED" // the test passed
	unfit    verdict = "UNFIT"    // the mutant does not build, or the test did not run
)

// TestMutants seeds each bug, by an overlay of the go command, and runs the test that has to fail for it. First the test
// has to pass without it. The sources are never touched.
func TestMutants(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	all := slices.Concat(storeMutants(), otherMutants(), doubtMutants())
	slices.SortFunc(all, func(a, b mutant) int { return strings.Compare(a.id, b.id) })
	dead, tried := 0, 0
	for i, m := range all {
		if *onlyMutant != "" && m.id != *onlyMutant || !chosen(i) {
			continue
		}
		tried++
		began := time.Now()
		v, detail := m.try(t, root)
		say("%s  %-9s %5.1f s  %-55s %s %s\n", m.id, v, time.Since(began).Seconds(), m.what, m.pkg, m.test)
		if v == killed {
			dead++
			continue
		}
		t.Errorf("%s, %s: %s\n%s", m.id, m.what, v, detail)
	}
	say("mutants: %d of %d killed\n", dead, tried)
	if tried == 0 {
		t.Errorf("no mutant %q in part %d of %d", *onlyMutant, *part, *parts)
	}
}

// say shows progress as it is made.
func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stdout, format, args...) }

func (m mutant) try(t *testing.T, root string) (v verdict, detail string) {
	t.Helper()
	if *soundFirst {
		if v, out := m.run(t, root, ""); v != survived {
			return unfit, "without the mutant the test does not pass:\n" + out
		}
	}
	return m.run(t, root, "GOFLAGS=-overlay="+m.overlay(t, root)) // so that a program which the test builds has it too
}

// run runs the test and reads the result from its output, because a failed build does not count as a failed test.
func (m mutant) run(t *testing.T, root, setting string) (v verdict, out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-vet=off", "-count=1", "-v", "-run", "^("+strings.ReplaceAll(m.test, "|", "|^")+")", "./"+m.pkg) //nolint:gosec // our own tests
	cmd.Dir = root
	if setting != "" {
		cmd.Env = append(os.Environ(), setting)
	}
	cmd.WaitDelay = 10 * time.Second
	text, err := cmd.CombinedOutput()
	switch {
	case bytes.Contains(text, []byte("--- FAIL: Test")):
		return killed, tailOf(text)
	case err == nil && bytes.Contains(text, []byte("--- PASS: Test")):
		return survived, tailOf(text)
	}
	return unfit, tailOf(text)
}

func tailOf(text []byte) string { return string(text[max(0, len(text)-3000):]) }

// overlay writes the edited files, and the JSON file that makes the go command read them instead.
func (m mutant) overlay(t *testing.T, root string) (path string) {
	t.Helper()
	dir := t.TempDir()
	edited := map[string]string{}
	for _, e := range m.edits {
		file := filepath.Join(root, e.file)
		text, ok := edited[file]
		if !ok {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text = string(raw)
		}
		if n := strings.Count(text, e.old); n != 1 {
			t.Fatalf("%s: %q stands %d times in %s, want once: the mutant is out of date", m.id, e.old, n, e.file)
		}
		edited[file] = strings.Replace(text, e.old, e.new, 1)
	}
	replace := map[string]string{}
	for file, text := range edited {
		to := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[file] = to
	}
	note, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, note, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
