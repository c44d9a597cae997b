package capacity

// Costs is what one message takes. Processor time is in microseconds of one core, space is in bytes.
type Costs struct {
	Date    string `json:"date"`
	Machine string `json:"machine"`
	How     string `json:"how"`

	Size     float64 `json:"size"`     // of the measured message, as JSON
	Accept   Work    `json:"accept"`   // of a message of that size, one in a request
	Dispatch Work    `json:"dispatch"` // of the same to one provider
	Event    Work    `json:"event"`    // a report of a provider about one recipient, one in a request
	PerKB    Work    `json:"per_kb"`   // of each 1,000 bytes beyond Size, from accept to the call
	Events   float64 `json:"events"`   // of a recipient: accepted and delivered

	Row          float64 `json:"row"`           // on disk, with indexes: a message without its body, one recipient and one attempt
	RecipientRow float64 `json:"recipient_row"` // each further recipient
	EventRow     float64 `json:"event_row"`
	BodyRatio    float64 `json:"body_ratio"` // bytes on disk for each byte of a body

	Log      float64 `json:"log"` // write-ahead log of a message without its body
	EventLog float64 `json:"event_log"`
	LogRatio float64 `json:"log_ratio"` // for each byte of a body
}

// Work is processor time.
type Work struct {
	Gateway  float64 `json:"sendgate"`
	Postgres float64 `json:"postgres"`
}

// Measured returns the costs that package bench measured, and how. Beside each figure is the name of its line there.
//
// Others worked on the machine meanwhile, so that its empty handler answered 5,260 requests a second and not 15,800. Processor
// times are divided by three for that. Bytes do not depend on it.
func Measured() Costs {
	return Costs{
		Date: "2026-11-30", Machine: "2 cores, PostgreSQL 15", How: "go run ./internal/bench",

		Size:     4100,           // the message as JSON
		Accept:   Work{180, 140}, // accept, 64 clients: 541 and 420
		Dispatch: Work{305, 475}, // dispatch to mailgun, one message in a call: 915 and 1425
		Event:    Work{110, 205}, // events in by 1: 337 and 613
		PerKB:    Work{2, 8},     // accept with -items 130 (32 kB): 1.1 and 4 more for each kB; counted twice, as the way out is not measured
		Events:   2,

		Row:          2500, // disk, without ready and inflight, whose space is used again: attempt 770, message 1349, recipient 374
		RecipientRow: 375,  // disk: recipient
		EventRow:     1500, // whole way: disk: event 2577, event_key 282 and hook_token 111, of two events
		BodyRatio:    0.3,  // disk: body 1226 of 4123

		Log:      4500, // accept: log 2790; dispatch: log 2980; less the body
		EventLog: 2500, // events in by 1 and by 100: log 2303 and 2755
		LogRatio: 0.3,  // a body is logged as it is stored; accept with -items 130: log 6425, 0.13 for each byte
	}
}
