//go:build drill

package app

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

// TestGeneratedClientsSendAMail generates a client from the contract with oapi-codegen and one with ogen, and sends a mail
// with each in a small program. The generators and their dependencies are only in testdata/clients/go.mod.
func TestGeneratedClientsSendAMail(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/clients")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "openapi.yaml"), api.OpenAPI(), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := tool(ctx, dir, "mod", "download").CombinedOutput(); err != nil {
		t.Skipf("the generators' modules are not here, and can't be had: %s", strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "; "))
	}
	b := newBench(t, benchOptions{})
	r := b.start(t)
	for name, generate := range map[string][]string{
		"oapi": {"tool", "oapi-codegen", "-generate", "types,client", "-package", "gen", "-o", "oapi/gen/gen.go", "openapi.yaml"},
		"ogen": {"tool", "ogen", "--package", "gen", "--target", "ogen/gen", "--clean", "openapi.yaml"},
	} {
		if err := os.MkdirAll(filepath.Join(dir, name, "gen"), 0o750); err != nil {
			t.Fatal(err)
		}
		if out, err := tool(ctx, dir, generate...).CombinedOutput(); err != nil {
			t.Errorf("%s makes no client of the contract: %v\n%s", name, err, out)
			continue
		}
		run := tool(ctx, dir, "run", "./"+name)
		run.Env = append(run.Environ(), "SENDGATE_URL="+r.url, "SENDGATE_API_KEY="+b.keys.api)
		out, err := run.CombinedOutput()
		if err != nil {
			t.Errorf("the client of %s: %v\n%s", name, err, out)
			continue
		}
		id, rest, _ := strings.Cut(string(out), " ")
		if m := message(t, r.api, id); m.Subject != "Your order" || !strings.HasSuffix(rest, " 1 It is on its way.\n") || len(b.ledger()[id]) != 1 {
			t.Errorf("the client of %s read %q back of %+v", name, out, m)
		}
	}
}

// tool runs the go command on the module of the clients.
func tool(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off")
	return cmd
}
