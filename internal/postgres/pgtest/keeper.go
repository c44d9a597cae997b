//go:build linux || darwin || freebsd

package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/sendgate/sendgate/internal/devpg"
)

// linger is how long the server of a run stays up without users: the next test binary of the run often starts in a moment.
const linger = 3 * time.Second

// init makes a test binary that was started as the keeper run as the keeper, before any test begins. It is the only init of
// the project: the server has to outlive the binary that starts it, there is no other program at run time, and a TestMain would
// have to be repeated in every package that uses this one.
func init() { //nolint:gochecknoinits // see above
	dir := os.Getenv(superviseEnv)
	if dir == "" {
		return
	}
	wait, err := time.ParseDuration(os.Getenv(lingerEnv))
	if err == nil {
		err = keep(shared{dir: dir, linger: wait})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// keep runs the shared server until it has had no user for as long as it lingers.
func keep(s shared) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	alone, err := lock(ctx, s.keeper(), syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock(alone)) }()
	cluster, err := s.start(ctx)
	if err != nil {
		return err
	}
	if err := s.publish(cluster.URL()); err != nil {
		return errors.Join(err, cluster.Stop())
	}
	last := s.awaitIdle(ctx, cluster)
	if last != nil {
		defer func() { err = errors.Join(err, unlock(last)) }() // newcomers wait until the server is down
	}
	if err := os.Remove(s.url()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, cluster.Stop())
	}
	if err := cluster.Stop(); err != nil {
		return err
	}
	if strings.HasPrefix(s.dir, memory) { // memory that others may need
		if err := os.RemoveAll(s.cluster()); err != nil {
			return err
		}
	}
	return os.Remove(s.inUse())
}

// start starts the server on the data of the last run, which saves a second or more. Data that were left in use are not
// trusted, because the server does not sync: they are deleted, and so are data on which it does not start.
func (s shared) start(ctx context.Context) (*devpg.Cluster, error) {
	options := devpg.Options{
		Dir: s.cluster(), Fast: true,
		Settings: map[string]string{
			"autovacuum": "off", "max_connections": "600",
			"wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "512MB",
		},
	}
	_, statErr := os.Stat(s.inUse())
	leftInUse := statErr == nil
	if err := os.WriteFile(s.inUse(), nil, 0o600); err != nil {
		return nil, fmt.Errorf("note use: %w", err)
	}
	cluster, err := devpg.Start(ctx, options)
	if errors.Is(err, devpg.ErrRunning) || ctx.Err() != nil {
		return nil, err
	}
	if err == nil && !leftInUse {
		return cluster, nil
	}
	if err == nil {
		if err := cluster.Stop(); err != nil {
			return nil, err
		}
	}
	if err := os.RemoveAll(s.cluster()); err != nil {
		return nil, fmt.Errorf("remove old cluster: %w", err)
	}
	return devpg.Start(ctx, options)
}

// publish writes the address for the processes that wait for it, in one step.
func (s shared) publish(url string) error {
	half := s.url() + ".new"
	if err := os.WriteFile(half, []byte(url), 0o600); err != nil {
		return fmt.Errorf("write address: %w", err)
	}
	if err := os.Rename(half, s.url()); err != nil {
		return fmt.Errorf("write address: %w", err)
	}
	return nil
}

// awaitIdle waits until there has been no user for as long as the server lingers, and returns the lock that keeps users out. It
// returns nil when ctx ends or the server exits.
func (s shared) awaitIdle(ctx context.Context, cluster *devpg.Cluster) *os.File {
	tick := time.NewTicker(max(s.linger/12, poll))
	defer tick.Stop()
	busy := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-cluster.Done():
			return nil
		case <-tick.C:
		}
		all, err := tryLock(s.users(), syscall.LOCK_EX)
		if err != nil {
			busy = time.Now()
			continue
		}
		if time.Since(busy) >= s.linger {
			return all
		}
		_ = unlock(all)
	}
}
