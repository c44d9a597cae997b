//go:build drill

package drill

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

// weight turns the weight of an account in the pool "default".
func (r *rig) weight(t *testing.T, account string, weight float64) {
	t.Helper()
	pool, err := r.admin.Pool(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	for i := range pool.Accounts {
		if pool.Accounts[i].Account == account {
			pool.Accounts[i].Weight = weight
		}
	}
	if _, err := r.admin.PutPool(t.Context(), *pool); err != nil {
		t.Fatal(err)
	}
	pause(t, 2*time.Second) // which is when a change binds everywhere
}

// cutter is a connection on which requests arrive and no answer comes back.
type cutter struct {
	addr     string
	answered atomic.Int64 // bytes that it passed on, which is none
	dropped  atomic.Int64 // bytes of answers that it swallowed
}

// cutAnswers is a proxy for an address that drops the answers.
func cutAnswers(t *testing.T, target string) *cutter {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{addr: l.Addr().String()}
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			go c.pass(from, target)
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return c
}

func (c *cutter) pass(from net.Conn, target string) {
	defer func() { _ = from.Close() }()
	to, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", target)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	go func() { _, _ = io.Copy(to, from) }()
	n, _ := io.Copy(io.Discard, to) // until the process dies
	c.dropped.Add(n)
}

// sendInto posts n messages to an address from which no answer comes, and logs its requests as the other clients do.
func (r *rig) sendInto(t *testing.T, addr string, n int) []promise {
	t.Helper()
	var all []promise
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	t.Cleanup(cancel)
	for i := range n {
		x := r.letter(i)
		p := promise{Key: fmt.Sprintf("%s-cut-%d", r.id, i), Policy: x.policy, Tenant: x.tenant}
		all = append(all, p)
		wg.Go(func() { _, _ = api.NewWith("http://"+addr, r.keys[x.tenant], r.http).Send(ctx, x.request, p.Key) })
	}
	go func() { wg.Wait(); cancel() }()
	return all
}

// letter is the ith message that a drill sends in addition to its clients, the same at each call.
func (r *rig) letter(i int) letter {
	return load{plain: true}.compose(random(fmt.Sprintf("%s letter %d", r.id, i)), 900, i)
}

// committed counts the messages of the keys.
func (r *rig) committed(t *testing.T, all []promise) int {
	t.Helper()
	keys := make([]string, len(all))
	for i, p := range all {
		keys[i] = p.Key
	}
	return r.number(t, `SELECT count(*) FROM idempotency i JOIN message m ON m.id = i.message_id WHERE i.key = ANY ($1)`, keys)
}

// repeat sends the messages again, with the same keys, to a replica that answers, and logs the 202s.
func (r *rig) repeat(t *testing.T, all []promise) {
	t.Helper()
	log, err := os.Create(filepath.Join(r.dir, "client-repeat.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	for i, p := range all {
		x := r.letter(i)
		if !r.clients.send(t.Context(), x, &p) {
			t.Errorf("key %s was not answered", p.Key)
		}
		if err := note(log, p); err != nil {
			t.Fatal(err)
		}
	}
}
