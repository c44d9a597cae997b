//go:build drill

package drill

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seedFlag = flag.Uint64("seed", 0, "of everything that is random; 0 picks one")
	duration = flag.Duration("duration", 6*time.Second, "how long a fault is on, or is repeated")
	rate     = flag.Int("rate", 120, "messages a second that the clients send")
	strict   = flag.Bool("strict", false, "a figure beyond its bound fails the drill")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *seedFlag == 0 {
		*seedFlag = uint64(time.Now().UnixNano()) % 1_000_000 //nolint:gosec // a number to repeat a run with
	}
	code := m.Run()
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir)
	}
	printTable()
	os.Exit(code)
}

// binaryDir holds the built program, once a drill asked for it.
var binaryDir string

// binary builds the program, once for all drills.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sendgate-drill-")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	path := filepath.Join(dir, "sendgate")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/sendgate/sendgate/cmd/sendgate").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w: %s", err, out)
	}
	return path, nil
})

// table collects the last line of each drill.
var table struct {
	mu    sync.Mutex
	lines []string
}

func enterTable(line string) {
	table.mu.Lock()
	defer table.mu.Unlock()
	table.lines = append(table.lines, line)
}

func printTable() {
	table.mu.Lock()
	defer table.mu.Unlock()
	if len(table.lines) == 0 {
		return
	}
	slices.Sort(table.lines)
	passed := 0
	for _, l := range table.lines {
		if strings.HasSuffix(l, " PASS") {
			passed++
		}
	}
	_, _ = fmt.Fprintf(os.Stdout, "\n%s\ndrills: %d of %d passed\n", strings.Join(table.lines, "\n"), passed, len(table.lines))
}

// random is the source of chance of one part of a drill: the same for the same seed.
func random(part string) *rand.Rand {
	var salt [32]byte
	copy(salt[:], fmt.Sprintf("%d %s", *seedFlag, part))
	return rand.New(rand.NewChaCha8(salt))
}

// eventually polls until the condition holds and reports whether it did within the time given.
func eventually(t *testing.T, within time.Duration, holds func() bool) bool {
	t.Helper()
	deadline := time.Now().Add(within)
	for !holds() {
		if time.Now().After(deadline) || t.Context().Err() != nil {
			return false
		}
		pause(t, 25*time.Millisecond)
	}
	return true
}

// must is eventually for what a drill cannot go on without.
func must(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	if !eventually(t, within, holds) {
		t.Fatalf("not within %s: %s", within, what)
	}
}

// pause lets time pass while a fault is on.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}
