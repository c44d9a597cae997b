package app

import (
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/internal/config"
)

// memoryBase is what a replica takes beside its queue: large bodies on their way in and out, connections, and the rest.
const memoryBase = 256 << 20

// limitMemory tells Go's collector how much memory there is, unless GOMEMLIMIT does: left alone, it lets garbage of large
// messages grow to as much as is alive. The limit is soft. What is alive is bounded by the budgets of bodies and queue.
func limitMemory(cfg config.Config, log *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := memoryLimit(int64(cfg.AcceptQueueBytes), int64(cfg.MaxBodyBytes), memoryOfGroup())
	debug.SetMemoryLimit(limit)
	log.Info("memory limit set", "mib", limit>>20)
}

// memoryLimit is what the settings need, but at most three quarters of what the group of processes may take.
func memoryLimit(queue, body, group int64) int64 {
	return min(memoryBase+queue+max(0, body-httpBody)*4, group/4*3)
}

// httpBody is the body size that memoryBase allows for. A message is in memory about four times on its way.
const httpBody = 32 << 20

// memoryOfGroup is the limit of the control group (version 2, else 1), as containers see it.
func memoryOfGroup() int64 {
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
			return n
		}
	}
	return math.MaxInt64
}
