// Package incident judges how a service is doing. Judge turns facts into findings, and Step turns findings into incidents,
// each with a beginning and an end. Both are pure: the store gathers the facts and keeps the incidents, and package notify
// tells people.
//
// A finding becomes an incident when it has lasted for the patience of its kind, and an incident ends when its finding was
// gone for a while. Rates also have a lower bound for the end than for the beginning, so that a rate about a bound is one
// incident and not a hundred.
//
// A newcomer's likeliest mistake is to put a number that changes all the time into Subject: Kind, Account and Subject say
// which incident it is. Numbers belong into Detail.
package incident

import (
	"slices"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
)

// Kind is what is wrong. Each kind has a section in docs/runbook.md.
type Kind string

// The kinds.
const (
	ProviderDown      Kind = "provider_down"       // most calls of an account fail
	AuthFailure       Kind = "auth_failure"        // a provider refuses an account as a whole: its key, or its credits
	SenderParked      Kind = "sender_parked"       // a provider refuses a sender of an account
	UnknownGrowing    Kind = "unknown_growing"     // many calls end without a clear answer
	QueueAge          Kind = "queue_age"           // a message waits for too long
	WebhooksSilent    Kind = "webhooks_silent"     // an account sends, and its provider reports nothing
	QuotaNear         Kind = "quota_near"          // a long limit of an account is nearly used up
	BounceRate        Kind = "bounce_rate"         // too many of an account's recipients bounce
	ComplaintRate     Kind = "complaint_rate"      // too many of them complain
	ComplaintRateHigh Kind = "complaint_rate_high" // so many that mailbox providers block senders for it
	Books             Kind = "books"               // the books do not balance

	// Test is the kind of an incident that there is not: it shows whether a rule works. Kinds does not list it.
	Test Kind = "test"
)

// traits are what is fixed for a kind.
type traits struct {
	hold   time.Duration // how long it must last before it is told
	rest   time.Duration // how long it must be gone before it has ended
	says   string
	remedy string // {account} stands for the account
}

// table has all kinds, in the order in which they are listed.
var table = []struct {
	kind Kind
	traits
}{
	{ProviderDown, traits{0, time.Minute, "most calls fail", "Look at the provider's status page, and at: sendgate providers show {account}. Others take its mail; to keep mail away from it: sendgate providers pause {account}"}},
	{AuthFailure, traits{0, 15 * time.Second, "the provider refuses the account", "Others take its mail meanwhile. Look at: sendgate providers show {account}. Then set a new key (sendgate providers change {account}), or mend it at the provider, and: sendgate providers resume {account}"}},
	{SenderParked, traits{0, 15 * time.Second, "the provider refuses a sender", "Verify the sender at the provider, then: sendgate providers resume {account}"}},
	{UnknownGrowing, traits{0, 5 * time.Minute, "calls end without a clear answer", "Look at: sendgate messages list --status unknown, and at the status pages of the providers"}},
	{QueueAge, traits{30 * time.Second, time.Minute, "messages wait for too long", "Look at: sendgate queue, and: sendgate providers list"}},
	{WebhooksSilent, traits{5 * time.Minute, time.Minute, "no events come", "Look at: sendgate providers webhooks {account}"}},
	{QuotaNear, traits{0, 5 * time.Minute, "a limit is nearly used up", "Give other accounts more weight (sendgate pools set), or ask the provider for more and then: sendgate providers limits {account}"}},
	{BounceRate, traits{0, 30 * time.Minute, "too many bounces", "Look at: sendgate events stats --by domain, and: sendgate events list --type bounced"}},
	{ComplaintRate, traits{0, 30 * time.Minute, "too many complaints", "Look at: sendgate events list --type complained, and find out who sends this mail"}},
	{ComplaintRateHigh, traits{0, 30 * time.Minute, "so many complaints that mailbox providers block for it", "Stop the stream that draws them: sendgate events stats --by stream"}},
	{Books, traits{0, 90 * time.Second, "the books do not balance", "Look at: sendgate doctor, and at docs/operations.md, \"The books do not balance\""}},
}

// Kinds lists all kinds.
func Kinds() []Kind {
	all := make([]Kind, len(table))
	for i := range table {
		all[i] = table[i].kind
	}
	return all
}

func (k Kind) traits() traits {
	for i := range table {
		if table[i].kind == k {
			return table[i].traits
		}
	}
	return traits{says: "this is a test"}
}

// Says describes the kind in a few words.
func (k Kind) Says() string { return k.traits().says }

// Finding is one thing that is wrong now.
type Finding struct {
	Kind    Kind
	Account string // "" for the whole service
	Subject string // what of the account, if it may have several of the kind
	Detail  string // for people, with the numbers
	// Waning says that it is no longer bad enough to begin an incident, but too bad to end one.
	Waning bool
}

// Incident is something that is wrong, with its beginning and its end. A zero Began means that it has not lasted for long
// enough yet; nobody has been told of it.
type Incident struct {
	ID      mail.ID
	Kind    Kind
	Account string
	Subject string
	Detail  string    // of the last finding
	Since   time.Time // when it was first seen
	Began   time.Time
	Gone    time.Time // since when it is not seen any more; zero while it is
	Ended   time.Time
}

// Remedy says what to do.
func (i *Incident) Remedy() string { return remedy(i.Kind, i.Account) }

func (i *Incident) is(f *Finding) bool {
	return i.Kind == f.Kind && i.Account == f.Account && i.Subject == f.Subject
}

// Changes are what a step does to the incidents.
type Changes struct {
	Keep         []Incident // all that are still there, and those that ended just now, as they are to be stored
	Drop         []mail.ID  // those that went before they had begun
	Began, Ended []Incident // those of Keep that are to be told
}

// Step brings the incidents that have not ended in line with what was found. newID makes the ids of new ones.
func Step(open []Incident, found []Finding, now time.Time, newID func() mail.ID) Changes {
	var c Changes
	for _, in := range open {
		at := slices.IndexFunc(found, func(f Finding) bool { return in.is(&f) })
		switch kind := in.Kind.traits(); {
		case at >= 0 && (!in.Began.IsZero() || !found[at].Waning):
			in.Detail, in.Gone = found[at].Detail, time.Time{}
			c.keep(in, kind.hold, now)
		case in.Began.IsZero():
			c.Drop = append(c.Drop, in.ID)
		default:
			if in.Gone.IsZero() {
				in.Gone = now
			}
			if now.Sub(in.Gone) >= kind.rest {
				in.Ended = now
				c.Ended = append(c.Ended, in)
			}
			c.Keep = append(c.Keep, in)
		}
	}
	for i := range found {
		f := &found[i]
		if f.Waning || slices.ContainsFunc(open, func(in Incident) bool { return in.is(f) }) {
			continue
		}
		in := Incident{ID: newID(), Kind: f.Kind, Account: f.Account, Subject: f.Subject, Detail: f.Detail, Since: now}
		c.keep(in, f.Kind.traits().hold, now)
	}
	return c
}

// keep keeps an incident that is seen, and begins it once it has lasted for long enough.
func (c *Changes) keep(in Incident, hold time.Duration, now time.Time) {
	if in.Began.IsZero() && now.Sub(in.Since) >= hold {
		in.Began = now
		c.Began = append(c.Began, in)
	}
	c.Keep = append(c.Keep, in)
}
