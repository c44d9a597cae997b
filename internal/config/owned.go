package config

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// OpenOwned opens a regular file that no other user could have made or changed. The file and its directory must belong to the
// user of this process or to root, and nobody else may write to them. Root does not trust files of ordinary users either.
func OpenOwned(path string) (*os.File, error) {
	dir, err := openOwnedDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close() //nolint:errcheck // nothing is written through it
	f, err := dir.Open(filepath.Base(path))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil {
		err = checkOwned(path, info)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// CheckOwnedDir returns why another user could have put files into a directory, or nil.
func CheckOwnedDir(path string) error {
	dir, err := openOwnedDir(path)
	if err != nil {
		return err
	}
	return dir.Close()
}

// openOwnedDir opens a directory and then checks what it opened. If the path is a symbolic link, it checks the link's owner
// too.
func openOwnedDir(path string) (*os.Root, error) {
	link, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if link.Mode()&fs.ModeSymlink != 0 {
		if err := checkOwner(path, link); err != nil {
			return nil, err
		}
	}
	dir, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	info, err := dir.Stat(".")
	if err == nil {
		err = checkOwned(path, info)
	}
	if err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}

// checkOwned returns why another user could change a file, or nil.
func checkOwned(path string, info fs.FileInfo) error {
	if err := checkOwner(path, info); err != nil {
		return err
	}
	if hasOwners && info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s has mode %#o, so others can change it: check its content, then run chmod go-w %[1]s", path, info.Mode().Perm())
	}
	return nil
}

// checkOwner returns an error unless the file belongs to root or to the user of this process.
func checkOwner(path string, info fs.FileInfo) error {
	if uid, known := ownerOf(info); known && uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, and you are user %d: run this as that user, or in your own directory, or with all settings in the environment", path, uid, os.Geteuid())
	}
	return nil
}
