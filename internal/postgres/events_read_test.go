package postgres

import (
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
)

const plainEventSQL = `
INSERT INTO event (id, origin, tenant_id, account_id, message_id, n, stream, type, name, recipient, at, source, provider_message_id, bounce, machine, url, key)
VALUES ($1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $1)`

func insertEvent(e *mail.Event, account int32) (string, []any) {
	if e.ID.IsZero() {
		e.ID = mail.NewID()
	}
	var message *[16]byte
	if !e.MessageID.IsZero() {
		message = (*[16]byte)(&e.MessageID)
	}
	at := e.At
	if at.IsZero() {
		at = time.Now()
	}
	return plainEventSQL, []any{
		[16]byte(e.ID), e.Tenant, account, message, e.N, e.Stream, string(e.Type), e.Name, e.Recipient, at, "webhook",
		e.ProviderMessageID, e.Bounce, e.Machine, e.URL,
	}
}

// happened writes events of tenant 1 unless they name another, one transaction each.
func (b *bed) happened(t *testing.T, account int32, events ...*mail.Event) {
	t.Helper()
	for _, e := range events {
		if e.Tenant == 0 {
			e.Tenant = mail.DefaultTenant
		}
		sql, args := insertEvent(e, account)
		b.exec(t, sql, args...)
	}
}

// streamed reads on until it has n events, and what comes with them. Transactions of other tests, in databases of the same
// cluster, hold up the stream of this one.
func (b *bed) streamed(t *testing.T, f record.EventFilter, after string, limit, n int) []mail.ID {
	t.Helper()
	b.settle(t)
	var ids []mail.ID
	for range 1000 {
		events, next, err := b.db.EventsAfter(t.Context(), f, after, limit)
		must(t, err)
		for _, e := range events {
			ids = append(ids, e.ID)
		}
		if len(ids) >= n && len(events) == 0 {
			return ids
		}
		after = next
	}
	t.Fatalf("the stream gives %d events, want %d", len(ids), n)
	return nil
}

// settle waits until every transaction that is open now, in the whole cluster, has ended.
func (b *bed) settle(t *testing.T) {
	t.Helper()
	newest := get[int64](t, b, `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint`)
	until(t, "older transactions to end", func() bool {
		return get[int64](t, b, `SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint`) >= newest
	})
}

func TestEventIsShownWhole(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	account := b.relay(t)
	id := b.accept(t, with(func(s *record.Submission) { s.Message.Tags = []string{"order", "eu"} }))[0]
	want := mail.Event{
		Type: mail.EventBounced, Name: "Bounce/HardBounce", MessageID: id, ProviderMessageID: "pm-1", Recipient: "ann@example.org",
		At: time.Now().UTC().Truncate(time.Millisecond), Bounce: &mail.Bounce{Class: mail.Hard, Reason: mail.InvalidAddress, Code: "550"},
		Machine: true, URL: "https://example.com/", Stream: "transactional",
	}
	b.happened(t, account, &want)
	want.Origin, want.Account, want.Provider, want.Tags, want.Source = want.ID, "relay", "smtp", []string{"order", "eu"}, mail.FromWebhook
	ours := mail.Event{Type: mail.EventEndpointDisabled, N: -1}
	b.happened(t, 0, &ours)
	got, err := b.db.Events(t.Context(), record.EventFilter{Tenant: 1, Limit: 9})
	must(t, err)
	if len(got) != 2 || got[0].ID != ours.ID || got[0].N != -1 || !got[0].MessageID.IsZero() {
		t.Fatalf("events = %+v, want ours first", got)
	}
	if got[1].Position == "" {
		t.Error("the event has no position")
	}
	got[1].Position = ""
	if diff := cmp.Diff(want, got[1]); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

// The list filters in SQL and the stream in Go: the same filter must mean the same to both.
func TestListAndStreamSelectTheSameEvents(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	relay, other := b.relay(t), b.account(t, "other")
	first := b.accept(t, submission("Ann@example.org", "bob@example.org"))[0]
	second := b.accept(t, submission("ann@example.org"))[0]
	var all []*mail.Event
	add := func(account int32, e mail.Event) {
		b.happened(t, account, &e)
		all = append(all, &e)
	}
	add(relay, mail.Event{Type: mail.EventDelivered, MessageID: first, Recipient: "ann@example.org", Stream: "transactional"})
	add(relay, mail.Event{Type: mail.EventBounced, MessageID: first, Recipient: "bob@example.org", N: 1, Stream: "transactional"})
	add(other, mail.Event{Type: mail.EventDelivered, MessageID: second, Recipient: "ann@example.org", Stream: "news"})
	add(other, mail.Event{Type: mail.EventUnmapped, Name: "strange", MessageID: second, N: -1, Stream: "news"})
	add(0, mail.Event{Type: mail.EventEndpointDisabled, N: -1})
	b.happened(t, relay, &mail.Event{Type: mail.EventDelivered, Tenant: 2, MessageID: mail.NewID(), Recipient: "ann@example.org"})
	for _, tc := range []struct {
		f    record.EventFilter
		want []int
	}{
		{record.EventFilter{}, []int{0, 1, 2, 3, 4}},
		{record.EventFilter{Types: []mail.EventType{mail.EventDelivered}}, []int{0, 2}},
		{record.EventFilter{Types: []mail.EventType{mail.EventBounced, mail.EventEndpointDisabled}}, []int{1, 4}},
		{record.EventFilter{MessageID: second}, []int{2, 3}},
		{record.EventFilter{Recipient: "Ann@example.org"}, []int{0, 2}},
		{record.EventFilter{Recipient: "bob@example.org"}, []int{1}},
		{record.EventFilter{Account: "other"}, []int{2, 3}},
		{record.EventFilter{Account: "nobody"}, nil},
		{record.EventFilter{Stream: "news"}, []int{2, 3}},
		{record.EventFilter{Stream: "news", Types: []mail.EventType{mail.EventDelivered}, Recipient: "ann@example.org", Account: "other", MessageID: second}, []int{2}},
		{record.EventFilter{Tenant: 3}, nil},
	} {
		if tc.f.Tenant == 0 {
			tc.f.Tenant = mail.DefaultTenant
		}
		tc.f.Limit = 10
		var want []mail.ID
		for _, i := range tc.want {
			want = append(want, all[i].ID)
		}
		streamed := b.streamed(t, tc.f, position{xid: "3"}.String(), 2, len(want))
		if diff := cmp.Diff(want, streamed); diff != "" {
			t.Errorf("stream of %+v (-want +got):\n%s", tc.f, diff)
		}
		events, err := b.db.Events(t.Context(), tc.f)
		must(t, err)
		var listed []mail.ID
		for _, e := range slices.Backward(events) {
			listed = append(listed, e.ID)
		}
		if diff := cmp.Diff(want, listed); diff != "" {
			t.Errorf("list of %+v (-want +got):\n%s", tc.f, diff)
		}
	}
}

func TestEventsArePagedByReceipt(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var all []*mail.Event
	for range 5 {
		e := &mail.Event{Type: mail.EventOpened}
		b.happened(t, 0, e)
		all = append([]*mail.Event{e}, all...)
	}
	var got, want []mail.ID
	f := record.EventFilter{Tenant: 1, Limit: 2}
	for range 3 {
		page, err := b.db.Events(t.Context(), f)
		must(t, err)
		for _, e := range page {
			got = append(got, e.ID)
			f.Before = e.ID
		}
	}
	for _, e := range all {
		want = append(want, e.ID)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
	span := record.EventFilter{Tenant: 1, Limit: 9, Since: all[0].ID.Time().Add(time.Millisecond)}
	if got, err := b.db.Events(t.Context(), span); err != nil || len(got) != 0 {
		t.Errorf("events received after the last = %d, %v", len(got), err)
	}
	span = record.EventFilter{Tenant: 1, Limit: 9, Since: all[4].ID.Time(), Until: all[0].ID.Time().Add(time.Millisecond)}
	if got, err := b.db.Events(t.Context(), span); err != nil || len(got) != 5 {
		t.Errorf("events received in the whole span = %d, %v, want 5", len(got), err)
	}
}

func TestStreamWaitsForOlderTransactions(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	start, err := b.db.EventHead(t.Context())
	must(t, err)
	late, early := mail.Event{Type: mail.EventOpened, Tenant: 1}, mail.Event{Type: mail.EventClicked, Tenant: 1}
	slow := b.begin(t)
	sql, args := insertEvent(&late, 0)
	if _, err := slow.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
	b.happened(t, 0, &early)
	before, held, err := b.db.EventsAfter(t.Context(), record.EventFilter{Tenant: 1}, start, 10)
	if must(t, err); len(before) != 0 {
		t.Errorf("the stream shows %d events past an open transaction, which it could not go back to", len(before))
	}
	fresh, err := b.db.EventHead(t.Context())
	must(t, err)
	must(t, slow.Commit(t.Context()))
	for name, from := range map[string]string{"at the start": start, "while it was held": held, "opened meanwhile": fresh} {
		got := b.streamed(t, record.EventFilter{Tenant: 1}, from, 10, 2)
		if diff := cmp.Diff([]mail.ID{late.ID, early.ID}, got); diff != "" {
			t.Errorf("stream from the position %s (-want +got):\n%s", name, diff)
		}
	}
}

// Writers commit in any order while readers with small pages follow; each reader sees each event once.
func TestStreamLosesAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	start, err := b.db.EventHead(t.Context())
	must(t, err)
	const writers, each = 4, 60
	var mu sync.Mutex
	var written []mail.ID
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				events := []*mail.Event{{Type: mail.EventOpened, Tenant: 1}, {Type: mail.EventClicked, Tenant: 1}}
				for _, e := range events {
					e.ID = mail.NewID()
				}
				if w%2 == 1 {
					slices.Reverse(events)
				}
				err := pgx.BeginFunc(t.Context(), b.sql, func(tx pgx.Tx) error {
					for _, e := range events {
						sql, args := insertEvent(e, 0)
						if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
							return err
						}
					}
					if i%7 == w {
						_, err := tx.Exec(t.Context(), `SELECT pg_sleep(0.02)`)
						return err
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				written = append(written, events[0].ID, events[1].ID)
				mu.Unlock()
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	var got []mail.ID
	var places []position
	after := start
	for last := false; ; {
		if last {
			b.settle(t)
		}
		events, next, err := b.db.EventsAfter(t.Context(), record.EventFilter{Tenant: 1}, after, 3)
		must(t, err)
		for _, e := range events {
			p, err := parsePosition(e.Position)
			must(t, err)
			got, places = append(got, e.ID), append(places, p)
		}
		after = next
		if last && len(events) == 0 {
			break
		}
		select {
		case <-done:
			last = true
		default:
		}
	}
	if !slices.IsSortedFunc(places, func(p, q position) int {
		if p.less(q) {
			return -1
		}
		return 1
	}) {
		t.Error("the stream went back")
	}
	inOrder := func(ids []mail.ID) []mail.ID {
		ids = slices.Clone(ids)
		slices.SortFunc(ids, func(a, b mail.ID) int { return strings.Compare(a.String(), b.String()) })
		return ids
	}
	if diff := cmp.Diff(inOrder(written), inOrder(got)); diff != "" || len(got) != 2*writers*each {
		t.Errorf("streamed %d of %d (-written +streamed):\n%s", len(got), 2*writers*each, diff)
	}
	for _, i := range []int{0, 1, len(got) / 2, len(got) - 1} { // a break anywhere resumes there
		rest := b.streamed(t, record.EventFilter{Tenant: 1}, places[i].String(), 50, len(got)-i-1)
		if diff := cmp.Diff(got[i+1:], rest, cmp.Comparer(func(a, b []mail.ID) bool { return slices.Equal(a, b) })); diff != "" {
			t.Errorf("resumed after event %d (-want +got):\n%s", i, diff)
		}
	}
}

func TestStreamReadsPastWhatTheFilterLeavesOut(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	start, err := b.db.EventHead(t.Context())
	must(t, err)
	for range 2*maxSlices + 1 {
		b.happened(t, 0, &mail.Event{Type: mail.EventOpened})
	}
	wanted := &mail.Event{Type: mail.EventBounced}
	b.happened(t, 0, wanted)
	b.settle(t)
	f := record.EventFilter{Tenant: 1, Types: []mail.EventType{mail.EventBounced}}
	events, next, err := b.db.EventsAfter(t.Context(), f, start, 2)
	if must(t, err); len(events) != 0 || next == start {
		t.Errorf("first call = %d events, moved %t; want none, and a position behind what was left out", len(events), next != start)
	}
	if events, _, err = b.db.EventsAfter(t.Context(), f, next, 2); err != nil || len(events) != 1 || events[0].ID != wanted.ID {
		t.Errorf("second call = %v, %v, want the event", events, err)
	}
}

func TestStreamRefusesPlacesThatAreNotThere(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := mail.NewID().String()
	for _, p := range []string{
		"", "1", "-", "x-" + id, "-1-" + id, "+1-" + id, "01-" + id, "1-" + id[1:], "1-" + strings.Repeat("z", 36), "99999999999999999999-" + id,
		"9000000000000000000-" + id,
	} {
		if _, _, err := b.db.EventsAfter(t.Context(), record.EventFilter{Tenant: 1}, p, 1); !errors.Is(err, record.ErrNotFound) {
			t.Errorf("position %q: %v, want ErrNotFound", p, err)
		}
	}
}

func TestStreamReadsByItsIndexAndSparesOldDays(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	tx := b.begin(t)
	if _, err := tx.Exec(t.Context(), `SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off`); err != nil {
		t.Fatal(err)
	}
	p := position{"3", mail.IDAt(time.Now().Add(adoption + 24*time.Hour))}
	rows, err := tx.Query(t.Context(), `EXPLAIN (COSTS OFF) `+afterSQL, 1, p.xid, [16]byte(p.after()), [16]byte(p.floor()), 10)
	must(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	plan := strings.Join(lines, "\n")
	if !strings.Contains(plan, "Index Cond: ((tenant_id = 1) AND (ROW(xid, id) > ROW(") || !strings.Contains(plan, "tenant_id_xid_id_idx") {
		t.Errorf("the plan does not read in the order of the index:\n%s", plan)
	}
	today := "event_" + time.Now().UTC().Format("20060102") + "_"
	if strings.Contains(plan, today) {
		t.Errorf("the plan reads a day before the floor:\n%s", plan)
	}
}

func FuzzPosition(f *testing.F) {
	f.Add("12-0198c7a1-5a3e-7cc1-9d3b-0a1b2c3d4e5f")
	f.Add("0-00000000-0000-0000-0000-000000000000")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := parsePosition(s); err == nil && !strings.EqualFold(p.String(), s) {
			t.Errorf("%q reads as %s", s, p)
		}
	})
}
