package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// openSecret opens a file that holds a secret. It must be a regular file that only its owner can read; if root owns it, its group
// may read it too. This is libpq's rule for client keys. Kubernetes mounts secrets this way for a pod with an fsGroup: owned by
// root, and read-only. The path may be a symbolic link, as in Kubernetes.
func openSecret(path string) (*os.File, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names it
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w for user %d: give the file to that user, or mount it with a group of that user (Kubernetes: fsGroup) and mode 0440", err, os.Geteuid())
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file", path)
	case exposed(info.Mode(), ofRoot(info)):
		err = fmt.Errorf("%s has mode %#o, so others can read or change it: run chmod 600 %[1]s, "+
			"or, if it is mounted, mount it with mode 0440, owned by root and a group of user %[3]d (Kubernetes: defaultMode and fsGroup)",
			path, info.Mode().Perm(), os.Geteuid())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// exposed reports whether a mode lets others read or change a secret.
func exposed(mode fs.FileMode, ofRoot bool) bool {
	if ofRoot {
		return mode.Perm()&0o037 != 0
	}
	return mode.Perm()&0o077 != 0
}
