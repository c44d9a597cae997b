// Package migrations holds the schema as numbered goose files, each with its way up and down, embedded in the binary.
//
// It decides nothing: postgres runs them for `sendgate migrate`, pgtest for each test database. A file that has been
// released is never edited, for databases remember by number what they have run. And a change must leave the previous
// binary working on the new schema (expand first, contract one release later), because replicas are replaced one by one.
package migrations

import "embed"

// FS holds every migration at its root, as goose's Provider wants them.
//
//go:embed *.sql
var FS embed.FS
