//go:build drill

package drill

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

// container is the memory of a control group that D30b runs its replica in.
const container = 512 << 20

// The replica runs in a container of half a gigabyte, without any setting for it. 64 clients send messages of 25 MB, four
// send batches of that size, and 256 bodies of a megabyte hang at the receivers of events. The replica survives, and every
// client gets an answer.
func TestD30bBodiesAreLargeInASmallContainer(t *testing.T) {
	group := smallGroup(t)
	p := plan{
		load: load{share: 0.3, plain: true}, byItself: true,
		wrap: []string{"/bin/sh", "-c", "echo $$ > " + filepath.Join(group, "cgroup.procs") + ` && exec "$@"`, "sh"},
	}
	drillTest(t, "D30b", p, func(t *testing.T, r *rig) {
		var taken, refused, cut, hung, batches, hookCut atomic.Int64
		x := r.replicas[0]
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 256 {
			wg.Go(func() { hangBeforeHook(ctx, x.api, &hung, &hookCut) })
		}
		for i := range 4 {
			wg.Go(func() { r.sendBatches(ctx, t, x, i, &batches, &refused, &cut) })
		}
		r.sendLarge(t, x, &taken, &refused, &cut)
		cancel()
		wg.Wait()
		resident := peakMemory(t, x.cmd.Process.Pid)
		r.report.tally("large_taken", taken.Load())
		r.report.tally("large_batches_taken", batches.Load())
		r.report.tally("large_refused", refused.Load())
		r.report.tally("hook_bodies_hung", hung.Load())
		r.report.tally("peak_mb", resident>>20)
		if taken.Load() == 0 || refused.Load() == 0 || hung.Load() < 256 || cut.Load()+hookCut.Load() > 0 {
			t.Errorf("large messages taken %d, refused %d, hook bodies %d, requests and hooks without an answer %d and %d: want some, some, 256, none and none",
				taken.Load(), refused.Load(), hung.Load(), cut.Load(), hookCut.Load())
		}
		if resident > maxWithLarge {
			t.Errorf("memory of %s at its peak = %d MB, want at most %d", x.name, resident>>20, maxWithLarge>>20)
		}
	})
}

// smallGroup makes a control group of version 2 or 1 with a limit of memory, which only root can.
func smallGroup(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("sendgate-drill-%d", os.Getpid())
	var why error
	for dir, limit := range map[string]string{
		filepath.Join("/sys/fs/cgroup", name): "memory.max", filepath.Join("/sys/fs/cgroup/memory", name): "memory.limit_in_bytes",
	} {
		err := os.Mkdir(dir, 0o755) //nolint:gosec // as the others there
		if err == nil {
			t.Cleanup(func() { _ = os.Remove(dir) }) // those that ended are gone from it
			if _, err = os.Stat(filepath.Join(dir, limit)); err == nil {
				err = os.WriteFile(filepath.Join(dir, limit), []byte(fmt.Sprint(container)), 0o600)
			}
		}
		if err == nil {
			return dir
		}
		why = errors.Join(why, err)
	}
	t.Skipf("needs to make a control group with a limit of memory: %s", strings.ReplaceAll(why.Error(), "\n", "; "))
	return ""
}

// hangBeforeHook sends bodies without their last byte, one after the other. It counts them, and the connections that were cut
// without an answer.
func hangBeforeHook(ctx context.Context, addr string, hung, cut *atomic.Int64) {
	const size = 1 << 20
	body := append([]byte("["), bytes.Repeat([]byte(" "), size-2)...)
	for ctx.Err() == nil {
		c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", addr)
		if err != nil {
			sleep(ctx, 100*time.Millisecond)
			continue
		}
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		hung.Add(1)
		_, err = io.WriteString(c, "POST /hooks/sendgrid HTTP/1.1\r\nHost: flood\r\nContent-Type: application/json\r\n"+
			fmt.Sprintf("Content-Length: %d\r\n\r\n", size))
		if err == nil {
			_, _ = c.Write(body)
		}
		answer, _ := io.ReadAll(c)
		if !strings.HasPrefix(string(answer), "HTTP/1.1 ") && ctx.Err() == nil {
			cut.Add(1)
		}
		stop()
		_ = c.Close()
		sleep(ctx, 5*time.Second) // as it was told
	}
}

// sendBatches sends batches of three messages of 8 MB.
func (r *rig) sendBatches(ctx context.Context, t *testing.T, x *replica, client int, taken, refused, cut *atomic.Int64) {
	t.Helper()
	content := base64.StdEncoding.EncodeToString(make([]byte, 6<<20))
	c := api.NewWith("http://"+x.api, r.keys["default"], r.http)
	for n := 0; ctx.Err() == nil; n++ {
		var batch api.BatchRequest
		for k := range 3 {
			part := fmt.Sprintf("D30b batch %d %d %d", client, n, k)
			m := load{plain: true, policies: []string{"never"}}.compose(random(part), 700+client, 3*n+k).request
			m.Attachments = []api.Attachment{{Filename: "a.bin", ContentType: "application/pdf", Content: content}}
			batch.Messages = append(batch.Messages, m)
		}
		_, err := c.SendBatch(t.Context(), batch) // a request that was begun is finished, because it may be accepted
		if err == nil {
			taken.Add(1)
			continue
		}
		if p, answered := errors.AsType[*api.Problem](err); answered && p.Status == http.StatusServiceUnavailable {
			refused.Add(1)
		} else {
			t.Log(err)
			cut.Add(1)
		}
		sleep(ctx, time.Second)
	}
}
