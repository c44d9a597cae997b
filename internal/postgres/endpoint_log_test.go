package postgres

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func TestReplayGoesThroughTheSpanInBatches(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.endpoint(t)
	start := time.Now().Truncate(time.Millisecond).Add(-time.Hour)
	b.happen(t, mail.DefaultTenant, mail.EventOpened, "s", start.Add(-time.Millisecond), 3)
	in := b.happen(t, mail.DefaultTenant, mail.EventOpened, "s", start, replayBatch+5)
	b.happen(t, mail.DefaultTenant, mail.EventOpened, "s", start.Add(time.Second), 3)
	b.exec(t, `DELETE FROM outbox WHERE event_id <> $1`, [16]byte(in[7]))
	n, err := b.db.ReplayEndpoint(t.Context(), "tester", mail.DefaultTenant, id, start, start.Add(time.Second))
	must(t, err)
	if n != int64(len(in)-1) { // one was waiting already
		t.Errorf("queued %d, want %d", n, len(in)-1)
	}
	if got := b.waiting(t, id); len(got) != len(in) || got[0] != in[0] {
		t.Errorf("%d wait, want the %d of the span", len(got), len(in))
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := b.db.ReplayEndpoint(ctx, "tester", mail.DefaultTenant, id, start, start.Add(time.Second)); err == nil {
		t.Error("a replay went on without its caller")
	}
}

func TestDeliveriesArePagedNewestFirst(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id, other := b.endpoint(t), b.endpoint(t)
	event := mail.NewID()
	at := time.Now().UTC().Truncate(time.Microsecond)
	var rs []record.DeliveryResult
	for n := range 5 {
		r := record.DeliveryResult{
			Endpoint: id, Event: event, N: n + 1, At: at.Add(time.Duration(n) * time.Second), Took: time.Duration(n) * time.Millisecond,
			Status: 500 + n, Outcome: record.DeliveryRetry, Error: fmt.Sprintf("no\x00 %d", n),
		}
		rs = append(rs, r)
		r.Endpoint = other
		rs = append(rs, r)
	}
	_, err := b.db.FinishDeliveries(t.Context(), rs)
	must(t, err)
	var got []record.DeliveryEntry
	var before mail.ID
	for {
		page, err := b.db.Deliveries(t.Context(), mail.DefaultTenant, id, before, 2)
		must(t, err)
		if got = append(got, page...); len(page) < 2 {
			break
		}
		before = page[1].ID
	}
	var want []record.DeliveryEntry
	for n := 4; n >= 0; n-- {
		r := rs[2*n]
		r.Error = fmt.Sprintf("no %d", n)
		want = append(want, record.DeliveryEntry{DeliveryResult: r})
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(record.DeliveryEntry{}, "ID")); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}
