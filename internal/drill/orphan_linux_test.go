//go:build drill

package drill

import "syscall"

// dies has a process end with the one that starts it, however that ends.
func dies() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
