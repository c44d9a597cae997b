//go:build darwin || freebsd

package devpg

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// childOf does nothing: these kernels send no signal when a parent dies. A server whose owner was killed runs on until the
// next Start on the same Dir stops it.
func childOf(*syscall.SysProcAttr, syscall.Signal) {}

// serves reports whether pid is a live postmaster of the cluster in data, by its command line.
func serves(pid int, data string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ps", "-p", strconv.Itoa(pid), "-o", "command=").Output()
	return err == nil && strings.Contains(string(out), "-D "+data)
}
