package deliver

import (
	"context"
	"errors"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
)

// end notes a message that will not be sent.
func (c *claim) end(d queue.Due, status mail.Status, why string) {
	c.ends = append(c.ends, queue.Ending{ID: d.ID, Status: status, Detail: why})
	c.endedIn = append(c.endedIn, d.Lane)
}

// end settles the messages that will not be sent, after the claim is committed. It is not part of the claim: the claim locks
// the limits of all accounts, and nobody may wait for rows of messages with those locks.
func (e *Engine) end(ctx context.Context, c *claim) {
	if len(c.ends)+len(c.lapses) == 0 {
		return
	}
	var err error
	if len(c.ends) > 0 {
		err = e.Store.End(ctx, c.ends)
	}
	if len(c.lapses) > 0 {
		err = errors.Join(err, e.Store.Lapse(ctx, c.lapses, e.Policy.Waits()))
	}
	if err != nil { // the next claim finds them again
		e.Log.Warn("end messages", "count", len(c.ends)+len(c.lapses), "error", err)
		for _, l := range c.endedIn {
			e.lanes.rewind(l)
		}
	}
}
