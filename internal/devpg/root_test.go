//go:build linux || darwin || freebsd

package devpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// hiddenDir returns a directory that only root can enter, and a starter whose clusters can go to another one.
func hiddenDir(t *testing.T) (*starter, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root needs another user to run PostgreSQL")
	}
	root := openDir(t)
	hidden := filepath.Join(root, "hidden")
	if err := os.Mkdir(hidden, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(hidden, "pg")
	s := newStarter(Options{Dir: dir, Fast: true, Log: t.Logf}, "")
	s.shelters = []string{filepath.Join(hidden, "useless"), filepath.Join(root, "shelter")}
	return s, dir
}

// copying has s make clusters by copying the model, where it is not asked how one is made. The copies want no password, for
// theirs is the model's.
func copying(t *testing.T, s *starter) {
	t.Helper()
	from, err := model()
	if err != nil {
		t.Fatal(err)
	}
	as, err := unprivileged()
	if err != nil {
		t.Fatal(err)
	}
	real, err := s.search.find(t.Context(), 0, as)
	if err != nil {
		t.Fatal(err)
	}
	dir := openDir(t)
	for name, script := range map[string]string{
		"postgres": fmt.Sprintf("exec %q \"$@\"\n", filepath.Join(real.bin, "postgres")),
		"initdb": fmt.Sprintf("data=${1#--pgdata=}\ncp -a %q/. \"$data\"\necho 'local all all trust' > \"$data/pg_hba.conf\"\n",
			filepath.Join(from.dir, "data")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nset -e\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.search = search{path: []string{dir}, fetch: offline}
}

// startStop starts a cluster, lets look see it, and stops it.
func startStop(t *testing.T, s *starter, look func(c *Cluster)) {
	t.Helper()
	c, err := s.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	look(c)
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
}

func TestRootsClusterLivesWhereItsUserReachesIt(t *testing.T) {
	t.Parallel()
	s, dir := hiddenDir(t)
	copying(t, s)
	var base string
	startStop(t, s, func(c *Cluster) {
		remember(t, c.URL(), "sheltered")
		base = c.place.base
	})
	if !strings.HasPrefix(base, s.shelters[1]) {
		t.Errorf("cluster is in %s, want it in %s", base, s.shelters[1])
	}
	s.shelters = nil // found by its note, not by where it would be put today
	startStop(t, s, func(c *Cluster) {
		if got := recall(t, c.URL()); got != "sheltered" {
			t.Errorf("second start has %q, want %q", got, "sheltered")
		}
	})
	if _, err := os.Stat(filepath.Join(dir, "data")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("data in %s: %v, want none", dir, err)
	}
}

func TestDeletedDirectoryTakesItsShelteredClusterAlong(t *testing.T) {
	t.Parallel()
	if !*thorough {
		t.Skip("a rare case: run with -thorough")
	}
	s, dir := hiddenDir(t)
	copying(t, s)
	var base string
	startStop(t, s, func(c *Cluster) {
		remember(t, c.URL(), "of yesterday")
		base = c.place.base
	})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	startStop(t, s, func(c *Cluster) {
		if got := recall(t, c.URL()); got != "kept" { // what the model has
			t.Error("a cluster whose directory was deleted came back")
		}
		if c.place.base != base {
			t.Errorf("new cluster is in %s, want the place of the old one, %s", c.place.base, base)
		}
	})
}

func TestClustersOfDeletedTemporaryDirectoriesAreSwept(t *testing.T) {
	t.Parallel()
	s, _ := hiddenDir(t)
	parent := openDir(t)
	gone, here := filepath.Join(os.TempDir(), "devpg-never-there"), openDir(t)
	for name, origin := range map[string]string{"gone": gone, "here": here, "elsewhere": "/never-there", "used": gone} {
		base := filepath.Join(parent, name)
		if err := errors.Join(os.Mkdir(base, 0o700), os.WriteFile(place{base: base}.origin(), []byte(origin), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := lockDir(filepath.Join(parent, "used"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unlock(lock) }()
	s.sweep(parent)
	left, err := os.ReadDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range left {
		names = append(names, entry.Name())
	}
	if diff := cmp.Diff([]string{"elsewhere", "here", "used"}, names); diff != "" {
		t.Errorf("clusters left (-want +got):\n%s", diff)
	}
}

func TestOrdinaryUserStartsACluster(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("this user is one: the other tests show it")
	}
	if !*thorough {
		t.Skip("slow, and an ordinary user sees the same in the other tests: as root run with -thorough")
	}
	root := openDir(t)
	binary := filepath.Join(root, "devpg.test") // the go command's own directory is closed to others
	if out, err := exec.Command("cp", self(t), binary).CombinedOutput(); err != nil {
		t.Fatalf("copy test binary: %v: %s", err, out)
	}
	nobody, err := unprivileged()
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(root, "home")
	if err := errors.Join(os.Mkdir(home, 0o700), nobody.own(home)); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(home, "pg")
	cmd, stdin, dsn := ownerProcess(t, binary, dir, nobody)
	if got := query(t, dsn, "SELECT current_user::text"); got != superuser {
		t.Errorf("current_user = %q, want %q", got, superuser)
	}
	pid := postmaster(t, dir)
	if owner, err := ownerOf(filepath.Join(dir, "data")); err != nil || owner.uid != nobody.uid {
		t.Errorf("data belong to %v, %v; want %s", owner, err, nobody)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("owner ended with %v", err)
	}
	if serves(pid, filepath.Join(dir, "data")) {
		t.Errorf("server %d is alive after its owner stopped it", pid)
	}
}

func TestAnotherUsersDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make another user's directory")
	}
	dir := openDir(t)
	if err := os.Chown(dir, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	as, err := accountFor(dir)
	if err != nil || as == nil || as.uid != 12345 {
		t.Errorf("root's account for another user's data = %v, %v; want that user", as, err)
	}
	if err := os.Chown(dir, 0, 0); err != nil {
		t.Fatal(err)
	}
	if as, err := accountFor(dir); err == nil {
		t.Errorf("account for root's own data = %v, want an error", as)
	}
}
