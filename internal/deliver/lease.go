package deliver

import (
	"context"
	"errors"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// keepLease registers this replica and renews its lease. If the database does not answer, the engine stops claiming before
// the lease can have run out. If the lease is lost, it goes on under a new id, because a rescuer owns the claims of the old
// one.
func (e *Engine) keepLease(ctx context.Context) {
	every := e.Lease / 5
	var renewed time.Time
	var owner mail.ID
	var before totals
	beats := 0
	for {
		now := time.Now()
		if e.owner.Load() == nil {
			owner = mail.NewID()
		}
		switch err := e.beat(ctx, owner, every); {
		case err == nil:
			renewed = now
			before = e.report(ctx, owner, before, every)
			if beats++; beats%4 == 0 {
				e.adopt(ctx, owner, every)
			}
		case errors.Is(err, record.ErrConflict):
			e.Log.Warn("lease lost, going on as a new replica", "replica", owner)
			e.owner.Store(nil)
			continue
		case ctx.Err() == nil:
			e.Log.Warn("lease not renewed", "error", err)
			if time.Since(renewed) > e.Lease-2*every {
				e.owner.Store(nil)
			}
		}
		if !sleepUntil(ctx, now.Add(every)) {
			e.keepLeaseWhileDraining(owner, every)
			return
		}
	}
}

// keepLeaseWhileDraining goes on renewing until the last claim is closed, or the drain is given up.
func (e *Engine) keepLeaseWhileDraining(owner mail.ID, every time.Duration) {
	busy := func() bool { return e.claiming.Load() || e.carrying.count() > 0 }
	for busy() && sleepUntil(e.finish, time.Now().Add(min(every, 100*time.Millisecond))) && busy() {
		ctx, cancel := context.WithTimeout(e.finish, every)
		if _, err := e.Store.Heartbeat(ctx, owner, e.Lease); err != nil && e.finish.Err() == nil {
			e.Log.Warn("lease not renewed while draining", "error", err)
		}
		cancel()
	}
}

// beat renews the lease, and registers the replica if needed. It gives up after wait: a heartbeat that hangs must not hide
// that the lease runs out.
func (e *Engine) beat(ctx context.Context, owner mail.ID, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if e.owner.Load() == nil {
		if err := e.Store.Register(ctx, owner, e.host, e.Lease); err != nil {
			if errors.Is(ctx.Err(), context.Canceled) { // by a stop: the row may exist, and unregister removes it
				e.owner.Store(&owner)
			}
			return err
		}
		e.owner.Store(&owner)
		e.nudge()
	}
	replicas, err := e.Store.Heartbeat(ctx, owner, e.Lease)
	if err == nil {
		e.accounts.setReplicas(replicas)
	}
	return err
}

// adopt gives back claims under our id that this replica does not carry.
func (e *Engine) adopt(ctx context.Context, owner mail.ID, wait time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	n, err := e.Store.Orphans(ctx, owner, e.carrying.list(), e.Policy.Waits())
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		e.Log.Warn("look for orphaned claims", "error", err)
	}
	if n > 0 {
		e.Log.Warn("orphaned claims given back", "count", n)
		e.nudge()
	}
}
