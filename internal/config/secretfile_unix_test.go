//go:build unix

package config

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWhoMayReadASecret(t *testing.T) {
	t.Parallel()
	for mode, want := range map[fs.FileMode][2]bool{ // exposed when a user owns it, when root does
		0o600: {false, false}, 0o400: {false, false}, 0o700: {false, false},
		0o640: {true, false}, 0o440: {true, false},
		0o660: {true, true}, 0o620: {true, true}, 0o610: {true, true}, 0o644: {true, true}, 0o444: {true, true}, 0o602: {true, true},
		0o601: {true, true}, 0o777: {true, true},
	} {
		if got := [2]bool{exposed(mode, false), exposed(mode, true)}; got != want {
			t.Errorf("mode %#o: exposed = %v, want %v", mode, got, want)
		}
	}
}

const (
	asUser  = "SENDGATETEST_SECRET_FILES" // the folder of the mount that a process of another user reads
	fsGroup = 31337
	podUser = 65532
)

// As Kubernetes mounts a secret: the name is a link to a file in ..data, which is a link to a folder with the time in its name.
func mount(t *testing.T, dir, name string, mode os.FileMode, uid, gid int) {
	t.Helper()
	version := filepath.Join(dir, name, "..2026_01_31_12_00_00.123")
	if err := os.MkdirAll(version, 0o755); err != nil { //nolint:gosec // as it is there
		t.Fatal(err)
	}
	file := filepath.Join(version, "key")
	if err := os.WriteFile(file, []byte(testKey), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Chown(file, uid, gid), os.Chmod(file, mode),
		os.Symlink(filepath.Base(version), filepath.Join(dir, name, "..data")),
		os.Symlink("..data/key", filepath.Join(dir, name, "key")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestASecretIsReadAsKubernetesMountsIt(t *testing.T) {
	if dir := os.Getenv(asUser); dir != "" {
		readMounted(t, dir)
		return
	}
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make files of root and to read them as another user")
	}
	dir, err := os.MkdirTemp("", "sendgate-secrets-") // the folders of t.TempDir are closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // see above
		t.Fatal(err)
	}
	for name, f := range mounts() {
		mount(t, dir, name, f.mode, f.uid, f.gid)
	}
	program := filepath.Join(dir, "test")
	self, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(program, self, 0o755) //nolint:gosec // another user runs it
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestASecretIsReadAsKubernetesMountsIt$", "-test.v")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), asUser+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: podUser, Gid: podUser, Groups: []uint32{fsGroup}}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "read all") {
		t.Errorf("as user %d: %v\n%s", podUser, err, out)
	}
}

type mounted struct {
	mode     os.FileMode
	uid, gid int
	want     []string // in the error; none for good
}

func mounts() map[string]mounted {
	both := []string{"chmod 600", "mode 0440", "fsGroup"}
	return map[string]mounted{
		"fsGroup, defaultMode 0440":  {0o440, 0, fsGroup, nil},
		"fsGroup, defaultMode 0640":  {0o640, 0, fsGroup, nil},
		"of the user":                {0o400, podUser, podUser, nil},
		"the default, 0644":          {0o644, 0, fsGroup, both},
		"a Docker secret, 0444":      {0o444, 0, 0, both},
		"the group may write":        {0o660, 0, fsGroup, both},
		"of the user, for its group": {0o440, podUser, fsGroup, both},
		"without fsGroup":            {0o440, 0, 0, []string{"permission denied", "user 65532", "fsGroup"}},
		"for root only":              {0o400, 0, fsGroup, []string{"permission denied", "fsGroup"}},
	}
}

// readMounted runs as the user of the pod.
func readMounted(t *testing.T, dir string) {
	t.Helper()
	for name, f := range mounts() {
		file := filepath.Join(dir, name, "key")
		for _, setting := range []string{"SENDGATE_SECRET_KEY_FILE", "SENDGATE_TLS_KEY_FILE"} {
			environ := []string{"SENDGATE_DATABASE_URL=" + testDSN, setting + "=" + file}
			if setting == "SENDGATE_TLS_KEY_FILE" {
				environ = append(environ, "SENDGATE_SECRET_KEY="+testKey, "SENDGATE_TLS_CERT_FILE="+filepath.Join(dir, "test"))
			}
			_, err := Load(environ)
			if f.want == nil && err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for _, want := range f.want {
				if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), setting) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: %v, want one line with %s and %q", name, err, setting, want)
				}
			}
		}
	}
	t.Log("read all")
}
