// Package devpg runs a private PostgreSQL server for people and for tests.
//
// It decides which server programs are used (installed ones, else a downloaded copy), which user runs them (never
// root), where the cluster lives, and what becomes of a server whose owner was killed: the next Start on the same
// Options.Dir stops it and begins again with all data. It leaves the schema to migrations, every statement to
// postgres, and production servers to whoever operates them.
//
// The mistake a newcomer makes: to take Options.Dir for the data directory. Dir is where a cluster is found from. The
// server cannot run as root, so for root its files belong to another user, and they live elsewhere when that user
// cannot reach Dir.
package devpg

import (
	"errors"
	"maps"
)

// MinMajor is the oldest major version of PostgreSQL that sendgate's schema runs on.
const MinMajor = 15

// ErrRunning says that a living process holds Options.Dir.
var ErrRunning = errors.New("already running")

// ErrNoPostgres says that no usable server programs were found or fetched; its text lists the ways out.
var ErrNoPostgres = errors.New("no PostgreSQL 15 or newer")

// Options says where a cluster lives and how it is tuned.
type Options struct {
	// Dir holds the cluster, or the note where to find it. It is created when missing, is private to this package,
	// and removing it while no process uses it removes the cluster for good.
	Dir string
	// Log takes one line for each thing that a waiting person wants to know. Nil discards them.
	Log func(format string, args ...any)
	// Settings are server settings that override the defaults, by name as in postgresql.conf.
	Settings map[string]string
	// Fast is for tests. It gives up what was committed in the last moment before a crash of the server, and everything
	// at a crash of the machine.
	Fast bool
}

// settings returns the server settings in force: the defaults, then those of Fast, then the caller's.
func (o Options) settings() map[string]string {
	all := map[string]string{
		"shared_buffers":                      "256MB",
		"max_connections":                     "100",
		"wal_compression":                     "off",
		"max_wal_size":                        "4GB",
		"checkpoint_timeout":                  "15min",
		"autovacuum_naptime":                  "5s",
		"idle_in_transaction_session_timeout": "60s",
		"timezone":                            "UTC",
		"log_timezone":                        "UTC",
	}
	if o.Fast {
		maps.Copy(all, map[string]string{
			"fsync":              "off",
			"synchronous_commit": "off",
			"full_page_writes":   "off",
			"shared_buffers":     "128MB",
		})
	}
	maps.Copy(all, o.Settings)
	return all
}

// logf reports progress, if anyone listens.
func (o Options) logf(format string, args ...any) {
	if o.Log != nil {
		o.Log(format, args...)
	}
}
