package deliver

import (
	"context"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/route"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// watchConfig reads the configuration again when its version moves.
func (e *Engine) watchConfig(ctx context.Context) {
	for {
		next := time.Now().Add(e.ConfigPoll)
		if err := e.refreshConfig(ctx); err != nil && ctx.Err() == nil {
			e.Log.Warn("read configuration", "error", err)
		}
		if !sleepUntil(ctx, next) {
			return
		}
	}
}

// refreshConfig puts a changed configuration into force, here and for the backlog.
func (e *Engine) refreshConfig(ctx context.Context) error {
	old, began := e.config.Load(), time.Now()
	c, missing, err := e.readConfig(ctx, old)
	if err != nil {
		return err
	}
	e.readings.done(began)
	if c == nil {
		return nil
	}
	e.behind.Store(missing != nil) // before the new one is visible, because claims under the old one set it too
	e.config.Store(c)
	e.lanes.awaken()
	e.nudge()
	if old != nil {
		e.Log.Info("configuration changed", "version", c.Version)
		if err := e.rearrange(ctx, c); err != nil {
			e.behind.Store(true)
			return err
		}
	}
	return missing
}

// readConfig reads the configuration and brings the accounts in line with it. c is nil if nothing changed; missing names
// the secrets that could not be read yet.
func (e *Engine) readConfig(ctx context.Context, old *route.Config) (c *route.Config, missing, err error) {
	ctx, cancel := context.WithTimeout(ctx, dbWait)
	defer cancel()
	version, err := e.Store.ConfigVersion(ctx)
	if err != nil || old != nil && old.Version == version && !e.behind.Load() {
		return nil, nil, err
	}
	if c, err = e.Store.Config(ctx); err != nil {
		return nil, nil, err
	}
	return c, e.accounts.reload(ctx, c), nil
}

// rearrange applies the new configuration to the backlog: held messages are due again, and messages in the lane of a pool
// that they no longer belong to move. Every replica does this, and skips rows that another has locked.
func (e *Engine) rearrange(ctx context.Context, c *route.Config) error {
	const step = 5000
	for all := false; !all; {
		var err error
		if all, err = e.Store.FreeHeld(ctx, step); err != nil {
			return err
		}
	}
	e.nudge()
	for after := (mail.ID{}); ; {
		last, err := e.Store.Relane(ctx, after, step, c.Lane)
		if err != nil {
			return err
		}
		if last.IsZero() {
			break
		}
		after = last
	}
	e.lanes.awaken()
	e.nudge()
	return nil
}

// job is periodic work.
type job struct {
	every time.Duration
	name  string
	run   func(context.Context) error
	rests bool // the pause grows with the run time: the job reads dead rows too, which long transactions of others keep
	due   time.Time
}

// restShare makes a job that rests take at most a twentieth of the time.
const restShare = 20

// quickJobs are short exchanges with the database.
func (e *Engine) quickJobs() []job {
	return []job{
		{every: time.Second, name: "list lanes", run: e.listLanes, rests: true},
		{every: time.Second, name: "take probes", run: e.takeProbes},
		{every: 2 * time.Second, name: "rescue", run: e.rescue},
		{every: 2 * time.Second, name: "repeat unknown", run: e.repeatUnknown},
		{every: 2 * time.Second, name: "decide unknown", run: e.decideUnknown},
		{every: 2 * time.Second, name: "read blocks", run: e.readBlocks},
		{every: 2 * time.Second, name: "match orphans", run: e.matchOrphans},
		{every: 5 * time.Second, name: "tally calls", run: e.tallyCalls},
		{every: 5 * time.Second, name: "measure queue", run: e.measure, rests: true},
	}
}

// slowJobs wait for locks and delete many rows. A rescue must not wait for them.
func (e *Engine) slowJobs() []job {
	return []job{
		{every: time.Hour, name: "make partitions", run: e.makePartitions},
		{every: 10 * time.Minute, name: "retention", run: e.retain},
	}
}

// maintain runs jobs whenever they are due, one after the other.
func (e *Engine) maintain(ctx context.Context, jobs []job) {
	for {
		now := time.Now()
		for i := range jobs {
			j := &jobs[i]
			if now.Before(j.due) {
				continue
			}
			began := time.Now()
			err := runJob(ctx, jobWait, j.run)
			j.due = j.next(now, time.Since(began))
			if err != nil && ctx.Err() == nil {
				j.due = now.Add(min(j.every, jobAgain))
				e.Log.Warn("maintenance", "job", j.name, "error", err)
			}
		}
		if !sleepUntil(ctx, now.Add(250*time.Millisecond)) {
			return
		}
	}
}

// next returns when a job is due again that ran at due and took so long.
func (j *job) next(due time.Time, took time.Duration) time.Time {
	if j.rests {
		return due.Add(max(j.every, restShare*took))
	}
	return due.Add(j.every)
}

// jobWait bounds one maintenance job, so that a job that hangs does not stop the others. Retention does the rest of its
// work the next time. A failed job runs again after jobAgain at the latest.
const (
	jobWait  = 30 * time.Second
	jobAgain = 15 * time.Second
)

func runJob(ctx context.Context, wait time.Duration, run func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return run(ctx)
}

func (e *Engine) listLanes(ctx context.Context) error {
	ids, err := e.Store.Lanes(ctx)
	if err != nil {
		return err
	}
	tenants, err := e.Store.Tenants(ctx)
	if err != nil {
		return err
	}
	e.lanes.refresh(ids, tenants, time.Now())
	return nil
}

// rescue returns the work of dead replicas: unstarted messages are ready again, started ones become unknown.
func (e *Engine) rescue(ctx context.Context) error {
	unstarted, started, err := e.Store.Rescue(ctx, e.Policy.Waits())
	if err != nil {
		return err
	}
	e.Metrics.Rescued.WithLabelValues(telemetry.RescuedUnstarted).Add(float64(unstarted))
	e.Metrics.Rescued.WithLabelValues(telemetry.RescuedStarted).Add(float64(started))
	if unstarted+started > 0 {
		e.Log.Warn("rescued the work of a dead replica", "unstarted", unstarted, "unknown", started)
		e.nudge()
	}
	return nil
}

// decideUnknown resends or fails unknown messages whose deadline is over.
func (e *Engine) decideUnknown(ctx context.Context) error {
	resent, failed, err := e.Store.DecideUnknown(ctx, e.Policy.ReconcileResend, e.Policy.ResendMax)
	if err != nil {
		return err
	}
	e.Metrics.Resolved.WithLabelValues("deadline", "resent").Add(float64(resent))
	e.Metrics.Resolved.WithLabelValues("deadline", "failed").Add(float64(failed))
	if resent > 0 {
		e.nudge()
	}
	return nil
}

// readBlocks applies here the pauses that providers asked any replica for.
func (e *Engine) readBlocks(ctx context.Context) error {
	blocks, err := e.Store.Blocks(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	e.accounts.each(func(id int32, a *account) {
		if wait := blocks[id]; wait > 0 {
			a.block(now.Add(wait))
		}
	})
	return nil
}

// classes are the classes of attempts, as labels.
var classes = []string{
	string(provider.Accepted), string(provider.Transient), string(provider.Throttled), string(provider.Rejected),
	string(provider.BadRecipient), string(provider.Misconfigured), string(provider.Uncertain), queue.Aborted,
}

// measure sets the gauges of accounts and of the queue.
func (e *Engine) measure(ctx context.Context) error {
	streams := []string{}
	if c := e.config.Load(); c != nil {
		streams = c.Streams()
	}
	e.accounts.each(func(_ int32, a *account) {
		e.Metrics.Know(a.name, string(a.kind), classes, streams)
		a.mu.Lock()
		name, parked, paused := a.conf.Name, len(a.conf.Parked) > 0, a.conf.Paused
		a.mu.Unlock()
		states := map[gobreaker.State]float64{gobreaker.StateClosed: 0, gobreaker.StateHalfOpen: 1, gobreaker.StateOpen: 2}
		e.Metrics.BreakerState.WithLabelValues(name).Set(states[a.breaker.State()])
		e.Metrics.Parked.WithLabelValues(name).Set(map[bool]float64{true: 1}[parked])
		e.Metrics.Paused.WithLabelValues(name).Set(map[bool]float64{true: 1}[paused])
	})
	q, err := e.Store.Queue(ctx)
	if err != nil {
		return err
	}
	e.Metrics.ReadyDepth.Set(float64(q.Ready))
	e.Metrics.Unknown.Set(float64(q.Unknown))
	e.Metrics.DeadRows.Set(float64(q.Dead))
	return nil
}

func (e *Engine) makePartitions(ctx context.Context) error {
	n, err := e.Store.EnsurePartitions(ctx)
	if n > 0 {
		e.Log.Info("partitions made", "count", n)
	}
	return err
}

// retain deletes all that is past its age.
func (e *Engine) retain(ctx context.Context) error {
	now, err := e.Store.RetentionNow(ctx)
	if err != nil {
		return err
	}
	ages := []struct {
		table string
		age   time.Duration
	}{
		{"body", e.BodyAge},
		{"attempt", e.Retention},
		{"recipient", e.Retention},
		{"message", e.Retention},
		{"event", e.Retention},
		{"delivery", e.Retention},
	}
	for _, t := range ages {
		n, err := e.Store.DropPartitions(ctx, t.table, now.Add(-t.age))
		if err != nil {
			return err
		}
		if n > 0 {
			e.Log.Info("old partitions dropped", "table", t.table, "count", n)
		}
	}
	if n, err := e.Store.ForgetSecrets(ctx); err != nil {
		return err
	} else if n > 0 {
		e.Log.Info("secrets of deleted accounts forgotten", "count", n)
	}
	if err := drain(ctx, e.Store.Sweep); err != nil {
		return err
	}
	if e.AuditAge > 0 {
		before := now.Add(-e.AuditAge).Truncate(24 * time.Hour) // each run that drops something adds an entry: one a day is enough
		if err := drain(ctx, func(ctx context.Context) (int, error) { return e.Store.DropAudit(ctx, before) }); err != nil {
			return err
		}
	}
	return drain(ctx, func(ctx context.Context) (int, error) { return e.Store.DropKeys(ctx, e.KeyAge) })
}

// orphansAtOnce bounds one round of matching orphans. The rest waits for the next run of the job.
const orphansAtOnce = 500

// matchOrphans tries again to find the messages of events that came before them.
func (e *Engine) matchOrphans(ctx context.Context) error {
	_, err := e.Store.MatchOrphans(ctx, orphansAtOnce)
	return err
}

// drain repeats a batched deletion until it has little left to do.
func drain(ctx context.Context, run func(context.Context) (int, error)) error {
	for {
		n, err := run(ctx)
		if err != nil || n < 5000 {
			return err
		}
	}
}
