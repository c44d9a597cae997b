//go:build drill

package app

import (
	"errors"
	"net/http"
	"sync"
	"testing"

	"github.com/sendgate/sendgate/api"
)

func TestOneKeyIsOneMessageHoweverManyAsk(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	first, second := b.start(t), b.start(t)
	replicas := []*replica{first, second}
	const keys, clients = 3, 64
	for k := range keys {
		key := "order-" + string(rune('a'+k))
		ids := make([]string, clients)
		errs := make([]error, clients)
		gun := make(chan struct{})
		var wg sync.WaitGroup
		for c := range clients {
			wg.Go(func() {
				<-gun
				got, err := replicas[c%2].api.Send(t.Context(), letter(k), key)
				if errs[c] = err; err == nil {
					ids[c] = got.ID
				}
			})
		}
		close(gun)
		wg.Wait()
		first := ""
		for c, id := range ids {
			p, refused := errors.AsType[*api.Problem](errs[c])
			switch {
			case errs[c] != nil && (!refused || p.Status != http.StatusServiceUnavailable):
				t.Errorf("key %s, client %d: %v", key, c, errs[c])
			case errs[c] == nil && first == "":
				first = id
			case errs[c] == nil && id != first:
				t.Errorf("key %s: ids %s and %s", key, first, id)
			}
		}
		_, err := replicas[k%2].api.Send(t.Context(), letter(1000+k), key)
		wantProblem(t, "the same key with another body", err, http.StatusUnprocessableEntity)
	}
	if got := b.count(t.Context(), `SELECT count(*) FROM message`); got != keys {
		t.Errorf("messages = %d, want one for each of %d keys", got, keys)
	}
	b.settle(t, settleTime)
	if got := len(b.emu.Ledger()); got != keys {
		t.Errorf("ledger entries = %d, want %d", got, keys)
	}
}
