package postgres

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// take claims deliveries with room for everything, and gives the events by endpoint.
func (b *bed) take(t *testing.T, each int, busy map[mail.ID]int) map[mail.ID][]mail.ID {
	t.Helper()
	claimed, _, err := b.db.ClaimDeliveries(t.Context(), each, 1000, 1000, time.Minute, busy)
	must(t, err)
	got := map[mail.ID][]mail.ID{}
	for _, d := range claimed {
		got[d.Endpoint.ID] = append(got[d.Endpoint.ID], d.Event.ID)
	}
	return got
}

func (b *bed) finish(t *testing.T, rs ...record.DeliveryResult) []mail.ID {
	t.Helper()
	disabled, err := b.db.FinishDeliveries(t.Context(), rs)
	must(t, err)
	return disabled
}

func result(endpoint, event mail.ID, outcome string) record.DeliveryResult {
	return record.DeliveryResult{Endpoint: endpoint, Event: event, N: 1, At: time.Now(), Outcome: outcome, Status: 500}
}

func TestClaimTellsAllThatIsKnownOfAnEvent(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.account(t, "relay")
	message := b.accept(t, with(func(s *record.Submission) { s.Message.Tags = []string{"order", "eu"} }))[0]
	endpoint := b.endpoint(t)
	want := mail.Event{
		ID: mail.NewID(), Tenant: mail.DefaultTenant, Type: mail.EventBounced, Name: "Bounce/HardBounce", MessageID: message, N: 0,
		ProviderMessageID: "pm-1", Recipient: "ann@example.org", At: time.Now().UTC().Truncate(time.Microsecond), Stream: "bulk",
		Tags: []string{"order", "eu"}, Account: "relay", Provider: "smtp", Source: mail.FromWebhook, Machine: true, URL: "https://example.org/",
		Bounce: &mail.Bounce{Class: mail.Hard, Reason: mail.InvalidAddress, Code: "550", Enhanced: "5.1.1", Text: "no such user"},
	}
	b.exec(t, `INSERT INTO event (id, origin, tenant_id, account_id, message_id, n, stream, type, name, recipient, at, source,
			provider_message_id, bounce, machine, url, key, raw)
		VALUES ($1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $1, 'raw')`,
		[16]byte(want.ID), want.Tenant, account, [16]byte(message), want.N, want.Stream, string(want.Type), want.Name, want.Recipient, want.At,
		string(want.Source), want.ProviderMessageID, want.Bounce, want.Machine, want.URL)
	b.exec(t, `INSERT INTO outbox (endpoint_id, event_id, tries, first_at) VALUES ($1, $2, 2, now() - interval '1 h')`, [16]byte(endpoint), [16]byte(want.ID))
	claimed, secrets, err := b.db.ClaimDeliveries(t.Context(), 4, 10, 10, time.Minute, nil)
	must(t, err)
	if len(claimed) != 1 || claimed[0].N != 3 || time.Since(claimed[0].FirstAt) < 59*time.Minute {
		t.Fatalf("claimed %+v, want the third try of one delivery", claimed)
	}
	want.Origin, want.Position = want.ID, claimed[0].Event.Position
	if diff := cmp.Diff(want, claimed[0].Event); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	e, err := b.db.Endpoint(t.Context(), mail.DefaultTenant, endpoint)
	must(t, err)
	e.Pending = 0
	if diff := cmp.Diff(*e, claimed[0].Endpoint); diff != "" {
		t.Errorf("endpoint (-want +got):\n%s", diff)
	}
	if s := secrets[endpoint]; len(s) != 1 || s[record.EndpointSecret].Reveal() != "whsec_one" {
		t.Errorf("%d secrets, want the one of the endpoint", len(s))
	}
}

func TestClaimGivesEachEndpointItsRoom(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	now := time.Now()
	full, busy, failing := b.endpoint(t), b.endpoint(t), b.endpoint(t)
	off := b.endpoint(t)
	events := b.happen(t, mail.DefaultTenant, mail.EventDelivered, "s", now, 10)
	b.exec(t, `UPDATE webhook_endpoint SET failing_since = now() WHERE id = $1`, [16]byte(failing))
	b.exec(t, `UPDATE webhook_endpoint SET disabled = true WHERE id = $1`, [16]byte(off))
	b.exec(t, `UPDATE outbox SET due = now() + interval '1 h' WHERE event_id = $1`, [16]byte(events[1]))
	holding := map[mail.ID]int{busy: 3, mail.NewID(): 9}
	want := map[mail.ID][]mail.ID{full: {events[0], events[2], events[3], events[4]}, busy: {events[0]}, failing: {events[0]}}
	if diff := cmp.Diff(want, b.take(t, 4, holding)); diff != "" {
		t.Errorf("first claim (-want +got):\n%s", diff)
	}
	// What was claimed is not due: the next claim finds what comes after it.
	holding = map[mail.ID]int{full: 4, busy: 3, failing: 1}
	want = map[mail.ID][]mail.ID{busy: {events[2]}}
	if diff := cmp.Diff(want, b.take(t, 4, holding)); diff != "" {
		t.Errorf("second claim (-want +got):\n%s", diff)
	}
	claimed, _, err := b.db.ClaimDeliveries(t.Context(), 4, 3, 0, time.Minute, nil)
	must(t, err)
	if len(claimed) != 3 || slices.ContainsFunc(claimed, func(d record.Delivery) bool { return d.Endpoint.ID == failing }) {
		t.Errorf("a claim for 3 of the healthy took %d", len(claimed))
	}
}

func TestTwoReplicasNeverClaimTheSame(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for range 5 {
		b.endpoint(t)
	}
	b.happen(t, mail.DefaultTenant, mail.EventDelivered, "s", time.Now(), 40)
	stores := []*DB{b.db, b.open(t, Options{})}
	var mu sync.Mutex
	seen := map[[2]mail.ID]int{}
	var claims sync.WaitGroup
	for i := range 6 {
		claims.Go(func() {
			for range 10 {
				claimed, _, err := stores[i%2].ClaimDeliveries(t.Context(), 2, 1000, 1000, time.Minute, nil)
				if err != nil {
					t.Errorf("claim: %v", err)
					return
				}
				mu.Lock()
				for _, d := range claimed {
					seen[[2]mail.ID{d.Endpoint.ID, d.Event.ID}]++
				}
				mu.Unlock()
			}
		})
	}
	claims.Wait()
	for d, n := range seen {
		if n > 1 {
			t.Errorf("%v was claimed %d times", d, n)
		}
	}
	if len(seen) != 200 {
		t.Errorf("%d deliveries were claimed, want 200", len(seen))
	}
}

func TestClaimIsBackAfterItsLease(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.endpoint(t)
	b.happen(t, mail.DefaultTenant, mail.EventDelivered, "s", time.Now(), 1)
	if n := len(b.take(t, 4, nil)[id]); n != 1 {
		t.Fatalf("claimed %d, want 1", n)
	}
	if left := get[time.Duration](t, b, `SELECT due - now() FROM outbox`); left < 50*time.Second || left > time.Minute {
		t.Errorf("due again in %s, want the lease of a minute", left)
	}
	b.exec(t, `UPDATE outbox SET due = now()`)
	if n := len(b.take(t, 4, nil)[id]); n != 1 {
		t.Errorf("claimed %d after the lease, want 1", n)
	}
}

func TestDeliveryOfAForgottenEventIsDropped(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.endpoint(t)
	events := b.happen(t, mail.DefaultTenant, mail.EventDelivered, "s", time.Now(), 2)
	b.exec(t, `DELETE FROM event WHERE id = $1`, [16]byte(events[0]))
	if got := b.take(t, 4, nil)[id]; !cmp.Equal(got, events[1:]) {
		t.Errorf("claimed %v, want %v", got, events[1:])
	}
	if got := b.waiting(t, id); !cmp.Equal(got, events[1:]) {
		t.Errorf("%v wait, want %v", got, events[1:])
	}
}

func TestSecretThatDoesNotOpenStopsNoOther(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	broken, sound := b.endpoint(t), b.endpoint(t)
	b.happen(t, mail.DefaultTenant, mail.EventDelivered, "s", time.Now(), 1)
	b.exec(t, `UPDATE webhook_endpoint SET secret = 'nonsense' WHERE id = $1`, [16]byte(broken))
	claimed, secrets, err := b.db.ClaimDeliveries(t.Context(), 4, 10, 10, time.Minute, nil)
	if !errors.Is(err, seal.ErrSealed) || !strings.Contains(err.Error(), broken.String()) {
		t.Errorf("error %v does not name the endpoint", err)
	}
	if len(claimed) != 2 || len(secrets[broken]) != 0 || len(secrets[sound]) != 1 {
		t.Errorf("%d claimed, secrets %v", len(claimed), secrets)
	}
}

func TestFinishedDeliveries(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		n       int
		outcome string
		retryIn time.Duration
		waits   bool
		tries   int
		logged  int
		failing bool
	}{
		"told":       {n: 2, outcome: record.DeliveryDone, logged: 1},
		"given up":   {n: 10, outcome: record.DeliveryFailed, logged: 1, failing: true},
		"again":      {n: 3, outcome: record.DeliveryRetry, retryIn: time.Hour, waits: true, tries: 3, logged: 1, failing: true},
		"given back": {n: 3, outcome: "", waits: true, tries: 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			id := b.endpoint(t)
			event := b.happen(t, mail.DefaultTenant, mail.EventDelivered, "s", time.Now(), 1)[0]
			b.take(t, 4, nil)
			r := result(id, event, tt.outcome)
			r.N, r.RetryIn = tt.n, tt.retryIn
			b.finish(t, r)
			if got := len(b.waiting(t, id)) == 1; got != tt.waits {
				t.Fatalf("waits: %t, want %t", got, tt.waits)
			}
			if tt.waits {
				due := get[time.Duration](t, b, `SELECT due - now() FROM outbox`)
				if tries := get[int](t, b, `SELECT tries FROM outbox`); tries != tt.tries || due > tt.retryIn || due < tt.retryIn-time.Minute {
					t.Errorf("due in %s after %d tries, want %s and %d", due, tries, tt.retryIn, tt.tries)
				}
			}
			if n := get[int](t, b, `SELECT count(*) FROM delivery WHERE outcome = $1 AND n = $2`, tt.outcome, tt.n); n != tt.logged {
				t.Errorf("%d lines in the log, want %d", n, tt.logged)
			}
			e, err := b.db.Endpoint(t.Context(), mail.DefaultTenant, id)
			must(t, err)
			if e.FailingSince.IsZero() == tt.failing || e.LastSuccess.IsZero() == (tt.outcome == record.DeliveryDone) {
				t.Errorf("failing since %s, last success %s", e.FailingSince, e.LastSuccess)
			}
		})
	}
}

func TestFailuresCountFromTheFirstOne(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.endpoint(t)
	since := func() time.Time {
		e, err := b.db.Endpoint(t.Context(), mail.DefaultTenant, id)
		must(t, err)
		return e.FailingSince
	}
	b.finish(t, result(id, mail.NewID(), record.DeliveryRetry))
	first := since()
	b.finish(t, result(id, mail.NewID(), record.DeliveryFailed))
	if got := since(); first.IsZero() || !got.Equal(first) {
		t.Errorf("failing since %s, want %s", got, first)
	}
	b.finish(t, result(id, mail.NewID(), record.DeliveryRetry), result(id, mail.NewID(), record.DeliveryDone), result(id, mail.NewID(), record.DeliveryRetry))
	if got := since(); !got.IsZero() {
		t.Errorf("failing since %s, want not at all after a success", got)
	}
}

func TestDisabling(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		failing  bool // before
		disabled bool // before
		success  bool // in the same batch
		status   int
		want     bool
	}{
		"gone":                         {status: 410, want: true},
		"gone, though it failed":       {failing: true, status: 410, want: true},
		"failing for days":             {failing: true, status: 500, want: true},
		"recovered meanwhile":          {status: 500},
		"recovered at the same moment": {failing: true, success: true, status: 500},
		"disabled already":             {failing: true, disabled: true, status: 410},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			id := b.endpoint(t)
			listener := b.endpoint(t, func(e *record.Endpoint) { e.Streams = []string{"bulk"} })
			stranger := b.endpoint(t, func(e *record.Endpoint) { e.Tenant = b.tenant(t) })
			event := b.happen(t, mail.DefaultTenant, mail.EventDelivered, "s", time.Now(), 1)[0]
			b.exec(t, `UPDATE webhook_endpoint SET disabled = $2, failing_since = CASE WHEN $3 THEN now() - interval '5 days' END WHERE id = $1`,
				[16]byte(id), tt.disabled, tt.failing)
			r := result(id, event, record.DeliveryDisabled)
			r.Status, r.Disable = tt.status, "it is gone"
			rs := []record.DeliveryResult{r, r} // several calls were under way
			if tt.success {
				rs = append(rs, result(id, mail.NewID(), record.DeliveryDone))
			}
			want := []mail.ID(nil)
			if tt.want {
				want = []mail.ID{id}
			}
			if diff := cmp.Diff(want, b.finish(t, rs...)); diff != "" {
				t.Errorf("disabled (-want +got):\n%s", diff)
			}
			b.checkDisabled(t, id, listener, tt.want)
			if n := len(b.waiting(t, id)); n != 1 {
				t.Errorf("%d deliveries wait for the day it is enabled, want 1", n)
			}
			if n := len(b.waiting(t, stranger)); n != 0 {
				t.Error("another tenant is told")
			}
		})
	}
}

// checkDisabled looks for all that disabling leaves behind, or for none of it.
func (b *bed) checkDisabled(t *testing.T, id, listener mail.ID, want bool) {
	t.Helper()
	n := 0
	if want {
		n = 1
	}
	e, err := b.db.Endpoint(t.Context(), mail.DefaultTenant, id)
	must(t, err)
	if want && (!e.Disabled || e.DisabledReason != "it is gone") {
		t.Errorf("endpoint %+v, want it disabled with the reason", e)
	}
	if got := get[int](t, b, `SELECT count(*) FROM event WHERE type = 'endpoint_disabled' AND source = 'system' AND name = 'it is gone'
		AND url = $1 AND account_id = 0 AND message_id IS NULL`, e.URL); got != n {
		t.Errorf("%d events, want %d", got, n)
	}
	if got := get[int](t, b, `SELECT count(*) FROM audit WHERE action = 'webhook_endpoint.disable' AND target = $1 AND actor = 'system'`, id.String()); got != n {
		t.Errorf("%d audit entries, want %d", got, n)
	}
	if got := len(b.waiting(t, listener)); got != n {
		t.Errorf("the tenant's other endpoint is told %d times, want %d", got, n)
	}
}

func TestFinishingTogetherNeverLocksUp(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var ids []mail.ID
	for range 8 {
		ids = append(ids, b.endpoint(t))
	}
	events := b.happen(t, mail.DefaultTenant, mail.EventDelivered, "s", time.Now(), 30)
	stores := []*DB{b.db, b.open(t, Options{})}
	var done sync.WaitGroup
	for i := range 4 {
		done.Go(func() {
			for _, event := range events {
				var rs []record.DeliveryResult
				for k := range ids {
					outcome := record.DeliveryRetry
					if (k+i)%2 == 0 {
						outcome = record.DeliveryDone
					}
					rs = append(rs, result(ids[(k*(2*i+1))%len(ids)], event, outcome))
				}
				if _, err := stores[i%2].FinishDeliveries(t.Context(), rs); err != nil {
					t.Errorf("finish: %v", err)
				}
			}
		})
	}
	done.Wait()
	if n := get[int](t, b, `SELECT count(*) FROM delivery`); n != 4*30*8 {
		t.Errorf("%d lines in the log, want %d", n, 4*30*8)
	}
}

// TestOutboxIsReadByItsIndex holds the claim to a cost that follows the endpoints, not what waits for them.
func TestOutboxIsReadByItsIndex(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	for range 3 {
		b.endpoint(t)
	}
	b.happen(t, mail.DefaultTenant, mail.EventDelivered, "s", time.Now(), 5000)
	for _, state := range []string{"young statistics", "analysed"} {
		for _, failing := range []bool{false, true} {
			args := []any{4, failing, 100, time.Minute, [][16]byte{}, []int32{}}
			b.explainOutbox(t, state, claimOutboxSQL, args...)
		}
		gone := rowsAs("d", 1)
		gone.row().id("endpoint_id", mail.NewID()).id("event_id", mail.NewID())
		b.explainOutbox(t, state, deleteOutboxSQL, gone)
		b.exec(t, `ANALYZE outbox, webhook_endpoint, event`)
	}
}

func (b *bed) explainOutbox(t *testing.T, state, sql string, args ...any) {
	t.Helper()
	tx, err := b.db.hooks.Begin(t.Context())
	must(t, err)
	defer func() { _ = tx.Rollback(t.Context()) }()
	rows, err := tx.Query(t.Context(), `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) `+sql, args...)
	must(t, err)
	text, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[[]byte])
	must(t, err)
	var plan []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	must(t, json.Unmarshal(text, &plan))
	if strings.Contains(string(text), `"Node Type": "Seq Scan"`) {
		t.Errorf("%s: the plan reads a table as a whole:\n%s", state, text)
	}
	if n := plan[0].Plan.Hit + plan[0].Plan.Read; n > 1000 {
		t.Errorf("%s: %d blocks were looked at, want a few:\n%s", state, n, text)
	}
}
