package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
)

func showMessage(s *Streams, f format, m *api.Message) error {
	return f.show(s, m, func(w io.Writer) {
		row(w, "id", m.ID)
		row(w, "status", m.Status)
		row(w, "accepted", stamp(m.CreatedAt))
		row(w, "updated", stamp(m.UpdatedAt))
		if m.SendAt != nil {
			row(w, "send at", stampOf(m.SendAt))
		}
		row(w, "expires", stampOf(m.ExpiresAt))
		row(w, "from", mailbox(m.From.Name, m.From.Email))
		row(w, "subject", orDash(m.Subject))
		row(w, "stream", m.Stream)
		if len(m.Tags) > 0 {
			row(w, "tags", strings.Join(m.Tags, ", "))
		}
		row(w, "if unknown", m.OnAmbiguous)
		if m.Account != "" {
			row(w, "pinned to", m.Account)
		}
		showWaiting(w, m.Waiting)
		for _, r := range m.Recipients {
			row(w, r.Kind, recipientText(r))
		}
		for _, moment := range timeline(m) {
			moment.show(w)
		}
	})
}

// showWaiting prints why a message has not been sent yet.
func showWaiting(w io.Writer, wait *api.Waiting) {
	if wait == nil {
		return
	}
	why := wait.Code + ": " + wait.Reason
	if wait.Until != nil {
		why += ", until " + stampOf(wait.Until)
	}
	row(w, "waits", why)
	if wait.Code != "turn" && wait.Ahead > 0 {
		row(w, "", atLeast(int64(wait.Ahead), wait.AheadMore)+" messages of its queue come first")
	}
	if wait.Due != nil {
		row(w, "", "next look at it by "+stampOf(wait.Due))
	}
	if wait.Decision != nil && wait.Decision.Chosen == "" {
		for _, line := range decisionLines(*wait.Decision) {
			row(w, "", line)
		}
	}
}

func mailbox(name, email string) string {
	if name == "" {
		return email
	}
	return name + " <" + email + ">"
}

// recipientText returns the mailbox, its status and the reason.
func recipientText(r api.Recipient) string {
	parts := []string{mailbox(r.Name, r.Email), r.Status}
	if r.Bounce != nil {
		parts = append(parts, bounceText(r.Bounce))
	}
	if r.Detail != "" && (r.Bounce == nil || r.Detail != r.Bounce.Text) {
		parts = append(parts, r.Detail)
	}
	if r.Status == "suppressed" && len(parts) == 2 {
		parts = append(parts, "by sendgate's own list: suppressions check "+r.Email)
	}
	return strings.Join(parts, "  ")
}

// moment is one attempt or one event of a message.
type moment struct {
	at   time.Time
	show func(io.Writer)
}

// timeline merges attempts and events by time. Some providers report times only to the second, so within one second an
// attempt comes before events, which follow from it, and acceptance before other events.
func timeline(m *api.Message) []moment {
	moments := make([]moment, 0, len(m.Attempts)+len(m.Events))
	for _, a := range m.Attempts {
		moments = append(moments, moment{a.StartedAt.Truncate(time.Second), func(w io.Writer) { showAttempt(w, a) }})
	}
	events := slices.SortedStableFunc(slices.Values(m.Events), func(a, b api.Event) int {
		return cmp.Or(a.At.Truncate(time.Second).Compare(b.At.Truncate(time.Second)), acceptedFirst(a, b), a.At.Compare(b.At))
	})
	for _, e := range events {
		moments = append(moments, moment{e.At.Truncate(time.Second), func(w io.Writer) { showEvent(w, e) }})
	}
	slices.SortStableFunc(moments, func(a, b moment) int { return a.at.Compare(b.at) })
	return moments
}

func acceptedFirst(a, b api.Event) int {
	switch {
	case a.Type == b.Type:
		return 0
	case a.Type == "accepted":
		return -1
	case b.Type == "accepted":
		return 1
	}
	return 0
}

func showEvent(w io.Writer, e api.Event) {
	facts := []string{typeOf(e), orDash(e.Recipient), stamp(e.At)}
	if e.Account != "" {
		facts = append(facts, "by "+e.Account)
	}
	if e.Source != "webhook" {
		facts = append(facts, "from "+e.Source)
	}
	row(w, "event", strings.Join(facts, "  "))
	if why := whyOf(e); why != "" {
		row(w, "", why)
	}
}

func showAttempt(w io.Writer, a api.Attempt) {
	outcome := a.Class
	if outcome == "" {
		outcome = "in progress"
	}
	facts := []string{a.Account + " (" + a.Provider + ")", outcome, stamp(a.StartedAt)}
	if a.TookMS != nil {
		facts = append(facts, fmt.Sprintf("%d ms", *a.TookMS))
	}
	if a.ProviderMessageID != "" {
		facts = append(facts, "id "+a.ProviderMessageID)
	}
	if a.VerdictSource != "" {
		facts = append(facts, "by "+a.VerdictSource)
	}
	row(w, fmt.Sprintf("attempt %d", a.N), strings.Join(facts, "  "))
	if a.MessageIDHeader != "" {
		row(w, "", "Message-ID: "+a.MessageIDHeader)
	}
	if reply := replyOf(a); reply != "" {
		row(w, "", "answer: "+reply)
	}
	for _, line := range explain(a.Decision) {
		row(w, "", line)
	}
}

// replyOf returns the provider's reply, such as "429 (rate_limit) too many requests".
func replyOf(a api.Attempt) string {
	var parts []string
	if a.Status != 0 {
		parts = append(parts, fmt.Sprint(a.Status))
	}
	if a.Code != "" {
		parts = append(parts, "("+a.Code+")")
	}
	if a.Error != "" {
		parts = append(parts, a.Error)
	}
	return strings.Join(parts, " ")
}

// explain describes a decision: how the account was found, then a line for each candidate.
func explain(raw json.RawMessage) []string {
	var d api.Decision
	if len(raw) == 0 || json.Unmarshal(raw, &d) != nil {
		return nil
	}
	return decisionLines(d)
}

func decisionLines(d api.Decision) []string {
	lines := []string{headline(d)}
	for _, c := range d.Candidates {
		why := reasonText(c)
		switch {
		case c.Account == d.Chosen:
			why = "chosen"
		case why == "":
			why = "could have taken it"
		}
		lines = append(lines, fmt.Sprintf("- %s, weight %s: %s", c.Account, number(c.Weight), why))
	}
	return lines
}

// reasonText returns why a candidate could not take the message. The code comes first if the text is from a provider or a rule.
func reasonText(c api.Candidate) string {
	switch c.Code {
	case "cannot", "tried", "parked":
		return c.Code + ": " + c.Reason
	}
	return c.Reason
}

func headline(d api.Decision) string {
	way := "pool " + d.Pool
	if d.Rule != 0 {
		way = fmt.Sprintf("rule %d, pool %s", d.Rule, d.Pool)
	}
	if d.Pinned {
		way = "pinned by the message"
	}
	chosen := "chose " + d.Chosen
	if d.Chosen == "" {
		chosen = "no account can take it now"
	}
	if d.Spilled {
		chosen += ", because the first choice had no free slot (spill)"
	}
	return fmt.Sprintf("why: %s, %s (configuration %d)", way, chosen, d.Config)
}
