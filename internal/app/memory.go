package app

import (
	"os"
	"runtime/debug"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/httpapi"
)

// memoryBase is how many bytes a replica needs beside its queue: for large bodies on their way in and out, connections, and
// the rest.
const memoryBase = 256 << 20

// fitMemory bounds the budgets of bodies and queue by the memory of the control group. Unless GOMEMLIMIT is set, it also sets
// the limit of Go's garbage collector, which would otherwise let garbage grow to the size of the live memory. That limit is
// soft; the budgets bound the live memory.
func (a *App) fitMemory() {
	group := memoryOfGroup(os.DirFS("/"))
	asked, body := int64(a.cfg.AcceptQueueBytes), int64(a.cfg.MaxBodyBytes)
	queue, bodies := budgets(asked, body, group)
	if queue < asked {
		a.log.Warn("SENDGATE_ACCEPT_QUEUE_BYTES does not fit into the memory of the control group",
			"group_mib", group>>20, "asked_mib", asked>>20, "used_mib", queue>>20)
	}
	a.cfg.AcceptQueueBytes, a.bodyBudget = config.Bytes(queue), bodies
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := memoryLimit(queue, body, group)
	debug.SetMemoryLimit(limit)
	a.log.Info("memory limit set", "mib", limit>>20)
}

// budgets returns the bytes for the queue and for the large bodies that are read at a time. A body that is read is in memory
// four times. The largest allowed body fits into either.
func budgets(queue, body, group int64) (queueBytes, bodies int64) {
	return min(queue, max(group/5, body)), max(body, min(httpapi.DefaultBodyBudget, group/12))
}

// memoryLimit is the memory that the settings need, in bytes, but at most three quarters of the control group's.
func memoryLimit(queue, body, group int64) int64 {
	return min(memoryBase+queue+max(0, body-httpBody)*4, group/4*3)
}

// httpBody is the body size that memoryBase allows for. A message is in memory about four times on its way.
const httpBody = 32 << 20
