// Package devpg runs a private PostgreSQL server for people and for tests.
//
// It decides which server programs are used (installed ones, else a downloaded copy), which user runs them (never
// root), where the cluster is, and what happens to a server whose owner was killed: the next Start on the same
// Options.Dir stops it and starts again with all data. The schema belongs to package migrations, all statements to package
// postgres. Production servers are not its business.
//
// A newcomer's likeliest mistake is to take Options.Dir for the data directory. Dir is where the search for a cluster begins.
// The server cannot run as root, so for root its files belong to another user, and they are elsewhere if that user cannot
// reach Dir.
package devpg

import (
	"errors"
	"maps"
)

// MinMajor is the oldest major version of PostgreSQL that sendgate's schema runs on.
const MinMajor = 15

// ErrRunning says that a live process holds Options.Dir.
var ErrRunning = errors.New("already running")

// ErrNoPostgres says that no usable server programs were found or fetched; its text lists the ways out.
var ErrNoPostgres = errors.New("no PostgreSQL 15 or newer")

// Options says where a cluster lives and how it is tuned.
type Options struct {
	// Dir holds the cluster, or a note that says where it is. It is created when missing, and is private to this package.
	// To remove it while no process uses it removes the cluster for good.
	Dir string
	// Log gets a line for each step that a waiting person may want to know of. Nil discards them.
	Log func(format string, args ...any)
	// Settings are server settings that override the defaults, by name as in postgresql.conf.
	Settings map[string]string
	// Fast is for tests. A crash of the server may lose the last commits before it, and a crash of the machine may lose
	// everything.
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

// logf reports progress, if there is a Log.
func (o Options) logf(format string, args ...any) {
	if o.Log != nil {
		o.Log(format, args...)
	}
}
