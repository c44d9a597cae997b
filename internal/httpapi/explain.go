package httpapi

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// explain takes the body of a send, checks it as a send is checked, and answers what routing would do with it now. It stores
// nothing. It does not apply rules of a key, such as its sender domains: nothing is sent by this key.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) error {
	if err := noQuery(r); err != nil {
		return err
	}
	body, release, err := s.readJSON(w, r)
	defer release()
	if err != nil {
		return err
	}
	_, m, err := s.message(body)
	if err != nil {
		return err
	}
	facts := m.Facts()
	return writeJSON(w, http.StatusOK, s.explanation(route.Request{Facts: &facts}))
}

func (s *Server) explanation(r route.Request) api.Explanation {
	return api.Explanation{Facts: factsView(*r.Facts), Decision: decisionView(s.router.Explain(r))}
}

// explainMessage shows what routing would do now with a stored message, of any tenant, if it had to be sent.
func (s *Server) explainMessage(r *http.Request) (out api.Explanation, err error) {
	id, err := pathID(r, noMessage)
	if err != nil {
		return out, err
	}
	at, err := s.store.Waiting(r.Context(), id)
	if err != nil {
		return out, missing(err, noMessage)
	}
	return s.explanation(route.Request{Facts: at.Facts, Seed: route.Seed(id), Avoid: at.Avoid}), nil
}

func factsView(f mail.Facts) api.Facts {
	return api.Facts{
		Account: f.Account, Stream: f.Stream, Tags: f.Tags, SenderDomain: f.SenderDomain, RecipientDomains: f.Domains,
		Recipients: f.Recipients, Bytes: f.Bytes, Attachments: f.Attachments, NeedsSMTPUTF8: f.NeedsSMTPUTF8,
		Calendar: f.Calendar,
	}
}

func decisionView(d route.Decision) api.Decision {
	return api.Decision{
		Config: d.Config, Rule: d.Rule, Pool: d.Pool, Pinned: d.Pinned, Chosen: d.Chosen, WaitsFor: d.WaitsFor,
		Spilled: d.Spilled, Probe: d.Probe, Omitted: d.Omitted, Candidates: views(d.Candidates, candidateView),
	}
}

func candidateView(c *route.Candidate) api.Candidate {
	return api.Candidate{Account: c.Account, Weight: c.Weight, Code: string(c.Code), Reason: c.Reason, Until: optional(c.Until)}
}

// Codes of api.Waiting that are not codes of a candidate.
const (
	waitsScheduled = "scheduled" // for its send_at
	waitsRetry     = "retry"     // after a call that failed
	waitsTurn      = "turn"      // an account can take it, other messages come first
	waitsNoAccount = "no_account"
	waitsSending   = "sending"
	waitsUnknown   = "unknown"
)

// soonest ranks the reasons that keep accounts from a message by how soon they may end. A message waits for the first of them.
var soonest = []route.Code{
	route.Busy, route.NoSlot, route.Throttled, route.Stalled, route.Breaker, route.Tried, route.Parked, route.Broken,
	route.Paused, route.Draining, route.NoWeight, route.Absent, route.Cannot,
}

// waitingView says why a message has not been sent yet and, if known, until when. It returns nil for a settled message.
// Limits, breakers and parks are as this replica sees them.
func (s *Server) waitingView(v *record.View, now time.Time) *api.Waiting {
	w := v.Waiting
	switch {
	case w == nil:
		return nil
	case w.Sending:
		return &api.Waiting{Code: waitsSending, Reason: "it is being sent by " + w.Account, Account: w.Account}
	case w.Unknown && w.Policy == queue.Repeating:
		return &api.Waiting{
			Code: waitsUnknown, Account: w.Account, Until: optional(w.Decide),
			Reason: "nobody knows yet whether " + w.Account + " took it; the same call is made again there, which sends it once",
		}
	case w.Unknown:
		return &api.Waiting{
			Code: waitsUnknown, Account: w.Account, Until: optional(w.Decide),
			Reason: "nobody knows yet whether " + w.Account + " took it; without evidence the rule " + string(w.Policy) + " decides",
		}
	case !w.Ready:
		return nil
	case v.Message.SendAt.After(now):
		return &api.Waiting{Code: waitsScheduled, Reason: "it is to be sent later", Due: optional(w.Due), Until: optional(v.Message.SendAt)}
	case !w.Held && w.Due.After(now):
		return &api.Waiting{Code: waitsRetry, Reason: "its last call failed and is repeated", Due: optional(w.Due), Until: optional(w.Due)}
	}
	d := s.router.Explain(route.Request{Facts: w.Facts, Seed: route.Seed(v.Message.ID), Avoid: w.Avoid})
	out := waitsFor(d)
	out.Due, out.Ahead, out.AheadMore = optional(w.Due), w.Ahead, w.Ahead == queue.MaxAhead
	if out.Code == waitsTurn {
		out.Reason = fmt.Sprintf("%d messages of its queue come first", w.Ahead)
		if out.AheadMore {
			out.Reason = fmt.Sprintf("more than %d messages of its queue come first", w.Ahead)
		}
	}
	view := decisionView(d)
	out.Decision = &view
	return out
}

// waitsFor derives from a decision what the message waits for.
func waitsFor(d route.Decision) *api.Waiting {
	if d.Chosen != "" {
		return &api.Waiting{Code: waitsTurn, Account: d.Chosen}
	}
	struck := slices.DeleteFunc(slices.Clone(d.Candidates), func(c route.Candidate) bool {
		return c.Code == "" || d.WaitsFor != "" && c.Account != d.WaitsFor
	})
	if len(struck) == 0 {
		return &api.Waiting{Code: waitsNoAccount, Reason: "its pool has no account"}
	}
	first := slices.MinFunc(struck, func(a, b route.Candidate) int {
		return cmp.Or(cmp.Compare(slices.Index(soonest, a.Code), slices.Index(soonest, b.Code)), sooner(a.Until, b.Until))
	})
	return &api.Waiting{
		Code: string(first.Code), Reason: first.Account + ": " + first.Reason, Account: first.Account, Until: optional(first.Until),
	}
}

// sooner compares times; the zero time means unknown and comes last.
func sooner(a, b time.Time) int {
	if a.IsZero() != b.IsZero() {
		return b.Compare(a)
	}
	return a.Compare(b)
}
