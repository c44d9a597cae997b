//go:build !unix

package config

import "io/fs"

// hasOwners says whether files have owners and modes. On this system they have none that we know.
const hasOwners = false

// ofRoot reports whether root owns a file. This system has no root.
func ofRoot(fs.FileInfo) bool { return false }

func ownerOf(fs.FileInfo) (uid int, known bool) { return 0, false }
