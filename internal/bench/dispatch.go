package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
)

// only keeps the accounts of the kinds that are named, or all when none is.
func only(all []api.AccountRequest, kinds []string) []api.AccountRequest {
	return slices.DeleteFunc(slices.Clone(all), func(a api.AccountRequest) bool {
		return len(kinds) > 0 && !slices.Contains(kinds, a.Kind)
	})
}

// dispatch measures a backlog for one account of each kind, without limits that bind and without events.
func dispatch(ctx context.Context, s *stage, t *table) error {
	for _, kind := range strings.Split(s.kinds, ",") {
		if err := dispatchOf(ctx, s, t, kind, kind, newLetters); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	return nil
}

// together measures mail that differs in the recipient only, which travels together at SendGrid.
func together(ctx context.Context, s *stage, t *table) error {
	return dispatchOf(ctx, s, t, "sendgrid, equal mail", "sendgrid", newCampaign)
}

func dispatchOf(ctx context.Context, s *stage, t *table, name, kind string, letters func() (letters, error)) error {
	g, p, err := s.withInstant(ctx, kind)
	if err != nil {
		return err
	}
	defer p.stop()
	defer g.stop()
	if _, err := g.admin.PauseAccount(ctx, kind); err != nil {
		return err
	}
	if _, err := g.admin.PatchAccount(ctx, kind, api.AccountRequest{Concurrency: &s.concurrency}); err != nil {
		return err
	}
	if err := g.backlog(ctx, s.rows, letters); err != nil {
		return err
	}
	before, err := g.usage(ctx)
	if err != nil {
		return err
	}
	had := g.taken(ctx)
	if _, err := g.admin.ResumeAccount(ctx, kind); err != nil {
		return err
	}
	rate, perCall, err := g.drain(ctx, had, s.rows)
	if err != nil {
		return err
	}
	name = "dispatch to " + name
	ceiling := 0.0
	if kind != "smtp" { // a mail by SMTP takes several exchanges, so a loop of POST requests is not its ceiling
		if ceiling, err = postLoop(ctx, s, g.providers+"/"+kind); err != nil {
			return err
		}
	}
	t.beside(name, "/s", rate, ceiling)
	if perCall > 1 {
		t.add(name+": messages per call", "", perCall)
	}
	return g.report(ctx, t, name, s.rows, before)
}

// backlog stores n messages.
func (g *gateway) backlog(ctx context.Context, n int, letters func() (letters, error)) error {
	l, err := letters()
	if err != nil {
		return err
	}
	const size = 100
	_, err = load{
		url: g.url + "/v1/send/batch", key: g.key, clients: 8, requests: int64(n / size),
		body: func(n int64) []byte { return l.batch(size, n*size) },
	}.run(ctx)
	return err
}

// drain waits until the providers have had n messages more than before, and all are recorded. It returns the messages per second after the first
// twentieth, and the messages per call.
func (g *gateway) drain(ctx context.Context, before taken, n int) (rate, perCall float64, err error) {
	var from, to taken
	var began, ended time.Time
	err = await(ctx, "the backlog is sent", func() bool {
		to, ended = g.taken(ctx).since(before), time.Now()
		if began.IsZero() && to.Mails >= int64(n/20) {
			from, began = to, ended
		}
		return to.Mails >= int64(n)
	})
	if err != nil {
		return 0, 0, err
	}
	err = await(ctx, "all calls are recorded", func() bool {
		left, err := g.number(ctx, `SELECT count(*) FROM inflight`)
		return err == nil && left == 0
	})
	return float64(to.Mails-from.Mails) / ended.Sub(began).Seconds(), float64(to.Mails) / float64(to.Calls), err
}

// taken is what the providers have had; nothing if they do not answer.
func (g *gateway) taken(ctx context.Context) (sum taken) {
	if text, err := get(ctx, g.providers+"/_taken"); err == nil {
		_ = json.Unmarshal(text, &sum)
	}
	return sum
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return io.ReadAll(resp.Body)
}

// postLoop is the ceiling of dispatch: the same number of connections post a letter, and nothing is stored.
func postLoop(ctx context.Context, s *stage, url string) (float64, error) {
	body := []byte(`{"letter":"` + strings.Repeat("x", 3800) + `"}`)
	got, err := load{url: url, clients: 64, duration: s.seconds, body: func(int64) []byte { return body }}.run(ctx)
	return got.rate(), err
}

// pickup measures from the answer to the caller until the provider has the first byte.
func pickup(ctx context.Context, s *stage, t *table) error {
	for _, beside := range []float64{0, 300} {
		if err := pickupBeside(ctx, s, t, beside); err != nil {
			return err
		}
	}
	return nil
}

func pickupBeside(ctx context.Context, s *stage, t *table, rate float64) error {
	g, p, err := s.withInstant(ctx, "sendgrid")
	if err != nil {
		return err
	}
	defer p.stop()
	defer g.stop()
	l, err := newLetters()
	if err != nil {
		return err
	}
	quiet, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	if rate > 0 {
		go func() {
			_, err := load{
				url: g.url + "/v1/send", key: g.key, clients: 64, rate: rate, duration: time.Hour,
				body: func(n int64) []byte { return l.one(fmt.Sprintf("customer-%d", n)) },
			}.run(quiet)
			done <- err
		}()
		pause(ctx, 2*time.Second) // until it flows
	} else {
		done <- nil
	}
	const n = 200
	answered := make([]time.Time, n)
	client := http.Client{Timeout: time.Minute}
	for i := range n {
		one := load{url: g.url + "/v1/send", key: g.key, body: func(int64) []byte { return l.one(fmt.Sprintf("pickup-%d", i)) }}
		if err := one.post(ctx, &client, 0); err != nil {
			stop()
			return err
		}
		answered[i] = time.Now()
		pause(ctx, s.seconds/n)
	}
	stop()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	var seen map[string]time.Time
	err = await(ctx, "all messages came to the provider", func() bool {
		text, err := get(ctx, g.providers+"/_seen")
		return err == nil && json.Unmarshal(text, &seen) == nil && len(seen) == n
	})
	if err != nil {
		return err
	}
	r := result{}
	for i, at := range answered {
		came := seen[fmt.Sprintf("pickup-%d", i)]
		r.waits = append(r.waits, max(came.Sub(at), 0)) // a call may begin before our caller has read the answer
	}
	slices.Sort(r.waits)
	name := "pickup, idle"
	if rate > 0 {
		name = fmt.Sprintf("pickup beside %.0f/s", rate)
	}
	t.add(name+": p50", "ms", ms(r.quantile(0.5)))
	t.add(name+": p95", "ms", ms(r.quantile(0.95)))
	return nil
}
