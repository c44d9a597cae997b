package devpg

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// childOf has the kernel send sig to a child when its parent dies, however it dies. The kernel means the parent's
// thread (prctl(2), PR_SET_PDEATHSIG): run keeps that thread for as long as the child lives.
func childOf(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }

// serves tells whether pid is a living postmaster of the cluster in data, whose working directory that is. A zombie
// has no working directory any more, and a stranger that got the same pid has another one.
func serves(pid int, data string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false
	}
	resolved, err := filepath.EvalSymlinks(data)
	return err == nil && cwd == resolved
}
