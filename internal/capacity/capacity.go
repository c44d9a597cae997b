// Package capacity says what a deployment needs to carry an amount of mail: processors, memory, disk and connections, what the
// limits of its accounts carry, and what all this costs.
//
// It is arithmetic, without I/O, over what the caller gives it and two tables: costs.go has what a message takes, as measured, and
// prices.go has what vendors charge, each row with its source and date. It decides nothing that a running deployment does.
//
// The mail of a month comes evenly except for one busy hour. That is what separates a limit that makes mail wait for a while from
// one that is too small. A newcomer's likeliest mistake is to size by the average, at which nothing ever waits. The next one is to
// invent a price: what is not known is said to be not known.
package capacity

import (
	"fmt"
	"math"
	"time"
)

// monthHours are the hours of a month of 30 days.
const monthHours = 30 * 24

// Span is a duration that is "5m0s" in JSON.
type Span time.Duration

// MarshalText implements encoding.TextMarshaler.
func (s Span) MarshalText() ([]byte, error) { return []byte(time.Duration(s).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Span) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	*s = Span(d)
	return err
}

func (s Span) hours() float64 { return time.Duration(s).Hours() }

// Load is the mail to plan for.
type Load struct {
	PerMonth      float64 `json:"per_month"`  // messages in 30 days
	Peak          float64 `json:"peak"`       // mail of the busiest hour, as a multiple of that of an average hour
	Size          float64 `json:"size"`       // bytes of a message as JSON
	Recipients    float64 `json:"recipients"` // of a message, on average
	Bulk          float64 `json:"bulk"`       // share of the messages that are of a bulk stream and have the same content as others
	Retention     Span    `json:"retention"`  // of messages and events
	BodyRetention Span    `json:"body_retention"`
}

// Validate checks each field. The error begins with the name of the field.
func (l Load) Validate() error {
	for _, f := range []struct {
		name                string
		value, least, most  float64
		leastText, mostText string
	}{
		{"per-month", l.PerMonth, 1, 1e10, "1", "10000M"},
		{"peak", l.Peak, 1, monthHours, "1x", "720x, which is all mail of a month in one hour"},
		{"size", l.Size, 200, 30e6, "200B", "30MB"},
		{"recipients", l.Recipients, 1, 1000, "1", "1000"},
		{"bulk", l.Bulk, 0, 1, "0%", "100%"},
		{"retention", l.Retention.hours(), 24, 87600, "24h", "87600h"},
		{"body-retention", l.BodyRetention.hours(), 1, l.Retention.hours(), "1h", "the retention of messages"},
	} {
		if !(f.value >= f.least && f.value <= f.most) { // also for what is not a number
			return fmt.Errorf("%s must be %s to %s", f.name, f.leastText, f.mostText)
		}
	}
	return nil
}

// within returns how many messages come in the busiest span of that length.
func (l Load) within(span time.Duration) float64 {
	busy := l.PerMonth / monthHours * l.Peak
	rest := (l.PerMonth - busy) / (monthHours - 1) // in any other hour
	if span <= time.Hour {
		return busy * span.Hours()
	}
	return busy + rest*(span.Hours()-1)
}

// Plan is what a load needs.
type Plan struct {
	Load     Load           `json:"load"`
	Average  float64        `json:"average_per_second"` // messages
	Busiest  float64        `json:"peak_per_second"`    // messages, in the busiest hour
	Hardware Hardware       `json:"hardware"`
	Pool     Pool           `json:"pool"`
	Accounts []AccountShare `json:"accounts"`
	Costs    Costs          `json:"measured"`
}

// Compute makes the plan for a valid load.
func Compute(l Load, pool string, spill bool, accounts []Account, c Costs) Plan {
	p := Plan{
		Load: l, Average: l.PerMonth / (monthHours * 3600), Busiest: l.within(time.Hour) / 3600,
		Hardware: hardware(l, c), Accounts: spread(l, accounts), Costs: c,
	}
	p.Pool = together(pool, spill, p.Accounts)
	return p
}

// ceil rounds up and forgives the error of floating point.
func ceil(x float64) float64 { return math.Ceil(x - 1e-9) }
