//go:build drill

package app

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
)

func TestDevKeepsItsDataOverStopsAndKills(t *testing.T) {
	t.Parallel()
	data := devDir(t)
	first := spawnDev(t, data)
	env := devEnv(t, data)
	var ids []string
	for _, account := range accountNames() {
		ids = append(ids, becomes(t, env.api, send(t, env.api, pinned(account)), settleTime, "sent", "delivered").ID)
	}
	first.kill()

	second := spawnDev(t, data)
	again := devEnv(t, data)
	if again.keys != env.keys {
		t.Error("the second start has other keys")
	}
	checkKept(t, again.api, ids)
	ids = append(ids, becomes(t, again.api, send(t, again.api, letter(1)), settleTime, "sent", "delivered").ID)
	second.terminate(t)
	second.exits(t, 30*time.Second)

	third := spawnDev(t, data)
	checkKept(t, devEnv(t, data).api, ids)
	ledger, err := os.ReadFile(filepath.Join(data, "ledger.jsonl"))
	if got := bytes.Count(ledger, []byte{'\n'}); err != nil || got != len(ids) {
		t.Errorf("ledger lines after a kill and a stop = %d, want %d", got, len(ids))
	}
	third.terminate(t)
	third.exits(t, 30*time.Second)
	if left := serversOf(t, data); len(left) != 0 {
		t.Errorf("processes left = %v, want none", left)
	}
}

// spawnDev runs "sendgate dev" in a process of its own and returns when it says that it is ready.
func spawnDev(t *testing.T, data string) *process {
	t.Helper()
	ready := make(chan struct{})
	p := spawn(t, nil, []string{"dev", "--listen", "127.0.0.1:0", "--data", data}, func(out, errs io.Reader, log io.Writer) {
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(log, errs) })
		lines := bufio.NewScanner(out)
		said := false
		for lines.Scan() {
			_, _ = log.Write(append(lines.Bytes(), '\n'))
			if !said && strings.HasPrefix(lines.Text(), "ready") {
				said = true
				close(ready)
			}
		}
		wg.Wait()
	})
	select {
	case <-ready:
	case <-p.done:
		t.Fatalf("dev exited: %v\n%s", p.err, p.log)
	case <-time.After(2 * time.Minute):
		t.Fatalf("dev is not ready\n%s", p.log)
	}
	return p
}

func TestDevUsesADatabaseOfTheUsers(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	o := DevOptions{Listen: "127.0.0.1:0", Data: data, Limits: "none", DatabaseURL: pgtest.NewURL(t)}
	stop := startDev(t, o)
	id := send(t, devEnv(t, data).api, letter(1))
	becomes(t, devEnv(t, data).api, id, settleTime, "sent", "delivered")
	stop()
	stop = startDev(t, o) // dev.env names that database now
	checkKept(t, devEnv(t, data).api, []string{id})
	stop()
	if _, err := os.Stat(filepath.Join(data, "pg")); !os.IsNotExist(err) {
		t.Errorf("a private server was set up beside the user's: %v", err)
	}
}

// checkKept checks that sent messages are still there.
func checkKept(t *testing.T, c *api.Client, ids []string) {
	t.Helper()
	for _, id := range ids {
		if got := message(t, c, id).Status; got != "sent" && got != "delivered" {
			t.Errorf("message %s after a restart = %s, want sent or delivered", id, got)
		}
	}
}
