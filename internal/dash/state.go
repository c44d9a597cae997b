package dash

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

// stateKept is how long one reading of the state serves all viewers, so that fifty of them cost as much as one.
const stateKept = 2 * time.Second

// Bounds from which the overview asks for a person.
const (
	lateDue   = 5 * time.Minute // the oldest due message
	nearLimit = 0.9             // of a window
)

// state is how the installation is doing.
type state struct {
	At       time.Time // of the reading
	Queue    *api.Queue
	Accounts []api.Account
	Limits   []api.WindowState
	Webhooks map[string]*api.AccountWebhooks // by account
	Tasks    []task
}

// task is something that needs a person.
type task struct {
	Bad    bool // mail stands still, or may; else it is a warning
	What   string
	Remedy string
	Link   string // below /dash
	Since  time.Time
}

// current returns a reading of the state that is at most stateKept old. It is of the whole installation, so the person must be one who may
// read that: a reading that another person has caused would skip the check of the API.
func (v *visit) current() (state, error) {
	if !v.may(record.ScopeRoutingRead) {
		_, err := v.api.Queue(v.r.Context()) // the API says why not
		return state{}, err
	}
	return v.state.get(v, stateKept, v.readState)
}

func (v *visit) readState(ctx context.Context) (s state, err error) {
	s.At = v.Now().UTC()
	if s.Queue, err = v.api.Queue(ctx); err != nil {
		return s, err
	}
	if s.Accounts, err = v.api.Accounts(ctx); err != nil {
		return s, err
	}
	if s.Limits, err = v.api.Limits(ctx); err != nil {
		return s, err
	}
	s.Webhooks = map[string]*api.AccountWebhooks{}
	for _, a := range s.Accounts {
		w, err := v.api.AccountWebhooks(ctx, a.Name)
		if is(err, "not_found") { // it was removed just now
			continue
		}
		if err != nil {
			return s, err
		}
		s.Webhooks[a.Name] = w
	}
	s.Tasks = s.tasks()
	return s, nil
}

// tasks lists what needs a person, what stands still first.
func (s *state) tasks() []task {
	var bad, warn []task
	add := func(t task) {
		if t.Bad {
			bad = append(bad, t)
		} else {
			warn = append(warn, t)
		}
	}
	if len(s.Queue.Replicas) == 0 {
		add(task{Bad: true, What: "No process sends mail.", Remedy: "Start sendgate serve, or look into its log.", Link: "/queue"})
	}
	if o := s.Queue.OldestDue; o != nil && s.At.Sub(*o) > lateDue {
		add(task{
			Bad: true, What: "The oldest due message waits for " + span(s.At.Sub(*o)) + ".",
			Remedy: "Look which accounts are at their limits, parked or paused.", Link: "/queue", Since: *o,
		})
	}
	for i := range s.Accounts {
		s.accountTasks(&s.Accounts[i], add)
	}
	if n := s.Queue.Unknown; n > 0 {
		add(task{
			What:   count(s.Queue, "unknown", n) + " messages may or may not have been sent: the answer to a call was lost.",
			Remedy: "They settle by events or look-ups, or by their policy. If the number grows, look at the provider.", Link: "/messages?status=unknown",
		})
	}
	for _, l := range s.Limits {
		if t, near := limitTask(&l); near {
			add(t)
		}
	}
	return append(bad, warn...)
}

func (s *state) accountTasks(a *api.Account, add func(task)) {
	at := accountLink(a.Name)
	for _, p := range a.Parked {
		who := a.Name
		if about := p.Sender + p.SenderDomain; about != "" {
			who += " for " + about
		}
		add(task{
			Bad: true, What: who + " is parked: " + p.Reason, Since: p.Since, Link: at,
			Remedy: "Put it right at the provider, then resume the account. A message is let through from time to time to try it.",
		})
	}
	if len(a.UnreadableSecrets) > 0 {
		add(task{
			Bad: true, What: a.Name + ": the secrets " + strings.Join(a.UnreadableSecrets, ", ") + " can't be decrypted.", Link: at,
			Remedy: "Give the server the key that encrypted them, or set them again.",
		})
	}
	if a.State == "paused" {
		add(task{What: a.Name + " is paused.", Remedy: "Resume it when it may take mail again.", Link: at})
	}
	if w := s.Webhooks[a.Name]; w != nil && w.Silent {
		t := task{
			What: a.Name + " sent mail, and its provider reports nothing.", Link: "/webhooks",
			Remedy: "Check the webhook at the provider: sendgate providers webhooks " + a.Name + " sets it up.",
		}
		if w.LastEventAt != nil {
			t.Since = *w.LastEventAt
		}
		add(t)
	}
}

// limitTask says that a window is full or nearly so. Windows below a minute fill in normal work.
func limitTask(l *api.WindowState) (task, bool) {
	per, err := time.ParseDuration(l.Limit.Per)
	if err != nil || per < time.Minute || l.Limit.N == 0 {
		return task{}, false
	}
	name := fmt.Sprintf("%s: %d of %d %s per %s used", l.Account, l.Used, l.Limit.N, l.Limit.Unit, l.Limit.Per)
	switch {
	case l.BlockedUntil != nil:
		return task{
			What: name + ", blocked until " + stamp(l.BlockedUntil) + " UTC.", Link: accountLink(l.Account),
			Remedy: "Mail goes to other accounts, or waits. Move weight away, or ask the provider for more.",
		}, true
	case float64(l.Used) >= nearLimit*float64(l.Limit.N):
		return task{What: name + ".", Link: accountLink(l.Account), Remedy: "Move weight away before it is full, or ask the provider for more."}, true
	}
	return task{}, false
}

func accountLink(name string) string { return "/accounts/" + url.PathEscape(name) }

// count says how many there are, with "at least" when counting stopped there.
func count(q *api.Queue, what string, n int64) string {
	for _, w := range q.AtLeast {
		if w == what {
			return "at least " + strconv.FormatInt(n, 10)
		}
	}
	return strconv.FormatInt(n, 10)
}

// Count is count for templates.
func (s state) Count(what string, n int64) string { return count(s.Queue, what, n) }

// overview is the first page. People who may not see the installation get what they may see of their tenant.
func overview(v *visit) error {
	x := struct {
		State   *state
		Traffic *traffic
		Stats   *api.Stats
	}{}
	if v.may(record.ScopeRoutingRead) {
		s, err := v.current()
		if err != nil {
			return err
		}
		x.State = &s
		if v.partial() {
			return v.show(200, "state", "overview", "Overview", x.State)
		}
		t, err := v.readTraffic("")
		if err != nil {
			return err
		}
		x.Traffic = &t
	}
	stats, err := v.api.Stats(v.r.Context(), api.StatsQuery{By: "account"})
	if err != nil && !is(err, "too_many_requests") { // the counts are a part of the page that may be busy
		return err
	}
	x.Stats = stats
	return v.show(200, "overview", "overview", "Overview", x)
}
