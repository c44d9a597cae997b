package app

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

func TestDevHasAServerOfItsOwnAndEndsIt(t *testing.T) {
	t.Parallel()
	data := devDir(t)
	stop := startDev(t, DevOptions{Listen: "127.0.0.1:0", Data: data, Limits: "documented"})
	env := devEnv(t, data)
	for _, account := range accountNames() {
		m := becomes(t, env.api, send(t, env.api, pinned(account)), settleTime, "sent", "delivered")
		if len(m.Attempts) != 1 || m.Attempts[0].Account != account || decision(t, m.Attempts[0]).Chosen != account {
			t.Errorf("attempts of the message for %s = %s, decision %s", account, classes(m), m.Attempts[0].Decision)
		}
	}
	if len(serversOf(t, data)) == 0 && runtime.GOOS == "linux" {
		t.Error("no server is found: the test does not know what to look for")
	}
	stop()
	if left := serversOf(t, data); len(left) != 0 {
		t.Errorf("processes left = %v, want none", left)
	}
}

// devDir is a data folder that the server can pass through.
func devDir(t *testing.T) string {
	t.Helper()
	data := filepath.Join(openDir(t), "data")
	if err := os.Mkdir(data, 0o711); err != nil { //nolint:gosec // see openDir
		t.Fatal(err)
	}
	return data
}

// openDir is a temporary directory that other users can pass through, as the one does who runs PostgreSQL for root.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o711); err != nil { //nolint:gosec // see above
			t.Fatal(err)
		}
	}
	return dir
}

func startDev(t *testing.T, o DevOptions) (stop func()) {
	t.Helper()
	out := &readyWriter{ready: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		o.Out = out
		ended <- Dev(ctx, o)
	}()
	select {
	case <-out.ready:
	case err := <-ended:
		cancel()
		t.Fatalf("dev ended: %v", err)
	case <-time.After(2 * time.Minute):
		cancel()
		t.Fatal("dev is not ready")
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("dev ended: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// readyWriter closes a channel when a line begins with "ready".
type readyWriter struct {
	mu    sync.Mutex
	text  []byte
	ready chan struct{}
	done  bool
}

func (w *readyWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, p...)
	if !w.done && (bytes.HasPrefix(w.text, []byte("ready")) || bytes.Contains(w.text, []byte("\nready"))) {
		w.done = true
		close(w.ready)
	}
	return len(p), nil
}

type devSettings struct {
	keys devKeys
	api  *api.Client
}

// devEnv reads dev.env as a shell would, and checks its form.
func devEnv(t *testing.T, data string) devSettings {
	t.Helper()
	path := filepath.Join(data, "dev.env")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode of dev.env = %o, want 600", info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || value == "" || strings.ContainsAny(value, " &;'\"$") {
			t.Errorf("line %s of dev.env does not survive a shell", name)
		}
		vars[name] = value
	}
	for _, name := range []string{
		"SENDGATE_URL", "SENDGATE_API_KEY", "SENDGATE_ADMIN_KEY", "SENDGATE_DATABASE_URL", "SENDGATE_EMULATOR_URL",
	} {
		if vars[name] == "" {
			t.Errorf("dev.env has no %s", name)
		}
	}
	if len(vars) != 5 {
		t.Errorf("dev.env has %d names, want 5", len(vars))
	}
	return devSettings{
		keys: devKeys{api: vars["SENDGATE_API_KEY"], admin: vars["SENDGATE_ADMIN_KEY"]},
		api:  api.NewWith(vars["SENDGATE_URL"], vars["SENDGATE_API_KEY"], newHTTPClient(t)),
	}
}

// serversOf finds the processes whose command line names the data folder, or the place that a private server has
// instead. Where there is no /proc it finds none.
func serversOf(t *testing.T, data string) []string {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range lines {
		text, err := os.ReadFile(path) // a process that has ended is no finding
		if err == nil && bytes.Contains(text, []byte(data)) {
			found = append(found, path+" "+string(bytes.ReplaceAll(text, []byte{0}, []byte{' '})))
		}
	}
	return found
}
