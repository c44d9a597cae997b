package postgres

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func TestTheQueueTellsWhatReplicasReport(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	owner := b.replica(t)
	q, err := b.db.Queue(t.Context())
	must(t, err)
	if q.Replicas[0].Report != nil {
		t.Errorf("report of a new replica = %+v", q.Replicas[0].Report)
	}
	want := &record.ReplicaReport{Accepted: 12.5, Accounts: []record.AccountReport{{Account: "ses", Sent: 3, Breaker: "half-open"}}}
	must(t, b.db.Report(t.Context(), owner, *want))
	must(t, b.db.Report(t.Context(), mail.NewID(), *want)) // of a replica that is gone
	q, err = b.db.Queue(t.Context())
	must(t, err)
	if len(q.Replicas) != 1 || cmp.Diff(want, q.Replicas[0].Report) != "" {
		t.Errorf("replicas = %+v", q.Replicas)
	}
}

func TestTheQueueCountsEventsThatWaitForEndpoints(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.exec(t, `INSERT INTO outbox (endpoint_id, event_id) SELECT $1, gen_random_uuid() FROM generate_series(1, 3)`, [16]byte(b.endpoint(t)))
	q, err := b.db.Queue(t.Context())
	must(t, err)
	if q.Webhooks != 3 {
		t.Errorf("webhooks = %d, want 3", q.Webhooks)
	}
}
