//go:build !linux && !darwin && !freebsd

package devpg

import (
	"context"
	"errors"
)

// Cluster is a running server. On this operating system there is none.
type Cluster struct{}

// Start always fails here: the package needs the file locks, sockets and users of Unix.
func Start(context.Context, Options) (*Cluster, error) {
	return nil, errors.New("a private PostgreSQL needs Linux, macOS or FreeBSD; " +
		"set SENDGATE_DATABASE_URL to a server of yours, or run docker compose up")
}

// URL returns "", because there is no server.
func (*Cluster) URL() string { return "" }

// URLFor returns "", because there is no server.
func (*Cluster) URLFor(string) string { return "" }

// Done returns nil, a channel that is never closed.
func (*Cluster) Done() <-chan struct{} { return nil }

// Stop has nothing to stop.
func (*Cluster) Stop() error { return nil }
