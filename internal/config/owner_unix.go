//go:build unix

package config

import (
	"io/fs"
	"syscall"
)

// hasOwners says that files have owners and modes.
const hasOwners = true

// ofRoot reports whether root owns a file.
func ofRoot(info fs.FileInfo) bool {
	uid, known := ownerOf(info)
	return known && uid == 0
}

// ownerOf returns the id of the user that owns a file.
func ownerOf(info fs.FileInfo) (uid int, known bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(stat.Uid), true
}
