package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode"
)

// Secret returns a variable that holds a secret, or the content of the file that the variable NAME_FILE names, without white
// space around it; "" if neither is set. It is for secrets that are not settings of serve.
func Secret(environ []string, name string) (string, error) {
	value, file := lookup(environ, name), lookup(environ, name+"_FILE")
	switch {
	case file == "":
		return value, nil
	case value != "":
		return "", bothSet(name)
	}
	text, err := readSecret(file, oneText)
	if err != nil {
		return "", fmt.Errorf("%s_FILE: %w", name, err)
	}
	return text, nil
}

// WithSecrets returns an environment in which each of these variables has the value that Secret finds. The error joins all
// problems, one line each.
func WithSecrets(environ []string, names ...string) ([]string, error) {
	environ = slices.Clone(environ)
	var problems []error
	for _, name := range names {
		value, err := Secret(environ, name)
		if err != nil {
			problems = append(problems, err)
		}
		environ = slices.DeleteFunc(environ, func(line string) bool { return strings.HasPrefix(line, name+"=") })
		if value != "" {
			environ = append(environ, name+"="+value)
		}
	}
	return environ, errors.Join(problems...)
}

// lookup returns a variable, the last one of several as os.Environ and package env have it, or "".
func lookup(environ []string, name string) string {
	for _, line := range slices.Backward(environ) {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			return value
		}
	}
	return ""
}

func bothSet(name string) error {
	return fmt.Errorf("%s_FILE: %[1]s is set as well; unset one of the two", name)
}

// oneText returns a secret of one line without the white space around it.
func oneText(text string) (string, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return "", errors.New("is empty")
	case strings.ContainsFunc(text, unicode.IsControl):
		return "", errors.New("holds more than one line")
	}
	return text, nil
}

// maxSecretFile is how much of a file that holds a secret is read, in bytes.
const maxSecretFile = 4096

// readSecret parses the secret in a file. The error names the file and holds nothing of its content.
func readSecret(file string, parse func(string) (string, error)) (string, error) {
	f, err := openSecret(file)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err == nil && len(b) > maxSecretFile {
		err = fmt.Errorf("is over %d bytes", maxSecretFile)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	text, err := parse(string(b))
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	return text, nil
}

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
