//go:build linux || darwin || freebsd

package devpg

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// place is where one cluster is. All files in it except data and the socket directory belong to us, so a server that was
// broken into cannot change its own lock, log or password file.
type place struct {
	base string
}

func (p place) data() string     { return filepath.Join(p.base, "data") }
func (p place) log() string      { return filepath.Join(p.base, "postgres.log") }
func (p place) password() string { return filepath.Join(p.base, "password") }
func (p place) origin() string   { return filepath.Join(p.base, "origin") }

// locationFile is the note in Dir that says where the cluster is, if not in Dir itself.
const locationFile = "location"

// findPlace returns where dir's cluster is. If there is none, it returns dir; choosePlace may decide otherwise.
func findPlace(dir string) (place, error) {
	note, err := os.ReadFile(filepath.Join(dir, locationFile))
	switch {
	case err == nil:
		return place{base: strings.TrimSpace(string(note))}, nil
	case errors.Is(err, fs.ErrNotExist):
		return place{base: dir}, nil
	}
	return place{}, fmt.Errorf("read location: %w", err)
}

// exists reports whether p holds a complete cluster.
func (p place) exists() bool {
	_, err := os.Stat(filepath.Join(p.data(), "PG_VERSION"))
	return err == nil
}

// choosePlace decides where a new cluster of dir goes: into dir, or elsewhere if the user that runs it cannot reach dir.
func (s *starter) choosePlace(ctx context.Context, dir string, bin programs, as *account) (place, error) {
	if as == nil {
		return place{base: dir}, nil
	}
	if _, err := version(ctx, bin.bin, dir, as); err == nil {
		return place{base: dir}, nil
	}
	if ctx.Err() != nil {
		return place{}, context.Cause(ctx)
	}
	sum := sha256.Sum256([]byte(dir))
	name := hex.EncodeToString(sum[:8])
	var problems []error
	for _, parent := range s.shelters {
		p, err := s.shelter(ctx, filepath.Join(parent, name), dir, bin, as)
		if err == nil {
			return p, nil
		}
		problems = append(problems, err)
	}
	return place{}, fmt.Errorf("%s cannot reach %s, and no other place will do: %w", as, dir, errors.Join(problems...))
}

// shelter makes base the place of dir's cluster. A cluster that is there already was left by a dir that has since been deleted:
// a dir with a cluster has a note that leads to it, and then shelter is not called.
func (s *starter) shelter(ctx context.Context, base, dir string, bin programs, as *account) (place, error) {
	p := place{base: base}
	if err := os.MkdirAll(filepath.Dir(base), 0o711); err != nil { //nolint:gosec // the server's user has to pass
		return place{}, fmt.Errorf("create place for cluster: %w", err)
	}
	s.sweep(filepath.Dir(base))
	if _, err := os.Lstat(base); err == nil {
		s.opts.logf("removing the cluster that a deleted %s left in %s", dir, base)
		if err := s.discard(p); err != nil {
			return place{}, err
		}
	}
	if err := os.Mkdir(base, 0o711); err != nil { //nolint:gosec // the server's user has to pass
		return place{}, fmt.Errorf("create place for cluster: %w", err)
	}
	if _, err := version(ctx, bin.bin, base, as); err != nil {
		return place{}, errors.Join(fmt.Errorf("%s cannot reach %s either", as, base), os.Remove(base))
	}
	s.opts.logf("%s, who runs PostgreSQL for root, cannot reach %s: the cluster is in %s", as, dir, base)
	return p, errors.Join(os.WriteFile(p.origin(), []byte(dir), 0o600),
		os.WriteFile(filepath.Join(dir, locationFile), []byte(base+"\n"), 0o600))
}

// sweep removes the clusters in parent whose directory was a temporary one, as in tests, and is gone. A directory elsewhere
// that is gone may have been moved, or be on a disk that is not mounted: its cluster stays.
func (s *starter) sweep(parent string) {
	origins, _ := filepath.Glob(filepath.Join(parent, "*", "origin")) // its only error is a malformed pattern
	for _, origin := range origins {
		dir, err := os.ReadFile(origin)
		if err != nil || !strings.HasPrefix(string(dir), os.TempDir()+string(filepath.Separator)) {
			continue
		}
		if _, err := os.Stat(string(dir)); !errors.Is(err, fs.ErrNotExist) { //nolint:gosec // our own note, and only looked at
			continue
		}
		p := place{base: filepath.Dir(origin)}
		lock, err := lockDir(p.base)
		if err != nil {
			continue // in use, though its directory is gone
		}
		if err := errors.Join(s.discard(p), unlock(lock)); err != nil {
			s.opts.logf("the cluster that a deleted %s left in %s stays: %v", dir, p.base, err)
		}
	}
}

// discard stops a server that still runs in p, and removes p. It removes only a directory of our own user.
func (s *starter) discard(p place) error {
	owner, err := ownerOf(p.base)
	if err != nil {
		return fmt.Errorf("look at old cluster: %w", err)
	}
	if int(owner.uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %s", p.base, owner.name)
	}
	if err := stopOrphan(p.data(), s.opts.logf); err != nil {
		return err
	}
	if err := os.RemoveAll(p.base); err != nil {
		return fmt.Errorf("remove old cluster: %w", err)
	}
	return nil
}

// errNotReady says why no connection was tried.
var errNotReady = errors.New("the server has not written that it is ready")

// ready reports whether the server of p has noted in postmaster.pid that it accepts connections. To try a connection instead
// would cost the server a process each time.
func (p place) ready() bool {
	note, err := os.ReadFile(filepath.Join(p.data(), "postmaster.pid"))
	return err == nil && strings.Contains(string(note), "\nready")
}

// majorOf returns the major version that wrote the cluster in p.
func (p place) majorOf() (int, error) {
	b, err := os.ReadFile(filepath.Join(p.data(), "PG_VERSION"))
	if err != nil {
		return 0, fmt.Errorf("read cluster version: %w", err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("read cluster version: %w", err)
	}
	return major, nil
}

// secret returns the superuser's password, and makes one if there is none.
func (p place) secret() (string, error) {
	b, err := os.ReadFile(p.password())
	if err == nil && len(b) > 0 {
		return string(b), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read password: %w", err)
	}
	pw := rand.Text()
	if err := os.WriteFile(p.password(), []byte(pw), 0o600); err != nil {
		return "", fmt.Errorf("write password: %w", err)
	}
	return pw, nil
}

// maxSocketDir is the longest directory name in bytes in which a server can make its socket: sun_path has 104 bytes on
// macOS (108 on Linux), of which "/.s.PGSQL.5432.lock" and a closing zero take 20.
const maxSocketDir = 104 - 20

// socketDir makes a directory for the server's socket that only its user (and root) can enter: in the place itself,
// or else in one of the directories with short names. It returns "" when sockets cannot be made in any of them.
func (s *starter) socketDir(p place, as *account) string {
	if s.noSocket {
		return ""
	}
	sum := sha256.Sum256([]byte(p.base))
	short := fmt.Sprintf("sendgate-%d-%s", os.Geteuid(), hex.EncodeToString(sum[:6]))
	dirs := []string{filepath.Join(p.base, "run")}
	for _, parent := range s.sockets {
		dirs = append(dirs, filepath.Join(parent, short))
	}
	for _, dir := range dirs {
		if len(dir) <= maxSocketDir && makeSocketDir(dir, as) == nil {
			return dir
		}
	}
	return ""
}

// makeSocketDir makes dir anew and proves that a socket can be made in it. It removes an old one only if that belongs to us or
// to as: in a parent that all users may write to, it may be another user's trap.
func makeSocketDir(dir string, as *account) error {
	if owner, err := ownerOf(dir); err == nil {
		ours := int(owner.uid) == os.Geteuid() || as != nil && owner.uid == as.uid
		if !ours {
			return fmt.Errorf("%s belongs to user %s", dir, owner.name)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.probe"))
	if err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	return errors.Join(l.Close(), as.own(dir))
}
