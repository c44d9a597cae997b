//go:build drill

package drill

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

// maxResident is the memory that a replica may use while many clients send as much as they may: less than they offer at a
// time, several times over.
const maxResident = 1 << 30

// maxWithLarge is what a replica may take while many send large bodies: it fits a machine of half a gigabyte.
const maxWithLarge = 400 << 20

// Sixty-four clients send messages of 25 MB at once. Messages for which there is no memory get a temporary error, and the
// service lives.
func TestD30BodiesAreLarge(t *testing.T) {
	drillTest(t, "D30", plan{load: load{share: 0.3, plain: true}, byItself: true}, func(t *testing.T, r *rig) {
		var taken, refused, cut atomic.Int64
		x := r.replicas[0]
		r.sendLarge(t, x, &taken, &refused, &cut)
		resident := peakMemory(t, x.cmd.Process.Pid)
		r.report.tally("large_taken", taken.Load())
		r.report.tally("large_refused", refused.Load())
		r.report.tally("peak_mb", resident>>20)
		if taken.Load() == 0 || refused.Load() == 0 || cut.Load() > 0 {
			t.Errorf("large messages taken %d, refused %d, without an answer %d: want some, some and none", taken.Load(), refused.Load(), cut.Load())
		}
		if resident > maxWithLarge {
			t.Errorf("memory of %s at its peak = %d MB, want at most %d", x.name, resident>>20, maxWithLarge>>20)
		}
	})
}

// sendLarge has 64 clients send messages of 25 MB to one replica for a while.
func (r *rig) sendLarge(t *testing.T, x *replica, taken, refused, cut *atomic.Int64) {
	t.Helper()
	content := base64.StdEncoding.EncodeToString(make([]byte, 19<<20)) // 25 MiB as JSON
	var wg sync.WaitGroup
	end := time.Now().Add(*duration)
	for i := range 64 {
		wg.Go(func() {
			client := api.NewWith("http://"+x.api, r.keys["default"], r.http)
			for n := 0; time.Now().Before(end) || taken.Load() == 0 && n < 5; n++ {
				part := fmt.Sprintf("D30 %d %d", i, n)
				m := load{plain: true, policies: []string{"never"}}.compose(random(part), 600+i, n).request
				m.Attachments = []api.Attachment{{Filename: "a.bin", ContentType: "application/pdf", Content: content}}
				if _, err := client.Send(t.Context(), m, ""); err != nil {
					if _, answered := errors.AsType[*api.Problem](err); answered {
						refused.Add(1)
					} else {
						t.Log(err)
						cut.Add(1)
					}
					sleep(t.Context(), time.Second)
					continue
				}
				taken.Add(1)
			}
		})
	}
	wg.Wait()
}

// peakMemory is the most memory that a process had at a time (proc(5): VmHWM).
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	t.Fatal("the system does not tell the memory of a process")
	return 0
}
