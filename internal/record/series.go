package record

import "time"

// Steps of a series. Minutes are kept for two days, hours for 400.
const (
	Minute = time.Minute
	Hour   = time.Hour
)

// Count is how often something was counted in one step of a series.
type Count struct {
	Measure string
	At      time.Time // where the step begins; to be stored: any time within it
	Account string    // "" if it is counted for no account, or summed over all of them
	Stream  string    // "" likewise
	Detail  string    // "" likewise; the class of a bounce or an attempt, or the upper bound in seconds of a time
	N       int64
}

// SeriesFilter selects counts of measures in [Since, Until). The counts are summed over each label that is not kept.
type SeriesFilter struct {
	Measures            []string
	Step                time.Duration // Minute or Hour
	Since, Until        time.Time
	Account             string // only this one, "" for all
	ByAccount, ByStream bool
	ByDetail            bool
	Limit               int // rows at most
}
