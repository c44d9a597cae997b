//go:build linux || darwin || freebsd

package devpg

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// lockDir takes the lock of a directory until the file is closed or this process dies, however it dies. The server does not
// inherit it: a lock that outlives this process would make the next Start fail.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		err = noteHolder(f)
	}
	if err != nil {
		err = errors.Join(lockError(dir, f, err), f.Close())
		return nil, err
	}
	return f, nil
}

// unlock releases a lock. To close the file alone might not release it at once: a child that another goroutine is just starting
// has a copy of the file until it runs its program, and a lock belongs to all copies.
func unlock(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}

// noteHolder writes our process id into the lock, for the message that a second process prints.
func noteHolder(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	return err
}

// lockError explains why dir could not be locked.
func lockError(dir string, f *os.File, err error) error {
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("lock %s: %w", dir, err)
	}
	holder := "another process"
	if b, readErr := io.ReadAll(io.LimitReader(f, 20)); readErr == nil && len(b) > 0 {
		holder = "process " + strings.TrimSpace(string(b))
	}
	return fmt.Errorf("a private PostgreSQL on %s is %w: %s uses it; stop that one or choose another directory",
		dir, ErrRunning, holder)
}
