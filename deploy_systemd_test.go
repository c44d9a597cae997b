package sendgate_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/config"
)

// unit writes the systemd unit with a program that exists, and returns its path.
func unit(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "sendgate.service")
	if err := os.WriteFile(file, []byte(strings.Replace(text(t, "deploy/systemd/sendgate.service"), "/usr/bin/sendgate", self, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func systemdAnalyze(t *testing.T, args ...string) (string, error) {
	t.Helper()
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: systemd's own check of the unit is left out")
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), tool, args...) //nolint:gosec // our own unit
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=cat", "LC_ALL=C")
	err = cmd.Run()
	return out.String(), err
}

func TestSystemdReadsTheUnit(t *testing.T) {
	t.Parallel()
	file := unit(t)
	out, err := systemdAnalyze(t, "verify", "--recursive-errors=no", "--man=no", file)
	for line := range strings.Lines(out) {
		if strings.Contains(line, "sendgate") { // other lines are about units of this machine
			t.Errorf("systemd-analyze verify: %s", strings.TrimSpace(line))
		}
	}
	if err != nil && out == "" {
		t.Errorf("systemd-analyze verify: %v", err)
	}
}

// systemd rates the exposure of a service from 0 to 10. "OK" ends at 4.9; the rest of ours is the network and a root that is shared.
func TestTheUnitIsHardened(t *testing.T) {
	t.Parallel()
	const most = 1.5
	out, err := systemdAnalyze(t, "security", "--offline=true", "--no-pager", unit(t))
	m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("systemd-analyze security: %v\n%s", err, out)
	}
	if level, err := strconv.ParseFloat(m[1], 64); err != nil || level > most {
		t.Errorf("exposure %s, want at most %.1f\n%s", m[1], most, out)
	}
}

// The package's settings start the service as they are, once the files with secrets are there; systemd waits longer than a
// process takes to drain.
func TestTheUnitFitsTheProgram(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var environ []string
	for line := range strings.Lines(text(t, "deploy/systemd/sendgate.env")) {
		line = strings.TrimSpace(line)
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "#"), "=")
		if !ok || !regexp.MustCompile(`^SENDGATE_[A-Z_]+$`).MatchString(name) {
			continue
		}
		if file, isFile := strings.CutPrefix(value, "/etc/sendgate/"); isFile {
			secret, known := map[string]string{
				"database.url": "postgres://sendgate_serve:p@db/sendgate", "secret.key": strings.Repeat("5e", 32), "admin.key": "sg_0123abcd_x",
			}[file]
			if !known {
				t.Errorf("%s names a file that the comment at the top does not make", line)
			}
			value = filepath.Join(dir, file)
			if err := os.WriteFile(value, []byte(secret+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		environ = append(environ, name+"="+value)
	}
	c, err := config.Load(environ)
	if err != nil || c.PublicURL == "" || c.AdminKey.IsZero() {
		t.Errorf("sendgate.env, with what it shows as comments: %v", err)
	}
	m := regexp.MustCompile(`(?m)^TimeoutStopSec=(\d+)$`).FindStringSubmatch(text(t, "deploy/systemd/sendgate.service"))
	if m == nil {
		t.Fatal("the unit has no TimeoutStopSec")
	}
	if seconds, _ := strconv.Atoi(m[1]); time.Duration(seconds)*time.Second <= c.DrainTimeout+5*time.Second {
		t.Errorf("TimeoutStopSec=%s, and a process takes up to %s", m[1], c.DrainTimeout+5*time.Second)
	}
}
