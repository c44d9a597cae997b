package capacity

import (
	"fmt"
	"math"
	"time"
)

// How a deployment is sized.
const (
	busy         = 0.5 // share of the cores that the busiest hour uses: it has peaks of its own
	replicaCores = 2   // of one sendgate process, as measured
	replicaGB    = 0.5 // memory of one with the default settings; the bench saw up to 0.12
	systemGB     = 0.2 // memory of the operating system of each machine
	systemDiskGB = 6   // its disk
	spareDisk    = 1.3 // free space, and space that Postgres has not reused yet
	logGB        = 2   // write-ahead log that Postgres keeps between checkpoints: max_wal_size is 1 GB

	// Memory of Postgres: its own with shared_buffers of 128 MB, that of a session, and the rows of the busiest hour, whose events
	// come back soon. In the bench a young session had 3.4 MB.
	postgresGB = 0.16
	sessionGB  = 0.005

	// Connections of a replica, and those of migrate and doctor.
	replicaConnections = 18
	otherConnections   = 3
)

// Hardware is what runs the deployment.
type Hardware struct {
	GatewayBusy  float64 `json:"gateway_cores_busy"` // in the busiest hour
	PostgresBusy float64 `json:"postgres_cores_busy"`
	Cores        float64 `json:"cores"` // for both
	Replicas     int     `json:"replicas"`
	Connections  int     `json:"postgres_connections"` // of these replicas
	OneMore      int     `json:"connections_with_one_more_replica"`
	GatewayGB    float64 `json:"gateway_memory_gb"` // of all replicas
	PostgresGB   float64 `json:"postgres_memory_gb"`
	BodiesGB     float64 `json:"bodies_disk_gb"`
	RowsGB       float64 `json:"rows_disk_gb"`
	DiskGB       float64 `json:"disk_gb"` // with room to spare
	LogPerDayGB  float64 `json:"wal_per_day_gb"`

	// Machines that carry the load. Alone is empty if no machine on sale is large enough for everything. Apart has one replica
	// more than the load needs, so that one can fail or be upgraded. An unknown price is 0.
	Alone []Machine `json:"one_machine"`
	Apart []Machine `json:"machines_apart"`

	Prices []Source `json:"machine_prices"`
}

// Machine is a kind of machine to rent.
type Machine struct {
	For    string  `json:"for"`
	Count  int     `json:"count"`
	Size   string  `json:"size,omitempty"`    // "" if none on sale is large enough
	Volume float64 `json:"volume_gb"`         // disk beside its own
	Price  float64 `json:"dollars_per_month"` // of all of them; 0 not known
}

func hardware(l Load, c Costs) Hardware {
	events := c.Events * l.Recipients
	kilobytes := max(0, l.Size-c.Size) / 1000
	micros := func(of func(Work) float64) float64 {
		return of(c.Accept) + of(c.Dispatch) + events*of(c.Event) + kilobytes*of(c.PerKB)
	}
	perSecond := l.within(time.Hour) / 3600
	h := Hardware{
		GatewayBusy:  perSecond * micros(func(w Work) float64 { return w.Gateway }) / 1e6,
		PostgresBusy: perSecond * micros(func(w Work) float64 { return w.Postgres }) / 1e6,
		Prices:       machineSources,
	}
	h.Cores = max(1, ceil((h.GatewayBusy+h.PostgresBusy)/busy))
	h.Replicas = int(max(1, ceil(h.GatewayBusy/busy/replicaCores)))
	h.Connections = h.Replicas*replicaConnections + otherConnections
	h.OneMore = h.Connections + replicaConnections

	rows := c.Row + (l.Recipients-1)*c.RecipientRow + events*c.EventRow
	kept := func(s Span) float64 { return l.PerMonth / 30 * (s.hours()/24 + 1) } // the day that begins too
	h.BodiesGB = kept(l.BodyRetention) * l.Size * c.BodyRatio / 1e9
	h.RowsGB = kept(l.Retention) * rows / 1e9
	h.DiskGB = spareDisk*(h.BodiesGB+h.RowsGB) + logGB
	h.LogPerDayGB = l.PerMonth / 30 * (c.Log + events*c.EventLog + l.Size*c.LogRatio) / 1e9

	h.GatewayGB = replicaGB * float64(h.Replicas)
	h.PostgresGB = postgresMemory(h.Connections, l.within(time.Hour)*rows)
	if h.Replicas == 1 {
		if m := rent("all", 1, h.Cores, h.GatewayGB+h.PostgresGB+systemGB, h.DiskGB+systemDiskGB); m.Size != "" {
			h.Alone = []Machine{m}
		}
	}
	h.Apart = []Machine{
		rent("Postgres", 1, max(1, ceil(h.PostgresBusy/busy)), postgresMemory(h.OneMore, l.within(time.Hour)*rows)+systemGB, h.DiskGB+systemDiskGB),
		rent("sendgate", h.Replicas+1, max(1, ceil(h.GatewayBusy/busy/float64(h.Replicas))), replicaGB+systemGB, systemDiskGB),
	}
	return h
}

func postgresMemory(connections int, hot float64) float64 {
	return postgresGB + sessionGB*float64(connections) + hot/1e9
}

// rent finds the cheapest machine on sale.
func rent(what string, count int, cores, memoryGB, diskGB float64) Machine {
	best := Machine{For: what, Count: count, Price: math.Inf(1)}
	for _, s := range sizes {
		volume := max(0, ceil(diskGB-s.DiskGB))
		each := s.Price + volume*volumePrice
		if s.Cores >= cores && s.MemoryGB >= memoryGB && volume <= volumeMostGB && each*float64(count) < best.Price {
			best.Size = fmt.Sprintf("%g vCPU, %g GB, %g GB disk", s.Cores, s.MemoryGB, s.DiskGB)
			best.Volume, best.Price = volume, each*float64(count)
		}
	}
	if best.Size == "" {
		best.Price = 0
	}
	return best
}
