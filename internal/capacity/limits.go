package capacity

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// usable is how much of a window is used while mail waits for it. A test of package limit holds it to that.
const usable = 0.98

// How much package deliver puts into one call. A test there compares these with its own.
const (
	TransactionalPerCall = 100
	BytesPerCall         = 1 << 20
	AloneFrom            = 256 << 10 // bytes of a message that travels alone
)

// Account is one account of the pool that gets the mail.
type Account struct {
	Name, Kind string
	State      string // "active", or why it gets no mail
	Weight     float64
	Limits     []limit.Window
	Can        provider.Capabilities
	Batch      provider.BatchSpec
}

// AccountShare is what an account gets, and what it carries. Amounts for a month of all mail assume the same peak and weights.
type AccountShare struct {
	Name     string   `json:"account"`
	Kind     string   `json:"kind"`
	NoMail   string   `json:"no_mail,omitempty"` // why it gets none
	Share    float64  `json:"share"`
	PerMonth float64  `json:"messages_per_month"`
	Carries  float64  `json:"carries_per_month,omitempty"` // messages before its first limit binds; absent: no limit
	Limits   []Window `json:"limits"`                      // the one that binds first comes first
	Price    *Price   `json:"price,omitempty"`             // absent: not known
}

// Verdict says what a limit does to the mail.
type Verdict string

// The verdicts.
const (
	Fits     Verdict = "fits"
	Waits    Verdict = "waits"     // at the peak mail waits, and is sent later
	TooSmall Verdict = "too small" // mail comes faster than it may go out, at the peak and beside it
)

// Window is one limit under the load.
type Window struct {
	N       int        `json:"n"`
	Per     Span       `json:"per"`
	Unit    limit.Unit `json:"unit"`
	Needs   float64    `json:"needs"`              // of its unit, in the busiest span of its length
	BindsAt float64    `json:"binds_at,omitempty"` // messages a month of all accounts; absent: never
	Verdict Verdict    `json:"verdict"`
	Wait    Span       `json:"wait,omitempty"` // of the last message of the busiest hour, if the verdict is waits
}

// spread shares the mail out by weight among the accounts that can take it.
func spread(l Load, accounts []Account) []AccountShare {
	facts := mail.Facts{Recipients: int(ceil(l.Recipients)), Bytes: int64(l.Size)}
	shares := make([]AccountShare, len(accounts))
	sum := 0.0
	for i, a := range accounts {
		s := &shares[i]
		s.Name, s.Kind = a.Name, a.Kind
		switch why := a.Can.Refuse(&facts); {
		case a.State != "active":
			s.NoMail = a.State
		case why != "":
			s.NoMail = why
		case a.Weight == 0:
			s.NoMail = "weight 0"
		default:
			sum += a.Weight
		}
	}
	for i, a := range accounts {
		s := &shares[i]
		if s.NoMail == "" {
			s.Share = a.Weight / sum
		}
		s.PerMonth = l.PerMonth * s.Share
		s.Price = price(a.Kind, s.PerMonth*l.Recipients)
		s.Limits = []Window{}
		for _, w := range a.Limits {
			s.Limits = append(s.Limits, l.under(w, s.Share, l.cost(w.Unit, a.Batch)))
		}
		slices.SortStableFunc(s.Limits, func(a, b Window) int { return cmp.Compare(b.Needs*float64(a.N), a.Needs*float64(b.N)) })
		if len(s.Limits) > 0 && s.Share > 0 {
			s.Carries = s.Limits[0].BindsAt * s.Share
		}
	}
	return shares
}

// cost returns what a message costs in a unit. Requests count as under load, when messages share calls.
func (l Load) cost(unit limit.Unit, b provider.BatchSpec) float64 {
	switch unit {
	case limit.Recipients:
		return l.Recipients
	case limit.Requests:
		return l.Bulk/l.perCall(b, true) + (1-l.Bulk)/l.perCall(b, false)
	case limit.Messages:
	}
	return 1
}

// perCall returns how many messages share a call. The content of transactional mail differs from message to message.
func (l Load) perCall(b provider.BatchSpec, bulk bool) float64 {
	n := max(float64(b.Max), 1)
	switch {
	case l.Size >= AloneFrom || b.Alike && !bulk:
		return 1
	case !bulk:
		n = min(n, TransactionalPerCall)
	}
	if b.MaxRecipients > 0 {
		n = min(n, float64(b.MaxRecipients)/l.Recipients)
	}
	return max(1, min(n, float64(int(BytesPerCall/l.Size))))
}

// under judges one limit of an account with a share of the mail, if a message has that cost.
func (l Load) under(w limit.Window, share, cost float64) Window {
	may := usable * float64(w.N)
	out := Window{N: w.N, Per: Span(w.Per), Unit: w.Unit, Needs: l.within(w.Per) * share * cost, Verdict: Fits}
	if share == 0 {
		return out
	}
	if out.BindsAt = l.PerMonth * may / out.Needs; math.IsInf(out.BindsAt, 1) { // of a share that is next to nothing
		out.BindsAt = 0
	}
	if out.Needs <= may {
		return out
	}
	// What is left when the busiest hour and the window are over goes out beside the mail of other hours.
	span := max(w.Per, time.Hour)
	perHour := may / w.Per.Hours()
	left := l.within(span)*share*cost - perHour*span.Hours()
	spare := perHour - (l.within(2*time.Hour)-l.within(time.Hour))*share*cost
	switch {
	case spare <= 0:
		out.Verdict = TooSmall
	default:
		out.Verdict, out.Wait = Waits, Span(left/spare*float64(time.Hour))
	}
	return out
}

// Pool is what the accounts carry together.
type Pool struct {
	Name    string  `json:"name"`
	Spill   bool    `json:"spill"`                       // an account without a free slot passes its mail on to others
	First   string  `json:"first,omitempty"`             // account whose limit binds first; absent: none has a limit, or none gets mail
	Binds   float64 `json:"first_binds_at,omitempty"`    // messages a month of the pool
	Carries float64 `json:"carries_per_month,omitempty"` // before mail waits; absent: no limit
	Mail    bool    `json:"gets_mail"`                   // some account takes the mail
}

// together sums up the accounts.
func together(name string, spill bool, accounts []AccountShare) Pool {
	p := Pool{Name: name, Spill: spill}
	unlimited := false
	for _, a := range accounts {
		if a.Share == 0 {
			continue
		}
		p.Mail = true
		if len(a.Limits) == 0 || a.Limits[0].BindsAt == 0 {
			unlimited = true
			continue
		}
		if at := a.Limits[0].BindsAt; p.First == "" || at < p.Binds {
			p.First, p.Binds = a.Name, at
		}
		p.Carries += a.Carries
	}
	switch {
	case !spill:
		p.Carries = p.Binds
	case unlimited:
		p.Carries = 0
	}
	return p
}
