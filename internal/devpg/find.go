//go:build linux || darwin || freebsd

package devpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// programs are the server programs of one PostgreSQL installation.
type programs struct {
	bin   string // the directory of postgres and initdb
	major int
}

// search says where to look for server programs.
type search struct {
	path  []string // directories to look in first, in order
	globs []string // patterns of directories to look in next, the newest version first
	// fetch downloads programs of a major version and returns their directory. With major 0 it chooses the version.
	fetch func(ctx context.Context, major int) (string, error)
}

// installedGlobs are the places where packages put server programs without adding them to PATH: Debian and Ubuntu,
// the PGDG packages for Red Hat, Homebrew on both kinds of Mac, Postgres.app, FreeBSD and Alpine.
func installedGlobs() []string {
	return []string{
		"/usr/lib/postgresql/*/bin",
		"/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
		"/usr/local/pgsql*/bin",
		"/usr/libexec/postgresql*",
	}
}

// find returns programs of the given major version. If major is 0, any version from MinMajor on will do.
func (s search) find(ctx context.Context, major int, as *account) (programs, error) {
	var rejected []string
	for _, dir := range s.candidates() {
		p, err := probe(ctx, dir, as)
		if err == nil {
			err = p.fits(major)
		}
		if err == nil {
			return p, nil
		}
		if ctx.Err() != nil {
			return programs{}, fmt.Errorf("look for PostgreSQL: %w", context.Cause(ctx))
		}
		rejected = append(rejected, err.Error())
	}
	p, err := s.fetched(ctx, major, as)
	if err == nil {
		return p, nil
	}
	if ctx.Err() != nil {
		return programs{}, fmt.Errorf("fetch PostgreSQL: %w", context.Cause(ctx))
	}
	return programs{}, waysOut(major, append(rejected, "download: "+err.Error()))
}

// candidates lists the directories that hold a server program, in the order of preference, each once.
func (s search) candidates() []string {
	var dirs []string
	add := func(dir string) {
		real, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
		if err != nil {
			return
		}
		if real = filepath.Dir(real); !slices.Contains(dirs, real) {
			dirs = append(dirs, real)
		}
	}
	for _, dir := range s.path {
		if filepath.IsAbs(dir) {
			add(dir)
		}
	}
	for _, glob := range s.globs {
		found, _ := filepath.Glob(glob) // its only error is a malformed pattern, and ours are constants
		slices.SortFunc(found, func(a, b string) int { return cmp.Compare(lastNumber(b), lastNumber(a)) })
		for _, dir := range found {
			add(dir)
		}
	}
	return dirs
}

// lastNumber returns the last run of digits in path, so that .../16/bin sorts above .../9.6/bin.
func lastNumber(path string) int {
	runs := strings.FieldsFunc(path, func(r rune) bool { return r < '0' || r > '9' })
	if len(runs) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(runs[len(runs)-1]) // an absurdly long run sorts last, as 0
	return n
}

// fetched downloads programs and checks them like installed ones.
func (s search) fetched(ctx context.Context, major int, as *account) (programs, error) {
	dir, err := s.fetch(ctx, major)
	if err != nil {
		return programs{}, err
	}
	p, err := probe(ctx, dir, as)
	if err != nil {
		return programs{}, err
	}
	return p, p.fits(major)
}

// probe asks the program postgres in dir for its version, as the user that will run it. It returns an error if there is no
// initdb beside it.
func probe(ctx context.Context, dir string, as *account) (programs, error) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return programs{}, fmt.Errorf("%s: has no initdb", dir)
	}
	out, err := version(ctx, dir, "/", as)
	if err != nil {
		return programs{}, fmt.Errorf("%s: %w", dir, err)
	}
	m := regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)`).FindStringSubmatch(out)
	if m == nil {
		return programs{}, fmt.Errorf("%s: is not PostgreSQL", dir)
	}
	major, err := strconv.Atoi(m[1])
	if err != nil {
		return programs{}, fmt.Errorf("%s: has no usable version", dir)
	}
	return programs{bin: dir, major: major}, nil
}

// version runs postgres --version of bin in the directory cwd, as the user as. An answer proves that this user may run the
// program and enter the directory.
func version(ctx context.Context, bin, cwd string, as *account) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	run := func() ([]byte, error) {
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version")
		cmd.Dir = cwd
		cmd.Env = environment()
		cmd.SysProcAttr = as.attr(syscall.SIGKILL)
		cmd.WaitDelay = time.Second
		return cmd.Output()
	}
	out, err := run()
	// A program that was just unpacked may still be open for writing in a child that this process forked meanwhile.
	for wait := 10 * time.Millisecond; errors.Is(err, syscall.ETXTBSY) && wait < time.Second; wait *= 2 {
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		out, err = run()
	}
	if err != nil {
		return "", fmt.Errorf("run postgres --version: %w", err)
	}
	return string(out), nil
}

// fits returns an error if p cannot run a cluster of the given major version, or a new one when that is 0.
func (p programs) fits(major int) error {
	switch {
	case major == 0 && p.major < MinMajor:
		return fmt.Errorf("%s: is version %d, older than %d", p.bin, p.major, MinMajor)
	case major != 0 && p.major != major:
		return fmt.Errorf("%s: is version %d, and the data here were written by %d", p.bin, p.major, major)
	}
	return nil
}

// environment is ours without the variables that would change how the server programs work or translate their messages.
func environment() []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "PG") || strings.HasPrefix(kv, "LC_") || strings.HasPrefix(kv, "LANG")
	})
	return append(env, "LC_ALL=C")
}

// waysOut is the error for a machine without a usable PostgreSQL, in one line.
func waysOut(major int, rejected []string) error {
	wanted := fmt.Errorf("%w was found", ErrNoPostgres)
	if major != 0 {
		wanted = fmt.Errorf("%w of version %d was found, which wrote the data here", ErrNoPostgres, major)
	}
	return fmt.Errorf("%w (%s); ways out: install it (apt-get install postgresql, dnf install postgresql-server, apk add postgresql17, "+
		"brew install postgresql@17; it need not run), use a server of yours (SENDGATE_DATABASE_URL=postgres://user:password@host/database, "+
		"for tests SENDGATE_TEST_DATABASE_URL whose role may create databases), or run everything in containers (docker compose up)",
		wanted, strings.Join(rejected, "; "))
}
