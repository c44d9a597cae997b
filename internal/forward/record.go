package forward

import (
	"context"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// record writes results, as many at a time as have gathered, until there are no more.
func (e *Engine) record() {
	for first := range e.results {
		batch := append(make([]record.DeliveryResult, 0, recordMax), first)
		for more := true; more && len(batch) < recordMax; {
			select {
			case r, ok := <-e.results:
				if more = ok; ok {
					batch = append(batch, r)
				}
			default:
				more = false
			}
		}
		e.finish(batch)
	}
}

// finish writes a batch, and tries again if the database can't store it for a moment. Deliveries that can't be recorded are
// sent again when their lease is over.
func (e *Engine) finish(batch []record.DeliveryResult) {
	var err error
	for try := range recordTry {
		if try > 0 {
			rest(context.Background(), recordWait, nil)
		}
		var disabled []mail.ID
		ctx, cancel := context.WithTimeout(context.Background(), dbWait)
		disabled, err = e.Store.FinishDeliveries(ctx, batch)
		cancel()
		if err == nil {
			e.logDisabled(batch, disabled)
			return
		}
	}
	e.Log.Error("deliveries not recorded: they will be made again", "count", len(batch), "error", err)
}

func (e *Engine) logDisabled(batch []record.DeliveryResult, disabled []mail.ID) {
	for _, id := range disabled {
		why := ""
		for i := range batch {
			if batch[i].Endpoint == id && batch[i].Disable != "" {
				why = batch[i].Disable
			}
		}
		e.Log.Warn("webhook endpoint disabled", "endpoint", id.String(), "reason", why)
	}
}
