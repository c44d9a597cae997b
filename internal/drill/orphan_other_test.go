//go:build drill && !linux

package drill

import "syscall"

func dies() *syscall.SysProcAttr { return nil }
