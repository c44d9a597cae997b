package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"time"
)

// acceptor is a sendgate that stores and does not send, and the bare handler beside it.
type acceptor struct {
	*gateway

	bare    string
	letters letters
	end     func()
}

func newAcceptor(ctx context.Context, s *stage) (*acceptor, error) {
	g, p, err := s.withInstant(ctx, "sendgrid")
	if err != nil {
		return nil, err
	}
	a := &acceptor{gateway: g, end: func() { g.stop(); p.stop() }}
	if _, err := g.admin.PauseAccount(ctx, "sendgrid"); err != nil {
		a.end()
		return nil, err
	}
	dsn, err := s.database(ctx)
	if err != nil {
		a.end()
		return nil, err
	}
	b, err := part("bare", []string{"SENDGATE_BENCH_DATABASE=" + dsn}, &a.bare)
	if err != nil {
		a.end()
		return nil, err
	}
	a.end = func() { g.stop(); p.stop(); b.stop() }
	if a.letters, err = newLetters(); err != nil {
		a.end()
		return nil, err
	}
	return a, nil
}

// withInstant starts sendgate with accounts at the provider that answers at once: of the kinds that are named.
func (s *stage) withInstant(ctx context.Context, kinds ...string) (*gateway, *process, error) {
	var ready providers
	p, err := part("instant", nil, &ready)
	if err != nil {
		return nil, nil, err
	}
	g, err := s.gateway(ctx)
	if err != nil {
		p.stop()
		return nil, nil, err
	}
	g.providers = ready.URL
	if err := g.accounts(ctx, only(ready.Accounts, kinds)); err != nil {
		g.stop()
		p.stop()
		return nil, nil, err
	}
	return g, p, nil
}

// single is a load of single messages to a URL.
func (a *acceptor) single(s *stage, url string, clients int) load {
	return load{
		url: url, key: a.key, clients: clients, duration: s.seconds,
		body: func(n int64) []byte { return a.letters.one(fmt.Sprintf("customer-%d", n)) },
	}
}

func accept(ctx context.Context, s *stage, t *table) error {
	a, err := newAcceptor(ctx, s)
	if err != nil {
		return err
	}
	defer a.end()
	for _, clients := range []int{16, 64, 256} {
		name := fmt.Sprintf("accept, %d clients", clients)
		before, err := a.usage(ctx)
		if err != nil {
			return err
		}
		got, err := a.single(s, a.url+"/v1/send", clients).run(ctx)
		if err != nil {
			return err
		}
		if clients == 64 {
			if err := a.report(ctx, t, name, int(got.answered), before); err != nil {
				return err
			}
		}
		ceiling, err := a.single(s, a.bare+"/bare", clients).run(ctx)
		if err != nil {
			return err
		}
		t.beside(name, "/s", got.rate(), ceiling.rate())
		t.add(name+": p99", "ms", ms(got.quantile(0.99)))
	}
	empty, err := a.single(s, a.bare+"/empty", 256).run(ctx)
	if err != nil {
		return err
	}
	t.add("an empty handler, 256 clients", "/s", empty.rate())
	return nil
}

func acceptKeys(ctx context.Context, s *stage, t *table) error {
	a, err := newAcceptor(ctx, s)
	if err != nil {
		return err
	}
	defer a.end()
	without := a.single(s, a.url+"/v1/send", 64)
	with := without
	with.header = func(h http.Header, _ int64) { h.Set("Idempotency-Key", rand.Text()) }
	ceiling, err := without.run(ctx)
	if err != nil {
		return err
	}
	got, err := with.run(ctx)
	if err != nil {
		return err
	}
	t.beside("accept with Idempotency-Key, beside without", "/s", got.rate(), ceiling.rate())
	return nil
}

func acceptHalf(ctx context.Context, s *stage, t *table) error {
	a, err := newAcceptor(ctx, s)
	if err != nil {
		return err
	}
	defer a.end()
	l := a.single(s, a.url+"/v1/send", 64)
	full, err := l.run(ctx)
	if err != nil {
		return err
	}
	l.rate = full.rate() / 2
	half, err := l.run(ctx)
	if err != nil {
		return err
	}
	t.add("accept at half rate: p50", "ms", ms(half.quantile(0.5)))
	t.add("accept at half rate: p99", "ms", ms(half.quantile(0.99)))
	return nil
}

func acceptBatch(ctx context.Context, s *stage, t *table) error {
	a, err := newAcceptor(ctx, s)
	if err != nil {
		return err
	}
	defer a.end()
	const size = 100
	got, err := load{
		url: a.url + "/v1/send/batch", key: a.key, clients: 16, duration: s.seconds,
		body: func(n int64) []byte { return a.letters.batch(size, n*size) },
	}.run(ctx)
	if err != nil {
		return err
	}
	t.add("accept in batches of 100, 16 clients", "/s", size*got.rate())
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
