// Package telemetry is how a running sendgate is watched: the logger, the Prometheus metrics, the listener for
// operations and the OpenTelemetry wrappers. It imports nothing else of ours; the engine and the API are handed a
// *slog.Logger and a *Metrics.
//
// It decides names, label sets and buckets. What is logged at which place is left to the place. A newcomer's likeliest
// mistake is a label whose values come from outside (an id, an address, a URL path): each value is a time series that
// lives for ever, so labels are closed sets, and the names of accounts, which operators choose, are the widest of them.
package telemetry

import (
	"io"
	"log/slog"
	"time"
)

// NewLogger writes one record a line to w: as text if format is "text", else as JSON. Times are UTC with milliseconds.
// The level may be a *slog.LevelVar, so that it can be changed while the process runs.
func NewLogger(w io.Writer, level slog.Leveler, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: utcTime}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

func utcTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
		return slog.String(slog.TimeKey, a.Value.Time().UTC().Format(timeFormat))
	}
	if a.Value.Kind() == slog.KindDuration {
		return slog.Float64(a.Key+"_ms", float64(a.Value.Duration())/float64(time.Millisecond))
	}
	return a
}
