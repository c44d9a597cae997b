//go:build !unix

package config

import "io/fs"

// ofRoot reports whether root owns a file. Here there is no root.
func ofRoot(fs.FileInfo) bool { return false }
