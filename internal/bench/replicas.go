package main

import (
	"context"
	"fmt"
	"time"
)

// replicas sends the same backlog by one, two and four processes that share a database. On one machine they share its cores too.
func replicas(ctx context.Context, s *stage, t *table) error {
	g, p, err := s.withInstant(ctx, "sendgrid")
	if err != nil {
		return err
	}
	defer p.stop()
	defer g.stop()
	one := 0.0
	for running := 1; running <= 4; running *= 2 {
		for more := running / 2; more > 0 && running > 1; more-- {
			another, _, err := g.replica(ctx)
			if err != nil {
				return err
			}
			defer another.stop()
		}
		if _, err := g.admin.PauseAccount(ctx, "sendgrid"); err != nil {
			return err
		}
		if err := g.backlog(ctx, s.rows, newLetters); err != nil {
			return err
		}
		pause(ctx, 5*time.Second) // until all know of the pause
		had := g.taken(ctx)
		if _, err := g.admin.ResumeAccount(ctx, "sendgrid"); err != nil {
			return err
		}
		rate, _, err := g.drain(ctx, had, s.rows)
		if err != nil {
			return err
		}
		if running == 1 {
			one = rate
		}
		t.beside(fmt.Sprintf("dispatch by replicas: %d", running), "/s", rate, one)
	}
	return nil
}

// memory measures what the kernel counts as resident.
func memory(ctx context.Context, s *stage, t *table) error {
	a, err := newAcceptor(ctx, s)
	if err != nil {
		return err
	}
	defer a.end()
	note := func(name string) error {
		rss, err := rssOf(a.process.pid())
		t.add("memory "+name, "MB", float64(rss)/1e6)
		return err
	}
	if err := note("at rest"); err != nil {
		return err
	}
	if _, err := a.single(s, a.url+"/v1/send", 256).run(ctx); err != nil {
		return err
	}
	if err := note("after 256 clients sent"); err != nil {
		return err
	}
	if err := a.backlog(ctx, s.queued, newLetters); err != nil {
		return err
	}
	if _, err := a.admin.ResumeAccount(ctx, "sendgrid"); err != nil {
		return err
	}
	before := a.taken(ctx)
	if err := await(ctx, "a tenth is sent", func() bool { return a.taken(ctx).since(before).Mails > int64(s.queued/10) }); err != nil {
		return err
	}
	return note(fmt.Sprintf("while it sends from a queue of %d", s.queued))
}
