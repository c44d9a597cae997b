//go:build drill

package sendgate_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

const goreleaser = "github.com/goreleaser/goreleaser/v2@v2.15.1"

// command runs a program in the module's folder.
func command(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // of this test
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestTheReleaseCanBeBuilt builds what a release has for this machine, and installs its Debian package.
func TestTheReleaseCanBeBuilt(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(".git"); err != nil {
		t.Skip("not a checkout of git: GoReleaser takes the version from it")
	}
	bin := t.TempDir()
	if out, err := command(t, []string{"GOBIN=" + bin}, "go", "install", goreleaser); err != nil {
		t.Skipf("GoReleaser can't be had: %s", strings.ReplaceAll(strings.TrimSpace(out), "\n", "; "))
	}
	tool := filepath.Join(bin, "goreleaser")
	if out, err := command(t, nil, tool, "check"); err != nil {
		t.Fatalf("goreleaser check: %v\n%s", err, out)
	}
	if runtime.GOOS != "linux" {
		return
	}
	dist := filepath.Join(t.TempDir(), "dist")
	conf := filepath.Join(t.TempDir(), "goreleaser.yaml")
	here := strings.NewReplacer("goos: [linux, darwin]", "goos: [linux]", "goarch: [amd64, arm64]", "goarch: ["+runtime.GOARCH+"]")
	if err := os.WriteFile(conf, []byte(here.Replace(text(t, ".goreleaser.yaml"))+"\ndist: "+dist+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, nil, tool, "release", "--snapshot", "--config", conf); err != nil {
		t.Fatalf("goreleaser release: %v\n%s", err, out)
	}
	packages, err := filepath.Glob(dist + "/*.deb")
	if err != nil || len(packages) != 1 {
		t.Fatalf("packages = %v, %v", packages, err)
	}
	archives, err := filepath.Glob(dist + "/*.tar.gz")
	if err != nil || len(archives) != 1 {
		t.Fatalf("archives = %v, %v", archives, err)
	}
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("dpkg-deb is not installed: the content of the package is not looked at")
	}
	checkPackage(t, packages[0])
	installPackage(t, packages[0])
}

func checkPackage(t *testing.T, deb string) {
	t.Helper()
	listed, err := command(t, nil, "dpkg-deb", "--contents", deb)
	if err != nil {
		t.Fatalf("%v\n%s", err, listed)
	}
	for path, mode := range map[string]string{
		"/usr/bin/sendgate": "-rwxr-xr-x root/root", "/usr/lib/systemd/system/sendgate.service": "-rw-r--r-- root/root",
		"/usr/lib/sysusers.d/sendgate.conf": "-rw-r--r-- root/root", "/etc/sendgate/sendgate.env": "-rw------- root/root",
		"/usr/share/sendgate/roles.sql": "-rw-r--r-- root/root", "/usr/share/doc/sendgate/copyright": "-rw-r--r-- root/root",
		"/usr/share/doc/sendgate/docs/deploy.md": "-rw-r--r-- root/root",
	} {
		found := false
		for line := range strings.Lines(listed) {
			line = strings.TrimSpace(line)
			found = found || strings.HasPrefix(line, mode+" ") && strings.HasSuffix(line, " ."+path)
		}
		if !found {
			t.Errorf("the package has no %s of %s:\n%s", path, mode, listed)
		}
	}
	dir := t.TempDir()
	if out, err := command(t, nil, "dpkg-deb", "--raw-extract", deb, dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if conf := text(t, filepath.Join(dir, "DEBIAN/conffiles")); strings.TrimSpace(conf) != "/etc/sendgate/sendgate.env" {
		t.Errorf("conffiles = %q", conf)
	}
	git, err := os.Stat(".git")
	stamped := err == nil && git.IsDir() // the go command finds no commit in a linked work tree
	if out, err := command(t, nil, filepath.Join(dir, "usr/bin/sendgate"), "version"); err != nil || strings.Contains(out, "commit") != stamped {
		t.Errorf("the program of the package: %v\n%s", err, out)
	}
}

// installPackage installs, removes and purges the package on a copy of this machine that nobody else sees: an overlay over its
// root, in mounts of its own.
func installPackage(t *testing.T, deb string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to install the package on a copy of this machine")
	}
	if _, err := exec.LookPath("systemd-sysusers"); err != nil {
		t.Skip("systemd-sysusers is not installed: the package can't be installed here")
	}
	script := `set -e
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root" || { echo no overlay; exit 77; }
cp "$2" "$1/root/sendgate.deb"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
chroot "$1/root" sh -e 2>&1 <<'IN'
dpkg --install --force-depends /sendgate.deb
getent passwd sendgate
stat -c '%a %U %G %n' /etc/sendgate /etc/sendgate/sendgate.env
sendgate version
cd /etc/sendgate
sendgate keys generate | install -m 0440 -g sendgate /dev/stdin admin.key
echo changed >> sendgate.env
dpkg --install --force-depends --force-confold /sendgate.deb
grep -q changed sendgate.env
cd /
dpkg --remove sendgate
test ! -e /usr/bin/sendgate
test -e /etc/sendgate/sendgate.env
dpkg --purge sendgate
test ! -e /etc/sendgate/sendgate.env
echo done
IN
`
	out, err := command(t, []string{"DEBIAN_FRONTEND=noninteractive"}, "unshare", "--mount", "--pid", "--fork", "sh", "-c", script, "sh", t.TempDir(), deb)
	if strings.Contains(out, "no overlay") {
		t.Skip("this machine has no overlay file system: the package is not installed")
	}
	for _, want := range []string{"sendgate:x:", "750 root sendgate /etc/sendgate\n", "600 root root /etc/sendgate/sendgate.env\n", "\ndone\n"} {
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("install: %v, want %q in\n%s", err, want, out)
		}
	}
}
