package deliver

import "github.com/sendgate/sendgate/internal/queue"

// taken counts a message that a provider has taken.
func (e *Engine) taken(it *item, c call) {
	m := it.loaded.Message
	stream := m.Stream
	if conf := e.config.Load(); conf != nil {
		stream = conf.KnownStream(stream)
	}
	e.Metrics.Sent.WithLabelValues(c.name, stream).Add(float64(len(c.open)))
	due := m.CreatedAt
	if m.SendAt.After(due) {
		due = m.SendAt
	}
	e.Metrics.SentSeconds.WithLabelValues(c.name).Observe(max(it.now().Sub(due), 0).Seconds())
	if failedElsewhere(c.due.Avoid, c.name) {
		e.Metrics.Failovers.WithLabelValues(c.name).Inc()
	}
}

// failedElsewhere reports whether another account failed the message before.
func failedElsewhere(avoid map[string]queue.Avoid, account string) bool {
	for name := range avoid {
		if name != account {
			return true
		}
	}
	return false
}
