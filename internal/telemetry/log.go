// Package telemetry has all that is needed to watch a running sendgate: the logger, the Prometheus metrics and the listener
// for operations. Of our packages it imports only hostcheck; the engine and the API are given a *slog.Logger and a *Metrics.
//
// It decides names, label sets and buckets. Each caller decides what it logs. A newcomer's likeliest mistake is a label whose
// values come from outside (an id, an address, a URL path): each value is a time series that is never removed. So labels are
// closed sets; the largest of them is the names of accounts, which operators choose.
package telemetry

import (
	"io"
	"log/slog"
	"time"
)

// NewLogger returns a logger that writes one record a line to w: as text if format is "text", else as JSON. Times are UTC with
// milliseconds. The level may be a *slog.LevelVar, so that it can be changed while the process runs.
func NewLogger(w io.Writer, level slog.Leveler, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: utcTime}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// utcTime writes the time of a record in UTC, and durations as milliseconds under the key with "_ms".
func utcTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
		return slog.String(slog.TimeKey, a.Value.Time().UTC().Format(timeFormat))
	}
	if a.Value.Kind() == slog.KindDuration {
		return slog.Float64(a.Key+"_ms", float64(a.Value.Duration())/float64(time.Millisecond))
	}
	return a
}
