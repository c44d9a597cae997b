package incident

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// Facts are how the service stands at one moment, over all replicas.
type Facts struct {
	Now        time.Time
	Accounts   []Account
	NewUnknown int            // messages that became unknown within CallSpan, and still are
	QueueAge   time.Duration  // how long the oldest message waits that is due, or was put off
	Pending    int            // deliveries to webhook endpoints that wait, at most record.MaxCounted
	Violations map[string]int // contradictions at the last check of the books, by kind
}

// Account is one account, with what became of its mail.
type Account struct {
	Name        string
	Reports     bool // its provider reports deliveries
	CreatedAt   time.Time
	Parks       []Park
	Minute      Calls // within the last minute
	Span        Calls // within CallSpan
	LastSent    time.Time
	LastEvent   time.Time
	Day         Outcomes
	Limits      []limit.State
	LastFailure string // of the calls that failed, in the provider's words
}

// Park is a refusal of an account (Sender is "") or of one of its senders.
type Park struct{ Sender, Reason string }

// CallSpan is how far back the calls of Account.Span go.
const CallSpan = 5 * time.Minute

// Calls counts calls by how they ended.
type Calls struct {
	Accepted int
	Failed   int // transient or uncertain
	All      int
}

// Outcomes counts what was reported of an account's mail within a day. Sent are accepted messages, the others recipients.
type Outcomes struct{ Sent, Delivered, Bounced, Complained int }

// Bounds of the judgement.
const (
	downCalls   = 5  // failures within a minute, if they are half of its calls
	downSparse  = 3  // failures within CallSpan without any success
	unknownMost = 10 // messages within CallSpan
	oldestDue   = 5 * time.Minute
	silence     = time.Hour
	eventSlack  = time.Minute // an event and the record of its call may be so far out of order
	longLimit   = time.Hour   // shorter limits are there to be used up
	nearLimit   = .9
	farLimit    = .8
	waning      = .8 // of a bound of a rate: below that, its incident ends

	// Bounces: 1 % is the target of the field. Complaints: Google and Yahoo want less than 0.1 %, and block from 0.3 % on.
	bounceMost        = .01
	complaintMost     = .001
	complaintBlocked  = .003
	fewestBounces     = 10
	fewestComplaints  = 3
	fewestOfRateIsFor = 100 // recipients
)

// Judge says what is wrong. Accounts without calls, and rates of few recipients, give no findings about them.
func Judge(f *Facts) []Finding {
	var found []Finding
	calls := 0
	for i := range f.Accounts {
		a := &f.Accounts[i]
		calls += a.Span.All
		for _, judge := range []func(*Account, time.Time) []Finding{down, parked, silent, quotas, rates} {
			found = append(found, judge(a, f.Now)...)
		}
	}
	if most := max(unknownMost, calls/100); f.NewUnknown >= most {
		found = append(found, Finding{Kind: UnknownGrowing, Detail: fmt.Sprintf("%d messages became unknown within %s and still are", f.NewUnknown, minutes(CallSpan))})
	}
	if f.QueueAge >= oldestDue {
		found = append(found, Finding{Kind: QueueAge, Detail: fmt.Sprintf("the oldest message has waited for %s", minutes(f.QueueAge))})
	}
	for _, kind := range slices.Sorted(maps.Keys(f.Violations)) {
		if n := f.Violations[kind]; n > 0 {
			found = append(found, Finding{Kind: Books, Subject: kind, Detail: fmt.Sprintf("%d of kind %s", n, kind)})
		}
	}
	return found
}

func down(a *Account, _ time.Time) []Finding {
	m, s := a.Minute, a.Span
	switch {
	case m.Failed >= downCalls && m.Failed*2 >= m.All:
	case s.Failed >= downSparse && s.Accepted == 0 && m.Failed > 0:
	case m.Failed > 0 && m.Failed*2 >= m.All:
		return []Finding{{Kind: ProviderDown, Account: a.Name, Waning: true, Detail: failures(m.Failed, m.All, time.Minute, a.LastFailure)}}
	default:
		return nil
	}
	return []Finding{{Kind: ProviderDown, Account: a.Name, Detail: failures(s.Failed, s.All, CallSpan, a.LastFailure)}}
}

func failures(failed, all int, span time.Duration, last string) string {
	text := fmt.Sprintf("%d of %d calls within %s failed", failed, all, minutes(span))
	if last != "" {
		text += "; the last one: " + last
	}
	return text
}

func parked(a *Account, _ time.Time) (found []Finding) {
	for _, p := range a.Parks {
		kind := SenderParked
		if p.Sender == "" {
			kind = AuthFailure
		}
		found = append(found, Finding{Kind: kind, Account: a.Name, Subject: p.Sender, Detail: Veil(p.Reason)})
	}
	return found
}

// silent finds that events are missing: a call was accepted after the last event (or, without one, after the account was
// made), and it came an hour after that event, or an hour has passed since the call.
func silent(a *Account, now time.Time) []Finding {
	last := a.LastEvent
	if last.IsZero() {
		last = a.CreatedAt
	}
	if !a.Reports || !a.LastSent.After(last.Add(eventSlack)) || a.LastSent.Sub(last) < silence && now.Sub(a.LastSent) < silence {
		return nil
	}
	detail := "it sends, and no event ever came"
	if !a.LastEvent.IsZero() {
		detail = fmt.Sprintf("it sends, and the last event came %s ago", minutes(now.Sub(a.LastEvent)))
	}
	return []Finding{{Kind: WebhooksSilent, Account: a.Name, Detail: detail}}
}

func quotas(a *Account, _ time.Time) (found []Finding) {
	for _, s := range a.Limits {
		use := float64(s.Used) / float64(max(s.Window.N, 1))
		if s.Window.Per < longLimit || use < farLimit {
			continue
		}
		found = append(found, Finding{
			Kind: QuotaNear, Account: a.Name, Subject: s.Window.String(), Waning: use < nearLimit,
			Detail: fmt.Sprintf("%d of %s are used", s.Used, s.Window),
		})
	}
	return found
}

func rates(a *Account, _ time.Time) (found []Finding) {
	d := a.Day
	all := max(d.Sent, d.Delivered+d.Bounced)
	if all < fewestOfRateIsFor {
		return nil
	}
	for _, r := range []struct {
		kind   Kind
		n      int
		fewest int
		most   float64
		what   string
	}{
		{BounceRate, d.Bounced, fewestBounces, bounceMost, "bounced"},
		{ComplaintRate, d.Complained, fewestComplaints, complaintMost, "complained"},
		{ComplaintRateHigh, d.Complained, fewestComplaints, complaintBlocked, "complained"},
	} {
		rate := float64(r.n) / float64(all)
		if r.n < r.fewest || rate < r.most*waning {
			continue
		}
		found = append(found, Finding{
			Kind: r.kind, Account: a.Name, Waning: rate < r.most,
			Detail: fmt.Sprintf("%d of %d recipients within a day %s: %.2f %%", r.n, all, r.what, 100*rate),
		})
	}
	return found
}

func remedy(k Kind, account string) string {
	return strings.ReplaceAll(k.traits().remedy, "{account}", account)
}

// minutes writes a duration as people say it.
func minutes(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	}
	return fmt.Sprintf("%d seconds", int(d.Seconds()))
}
