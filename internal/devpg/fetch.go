//go:build linux || darwin || freebsd

package devpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	embedded "github.com/fergusstrange/embedded-postgres"
)

// fetcher downloads server programs into a cache.
type fetcher struct {
	cache string // programs of major version N end up in cache/postgres-N
	repo  string // a Maven repository, or "" for the library's own default
	logf  func(format string, args ...any)
}

// cacheDir is where downloaded programs are kept. For root that is not in root's home, because the user that runs the server
// cannot enter it.
func cacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/sendgate", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w", err)
	}
	return filepath.Join(dir, "sendgate"), nil
}

// fetch downloads the programs of a major version (17 when it is 0), unless the cache has them, and returns their
// directory. A cancelled ctx ends the wait but not the transfer, which the library can't stop. The transfer goes on in a
// directory that nobody reads, and when it is complete, the programs are still put into the cache.
func (f fetcher) fetch(ctx context.Context, major int) (string, error) {
	if major == 0 {
		major = 17
	}
	final := filepath.Join(f.cache, "postgres-"+strconv.Itoa(major))
	bin := filepath.Join(final, "bin")
	if _, err := os.Stat(filepath.Join(bin, "postgres")); err == nil {
		return bin, nil
	}
	release, err := releaseOf(major)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(f.cache, 0o755); err != nil { //nolint:gosec // programs, to be run by another user too
		return "", fmt.Errorf("create cache: %w", err)
	}
	work, err := os.MkdirTemp(f.cache, "fetch-")
	if err != nil {
		return "", fmt.Errorf("create cache: %w", err)
	}
	f.logf("downloading PostgreSQL %d into %s (once)", major, f.cache)
	done := make(chan error, 1)
	go func() {
		defer func() { _ = os.RemoveAll(work) }()
		done <- f.extract(work, final, release)
	}()
	return bin, f.await(ctx, done)
}

// releaseOf returns the release to download for a major version.
func releaseOf(major int) (embedded.PostgresVersion, error) {
	switch major {
	case 15:
		return embedded.V15, nil
	case 16:
		return embedded.V16, nil
	case 17:
		return embedded.V17, nil
	case 18:
		return embedded.V18, nil
	}
	return "", fmt.Errorf("there is no PostgreSQL %d to download", major)
}

// await waits for done, and reports progress every five seconds.
func (f fetcher) await(ctx context.Context, done <-chan error) error {
	began := time.Now()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			f.logf("still downloading PostgreSQL (%s)", time.Since(began).Round(time.Second))
		}
	}
}

// extract downloads into work and moves the programs to final in one step.
//
// The library has no call that only downloads. Its Start downloads, unpacks, and then starts a server on a data directory of
// ours. We give it one that holds only a PG_VERSION file, on which no server can start. So Start always returns an error, and we
// check whether the programs are there.
func (f fetcher) extract(work, final string, release embedded.PostgresVersion) error {
	data, unpacked := filepath.Join(work, "data"), filepath.Join(work, "unpacked")
	if err := os.Mkdir(data, 0o700); err != nil {
		return fmt.Errorf("create cache: %w", err)
	}
	major := strconv.Itoa(lastNumber(final)) + "\n"
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte(major), 0o600); err != nil {
		return fmt.Errorf("create cache: %w", err)
	}
	config := embedded.DefaultConfig().Version(release).Logger(io.Discard).
		Port(0). // the library looks whether the port is free before it downloads, and any port may be taken meanwhile
		CachePath(filepath.Join(work, "archive")).RuntimePath(filepath.Join(work, "runtime")).
		BinariesPath(unpacked).DataPath(data)
	if f.repo != "" {
		config = config.BinaryRepositoryURL(f.repo)
	}
	server := embedded.NewDatabase(config)
	startErr := server.Start()
	if startErr == nil {
		return errors.Join(errors.New("a server ran where none should"), server.Stop())
	}
	if _, err := os.Stat(filepath.Join(unpacked, "bin", "postgres")); err != nil {
		return startErr
	}
	return install(unpacked, final)
}

// install moves the unpacked programs into place. If another process did so first, its copy stays.
func install(unpacked, final string) error {
	if err := os.Chmod(unpacked, 0o755); err != nil { //nolint:gosec // programs, to be run by another user too
		return fmt.Errorf("install PostgreSQL: %w", err)
	}
	if err := os.Rename(unpacked, final); err != nil {
		if _, statErr := os.Stat(filepath.Join(final, "bin", "postgres")); statErr == nil {
			return nil
		}
		return fmt.Errorf("install PostgreSQL: %w", err)
	}
	return nil
}

// freePort returns a TCP port of 127.0.0.1 that was free a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("find free port: not a TCP address")
	}
	return addr.Port, nil
}
