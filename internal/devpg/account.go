//go:build linux || darwin || freebsd

package devpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// account is the user that runs the server programs. Nil means the user of this process.
type account struct {
	uid, gid uint32
	name     string
}

// accountFor returns the user that has to run the cluster in data, which need not exist yet. PostgreSQL refuses to run as root
// and must own its data directory. So if we are root, that is the directory's owner, or an unprivileged user for a new one.
func accountFor(data string) (*account, error) {
	owner, err := ownerOf(data)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if os.Geteuid() != 0 {
			return nil, nil
		}
		return unprivileged()
	case err != nil:
		return nil, fmt.Errorf("look at cluster: %w", err)
	case os.Geteuid() == 0 && owner.uid == 0:
		return nil, fmt.Errorf("%s belongs to root, and PostgreSQL does not run as root: give it to another user", data)
	case os.Geteuid() == 0:
		return owner, nil
	}
	return nil, mayUse(data)
}

// mayUse returns an error if this process cannot work in dir: only its owner and root can.
func mayUse(dir string) error {
	owner, err := ownerOf(dir)
	if err != nil {
		return fmt.Errorf("look at directory: %w", err)
	}
	if euid := os.Geteuid(); euid != 0 && int(owner.uid) != euid {
		return fmt.Errorf("%s belongs to user %s: start as that user, or as root, or choose another directory",
			dir, owner.name)
	}
	return nil
}

// unprivileged returns the user postgres, or else the user nobody.
func unprivileged() (*account, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 {
			return &account{uid: uint32(uid), gid: uint32(gid), name: name}, nil
		}
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")
}

// ownerOf returns the owner of path, or an error that is fs.ErrNotExist.
func ownerOf(path string) (*account, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("read owner of %s", path)
	}
	a := &account{uid: st.Uid, gid: st.Gid, name: strconv.FormatUint(uint64(st.Uid), 10)}
	if u, err := user.LookupId(a.name); err == nil {
		a.name = u.Username
	}
	return a, nil
}

// attr returns the attributes with which a child runs as a, does not get our terminal's signals, and gets sig when we die.
func (a *account) attr(sig syscall.Signal) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a != nil {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	childOf(attr, sig)
	return attr
}

// own makes a the owner of path.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// String names the user for log lines and errors.
func (a *account) String() string {
	if a == nil {
		return "this user"
	}
	return "user " + a.name
}
