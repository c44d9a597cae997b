package postgres

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
)

func TestWhereAMessageStandsIsTold(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	f := b.fly(t, submission())
	ids := b.acceptN(t, 3)
	b.exec(t, `UPDATE ready SET due = now() - interval '1 hour' + interval '1 second' * array_position($1::uuid[], id)`, rawIDs(ids))
	later := time.Now().Add(time.Hour).Truncate(time.Second)
	b.exec(t, `UPDATE ready SET avoid = '{"a":{"why":"503"}}', tries = 2 WHERE id = $1`, [16]byte(ids[2]))

	stands := func(id mail.ID) *queue.Waiting {
		t.Helper()
		w, err := b.db.Waiting(t.Context(), id)
		must(t, err)
		v, err := b.db.Message(t.Context(), mail.DefaultTenant, id)
		must(t, err)
		if diff := cmp.Diff(w, v.Waiting); diff != "" {
			t.Errorf("the message says otherwise than Waiting:\n%s", diff)
		}
		return w
	}
	if w := stands(ids[2]); !w.Ready || w.Ahead != 2 || w.Tries != 2 || w.Avoid["a"].Why != "503" || w.Facts.SenderDomain == "" {
		t.Errorf("the last of three due ones: %+v, want two ahead", w)
	}
	b.exec(t, `UPDATE ready SET due = $2, held = true WHERE id = $1`, [16]byte(ids[1]), later)
	if w := stands(ids[1]); !w.Ready || !w.Held || w.Ahead != 0 || !w.Due.Equal(later) {
		t.Errorf("one that is held: %+v", w)
	}
	if w := stands(f.id); !w.Sending || w.Account == "" || w.Ready || w.Unknown {
		t.Errorf("one that is sent now: %+v", w)
	}
	b.record(t, f.owner, queue.Result{ID: f.id, N: 1, Class: "uncertain", Unknown: &queue.Hanging{DecideIn: time.Minute, Policy: mail.Never}})
	if w := stands(f.id); !w.Unknown || w.Account == "" || w.Decide.IsZero() || w.Policy != mail.Never || w.Sending {
		t.Errorf("one of unknown outcome: %+v", w)
	}
	must(t, b.db.Cancel(t.Context(), mail.DefaultTenant, ids[0]))
	if w := stands(ids[0]); w.Ready || w.Sending || w.Unknown || w.Facts == nil {
		t.Errorf("a settled one: %+v", w)
	}
	if _, err := b.db.Waiting(t.Context(), mail.NewID()); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
}

func TestQueueCountsWhatIsDueOfEachTenant(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.exec(t, `INSERT INTO tenant (id, name) VALUES (77, 'other')`)
	b.acceptN(t, 3)
	b.exec(t, `INSERT INTO ready (id, lane, tenant_id, due) SELECT gen_random_uuid(), 1, 1, now() + interval '1 hour' FROM generate_series(1, 5)`)
	b.exec(t, `INSERT INTO ready (id, lane, tenant_id, due) SELECT gen_random_uuid(), 1, 77, now() - interval '1 hour' FROM generate_series(1, $1)`, tenantsCounted+10)
	q, err := b.db.Queue(t.Context())
	must(t, err)
	want := []record.TenantDepth{{Tenant: "other", Ready: tenantsCounted / 2, More: true}, {Tenant: "default", Ready: 3}} // two lanes
	if diff := cmp.Diff(want, q.Tenants); diff != "" || q.Ready != tenantsCounted+13 || q.Scheduled != 5 {
		t.Errorf("ready %d, scheduled %d, tenants (-want +got):\n%s", q.Ready, q.Scheduled, diff)
	}
}
