package devpg

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// childOf makes the kernel send sig to a child when its parent dies, however it dies. The kernel watches the parent's
// thread (prctl(2), PR_SET_PDEATHSIG): run keeps that thread as long as the child lives.
func childOf(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }

// serves reports whether pid is a live postmaster of the cluster in data, by its working directory, which is data. A zombie
// has no working directory any more, and an unrelated process with the same pid has another one.
func serves(pid int, data string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false
	}
	resolved, err := filepath.EvalSymlinks(data)
	return err == nil && cwd == resolved
}
