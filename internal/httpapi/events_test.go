package httpapi

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

func TestEventIsToldWhole(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	e := r.store.happen(mail.Event{
		Type: mail.EventBounced, Name: "Bounce/HardBounce", MessageID: mail.NewID(), ProviderMessageID: "pm", Recipient: "ann@example.org",
		At: r.clock.now(), Account: "ses", Provider: "ses", Stream: "news", Tags: []string{"order"}, URL: "https://example.com/", Machine: true,
		Bounce: &mail.Bounce{Class: mail.Hard, Reason: mail.InvalidAddress, Code: "550", Enhanced: "5.1.1", Text: "no such user"},
	}, mail.Event{Type: mail.EventUnmapped, Name: "odd", At: r.clock.now(), N: -1})
	page, err := r.client(r.read).Events(t.Context(), api.EventQuery{})
	if err != nil {
		t.Fatal(err)
	}
	want := []api.Event{
		{ID: e[1].ID.String(), ProviderType: "odd", At: r.clock.now(), ReceivedAt: e[1].ID.Time(), Source: "webhook"},
		{
			ID: e[0].ID.String(), Type: "bounced", ProviderType: "Bounce/HardBounce", At: r.clock.now(), ReceivedAt: e[0].ID.Time(),
			MessageID: e[0].MessageID.String(), Recipient: "ann@example.org", Account: "ses", Provider: "ses", ProviderMessageID: "pm",
			Stream: "news", Tags: []string{"order"}, Source: "webhook", URL: "https://example.com/", Machine: true,
			Bounce: &api.Bounce{Class: "hard", Reason: "invalid_address", Code: "550", Enhanced: "5.1.1", Text: "no such user"},
		},
	}
	if diff := cmp.Diff(want, page.Data); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestEventsAreFilteredAndPaged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := mail.NewID()
	r.store.happen(
		mail.Event{Type: mail.EventDelivered, MessageID: id, Recipient: "ann@example.org", Account: "ses", Stream: "news"},
		mail.Event{Type: mail.EventBounced, Recipient: "bob@example.org", Account: "smtp", Stream: "transactional"},
		mail.Event{Type: mail.EventOpened, MessageID: id, Recipient: "ann@example.org", Account: "ses", Stream: "news"},
		mail.Event{Type: mail.EventOpened, Tenant: 2},
	)
	for _, tc := range []struct {
		q    api.EventQuery
		want []string
	}{
		{api.EventQuery{}, []string{"opened", "bounced", "delivered"}},
		{api.EventQuery{Types: []string{"opened", "bounced"}}, []string{"opened", "bounced"}},
		{api.EventQuery{MessageID: id.String()}, []string{"opened", "delivered"}},
		{api.EventQuery{Recipient: "bob@EXAMPLE.org"}, []string{"bounced"}},
		{api.EventQuery{Account: "ses", Types: []string{"delivered"}}, []string{"delivered"}},
		{api.EventQuery{Stream: "transactional"}, []string{"bounced"}},
		{api.EventQuery{Since: time.Now().Add(time.Hour)}, nil},
		{api.EventQuery{Until: time.Now().Add(-time.Hour)}, nil},
		{api.EventQuery{Limit: 1}, []string{"opened", "bounced", "delivered"}},
	} {
		var got []string
		for range 4 {
			page, err := r.client(r.read).Events(t.Context(), tc.q)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.Data {
				got = append(got, e.Type)
			}
			if tc.q.Cursor = page.NextCursor; tc.q.Cursor == "" {
				break
			}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tc.q, diff)
		}
	}
}

func TestEventQueryRefusesNonsense(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for query, field := range map[string]string{
		"type=eaten": "type", "type=": "type", "message_id=1": "message_id", "recipient=ann": "recipient", "since=now": "since",
		"limit=0": "limit", "kind=opened": "kind", "account=a&account=b": "account",
		"type=opened&type=opened&type=opened&type=opened&type=opened&type=opened&type=opened&type=opened&type=opened&type=opened&type=opened" +
			"&type=opened&type=opened&type=opened&type=opened&type=opened&type=opened&type=opened&type=opened&type=opened&type=opened": "type",
	} {
		a := r.do("GET", "/v1/events?"+query, r.read, "")
		r.want(a, 422, "invalid")
		if a.problem.Errors[0].Field != field {
			t.Errorf("%s: complains about %q, want %q", query, a.problem.Errors[0].Field, field)
		}
	}
	first := r.do("GET", "/v1/messages", r.read, "")
	r.want(first, 200, "")
	r.want(r.do("GET", "/v1/events?cursor=abc", r.read, ""), 400, "invalid_cursor")
}

func TestMessageShowsItsEventsAndBounces(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	sent, err := r.client(r.send).SendRaw(t.Context(), []byte(sendJSON()), "")
	if err != nil {
		t.Fatal(err)
	}
	id, _ := mail.ParseID(sent.ID)
	v := r.store.messages[id]
	bounce := &mail.Bounce{Class: mail.Soft, Reason: mail.MailboxFull}
	v.Recipients[0].Status, v.Recipients[0].Bounce = mail.Bounced, bounce
	v.Events = r.store.happen(mail.Event{Type: mail.EventBounced, MessageID: id, At: r.clock.now(), Bounce: bounce, Recipient: "ann@example.org"})
	m, err := r.client(r.read).Message(t.Context(), sent.ID)
	if err != nil {
		t.Fatal(err)
	}
	want := &api.Bounce{Class: "soft", Reason: "mailbox_full"}
	if diff := cmp.Diff(want, m.Recipients[0].Bounce); diff != "" {
		t.Errorf("bounce of the recipient (-want +got):\n%s", diff)
	}
	if len(m.Events) != 1 || m.Events[0].Type != "bounced" || cmp.Diff(want, m.Events[0].Bounce) != "" {
		t.Errorf("events = %+v", m.Events)
	}
}

func TestStatsAreToldInMilliseconds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.store.stats = []record.Stat{{
		Key: "ses", Recipients: 9, Sent: 8, Delivered: 5, Deferred: 1, Bounced: map[mail.BounceClass]int64{mail.Hard: 1}, Complained: 2,
		Suppressed: 3, Failed: 4, Unknown: 6, Opened: 7, Clicked: 10, Unsubscribed: 11, SentP50: time.Second, SentP95: 2 * time.Second,
		DeliveredP50: 1500 * time.Millisecond, DeliveredP95: time.Minute,
	}}
	got, err := r.client(r.read).Stats(t.Context(), api.StatsQuery{})
	if err != nil {
		t.Fatal(err)
	}
	now := r.clock.now()
	want := &api.Stats{By: "account", Since: now.Add(-24 * time.Hour), Until: now, Data: []api.Stat{{
		Key: "ses", Recipients: 9, Sent: 8, Delivered: 5, Deferred: 1, Bounced: map[string]int64{"hard": 1}, Complained: 2, Suppressed: 3,
		Failed: 4, Unknown: 6, Opened: 7, Clicked: 10, Unsubscribed: 11, AcceptToSentMS: api.Quantiles{P50: 1000, P95: 2000},
		AcceptToDeliveredMS: api.Quantiles{P50: 1500, P95: 60000},
	}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
	if _, err := r.client(r.read).Stats(t.Context(), api.StatsQuery{By: "domain", Since: now.Add(-48 * time.Hour), Until: now.Add(-24 * time.Hour), Limit: 3}); err != nil {
		t.Fatal(err)
	}
	asked := record.StatsFilter{Tenant: 1, By: "domain", Since: now.Add(-48 * time.Hour), Until: now.Add(-24 * time.Hour), Limit: 3}
	if diff := cmp.Diff(asked, r.store.statsAsked[1]); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestStatsAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for query, field := range map[string]string{
		"by=email": "by", "limit=201": "limit", "since=2026-01-31T08:30:00Z": "since", "until=2025-01-01T00:00:00Z&since=2025-01-02T00:00:00Z": "since",
		"until=2025-03-01T00:00:00Z&since=2025-01-01T00:00:00Z": "since",
	} {
		a := r.do("GET", "/v1/stats?"+query, r.read, "")
		r.want(a, 422, "invalid")
		if a.problem.Errors[0].Field != field {
			t.Errorf("%s: complains about %q, want %q", query, a.problem.Errors[0].Field, field)
		}
	}
	own := r.server.stats.take(holder{tenant: mail.DefaultTenant}, 1, nil)
	r.want(r.do("GET", "/v1/stats", r.read, ""), 503, "unavailable") // one at a time
	own.release()
	for i := range statsAtOnce {
		r.want(r.do("GET", "/v1/stats", r.read, ""), 200, "")
		defer r.server.stats.take(holder{tenant: mail.TenantID(i + 2)}, 1, nil).release()
	}
	r.want(r.do("GET", "/v1/stats", r.read, ""), 503, "unavailable") // and no more than there is room for
}
