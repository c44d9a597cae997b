package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
)

// historySQL stores delivered messages from number $1 to $2, of yesterday: with a recipient, an attempt and an event each. Their
// bodies are gone, as after the time that bodies are kept.
const historySQL = `
WITH i AS MATERIALIZED (
    SELECT n, at, (left(uuid_floor(at)::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid AS id
    FROM (SELECT n, (now() AT TIME ZONE 'UTC')::date::timestamp AT TIME ZONE 'UTC' - interval '20 h' + n * interval '5 ms' AS at
          FROM generate_series($1::int, $2::int) n) x
), m AS (
    INSERT INTO message (id, tenant_id, status, stream, sender, subject, tags, facts, on_ambiguous, created_at, expires_at, updated_at)
    SELECT id, 1, 'delivered', 'transactional', 'shop@example.com', 'Your order ' || n, '{order}', '{}', 'never', at, at + interval '3 d', at FROM i
), r AS (
    INSERT INTO recipient (message_id, n, tenant_id, kind, email, status, event_rank, event_at, updated_at)
    SELECT id, 0, 1, 'to', 'history-' || n || '@example.org', 'delivered', 30, at, at FROM i
), t AS (
    INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at, finished_at, class, provider_message_id, verdict_source)
    SELECT id, 1, id, 1, '{}', at, at, 'accepted', 'history-' || n, 'response' FROM i
)
INSERT INTO event (id, origin, tenant_id, account_id, message_id, n, stream, type, name, recipient, at, source, key, raw)
SELECT id, id, 1, 1, id, 0, 'transactional', 'delivered', 'delivered', 'history-' || n || '@example.org', at, 'webhook', id, convert_to(repeat('x', 200), 'UTF8')
FROM i`

// growth measures the same work beside more and more stored messages. The ratio is to the smallest number of them.
func growth(ctx context.Context, s *stage, t *table) error {
	a, err := newAcceptor(ctx, s)
	if err != nil {
		return err
	}
	defer a.end()
	key, err := a.admin.CreateKey(ctx, api.KeyRequest{Name: "reader", Scopes: []string{"messages:read"}})
	if err != nil {
		return err
	}
	reader := api.NewWith(a.url, key.Secret, &http.Client{Timeout: time.Minute})
	first := map[string]float64{}
	stored := 0
	for text := range strings.SplitSeq(s.stored, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("-stored: %w", err)
		}
		if err := a.remember(ctx, &stored, n); err != nil {
			return err
		}
		figures, err := a.work(ctx, s, reader, n)
		if err != nil {
			return err
		}
		for _, f := range figures {
			if first[f.name] == 0 {
				first[f.name] = f.value
			}
			t.beside(fmt.Sprintf("%s, %s stored", f.name, text), f.unit, f.value, first[f.name])
		}
	}
	return nil
}

// remember stores messages until there are n.
func (a *acceptor) remember(ctx context.Context, stored *int, n int) error {
	const chunk = 50_000
	for *stored < n {
		to := min(*stored+chunk, n)
		if _, err := a.rows.Exec(ctx, historySQL, *stored, to-1); err != nil {
			return fmt.Errorf("store messages: %w", err)
		}
		*stored = to
	}
	_, err := a.rows.Exec(ctx, `VACUUM (ANALYZE) message, recipient, attempt, event`)
	return err
}

// figure is a value that grows or shrinks with what is stored.
type figure struct {
	name, unit string
	value      float64
}

// work accepts, sends and reads.
func (a *acceptor) work(ctx context.Context, s *stage, reader *api.Client, stored int) ([]figure, error) {
	accepted, err := a.single(s, a.url+"/v1/send", 64).run(ctx)
	if err != nil {
		return nil, err
	}
	before := a.taken(ctx)
	if _, err := a.admin.ResumeAccount(ctx, "sendgrid"); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := await(ctx, "all is sent", func() bool {
		left, err := a.number(ctx, `SELECT (SELECT count(*) FROM ready) + (SELECT count(*) FROM inflight)`)
		return err == nil && left == 0
	}); err != nil {
		return nil, err
	}
	sent := float64(a.taken(ctx).since(before).Mails) / time.Since(began).Seconds()
	if _, err := a.admin.PauseAccount(ctx, "sendgrid"); err != nil {
		return nil, err
	}
	figures := []figure{{"accept", "/s", accepted.rate()}, {"send a backlog", "/s", sent}}
	page, err := reader.Messages(ctx, api.MessageQuery{Status: "delivered", Limit: 200})
	if err != nil {
		return nil, err
	}
	reads := []struct {
		name string
		do   func(i int) error
	}{
		{"look a message up", func(i int) error {
			_, err := reader.Message(ctx, page.Data[i%len(page.Data)].ID)
			return err
		}},
		{"list 50 of a status", func(int) error {
			_, err := reader.Messages(ctx, api.MessageQuery{Status: "delivered", Limit: 50})
			return err
		}},
		{"find by recipient", func(i int) error {
			_, err := reader.Messages(ctx, api.MessageQuery{To: fmt.Sprintf("history-%d@example.org", i*7919%stored)})
			return err
		}},
		{"find by tag", func(int) error {
			_, err := reader.Messages(ctx, api.MessageQuery{Tag: "order", Limit: 50})
			return err
		}},
	}
	for _, read := range reads {
		var waits []time.Duration
		for i := range 200 {
			began := time.Now()
			if err := read.do(i); err != nil {
				return nil, fmt.Errorf("%s: %w", read.name, err)
			}
			waits = append(waits, time.Since(began))
		}
		slices.Sort(waits)
		r := result{waits: waits}
		figures = append(figures, figure{read.name + ": p50", "ms", ms(r.quantile(0.5))}, figure{read.name + ": p95", "ms", ms(r.quantile(0.95))})
	}
	return figures, nil
}
