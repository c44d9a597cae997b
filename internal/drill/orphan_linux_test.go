//go:build drill

package drill

import "syscall"

// dies makes a process end together with its parent, however the parent ends.
func dies() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
