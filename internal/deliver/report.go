package deliver

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// totals are what this replica had done at one moment.
type totals struct {
	at       time.Time // local; zero: never read
	accepted float64
	sent     map[int32]float64 // by account
}

// report stores the rates since the totals before, so that operators see all replicas in one place. Nothing depends on it: if
// the database does not take it, the next one follows soon.
func (e *Engine) report(ctx context.Context, owner mail.ID, before totals, wait time.Duration) totals {
	now := totals{at: time.Now(), accepted: e.Metrics.AcceptedTotal(), sent: map[int32]float64{}}
	r := record.ReplicaReport{Accepted: perSecond(before.at, now.at, before.accepted, now.accepted), Accounts: []record.AccountReport{}}
	for id, a := range e.accounts.all() {
		now.sent[id] = e.Metrics.SentTotal(a.name, string(a.kind))
		sent := 0.0
		if was, known := before.sent[id]; known {
			sent = perSecond(before.at, now.at, was, now.sent[id])
		}
		r.Accounts = append(r.Accounts, record.AccountReport{Account: a.name, Sent: sent, Breaker: a.breaker.State().String()})
	}
	slices.SortFunc(r.Accounts, func(a, b record.AccountReport) int { return cmp.Compare(a.Account, b.Account) })
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := e.Store.Report(ctx, owner, r); err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		e.Log.Warn("report of activity not stored", "error", err)
	}
	return now
}

// perSecond is how much was added per second. A counter that was reset counts from zero.
func perSecond(from, to time.Time, before, now float64) float64 {
	seconds := to.Sub(from).Seconds()
	if from.IsZero() || seconds <= 0 {
		return 0
	}
	if now < before {
		before = 0
	}
	return (now - before) / seconds
}
