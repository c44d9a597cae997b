package incident

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/mail"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// briefly writes findings as their kind, what they are about, and whether they are waning.
func briefly(found []Finding) []string {
	var out []string
	for _, f := range found {
		s := strings.TrimSpace(fmt.Sprintf("%s %s %s", f.Kind, f.Account, f.Subject))
		if f.Waning {
			s += " (waning)"
		}
		out = append(out, s)
	}
	return out
}

func TestJudge(t *testing.T) {
	t.Parallel()
	hour, day := limit.Window{N: 1000, Per: time.Hour, Unit: limit.Requests}, limit.Window{N: 100, Per: time.Second, Unit: limit.Requests}
	used := func(w limit.Window, n int) []limit.State { return []limit.State{{Account: "ses", Window: w, Used: n}} }
	tests := map[string]struct {
		account Account
		facts   Facts
		want    []string
	}{
		"nothing":                    {},
		"all is well":                {account: Account{Minute: Calls{100, 0, 100}, Span: Calls{500, 0, 500}, Day: Outcomes{10000, 9900, 79, 7}}},
		"half of many calls fail":    {account: Account{Minute: Calls{5, 5, 10}, Span: Calls{100, 5, 105}}, want: []string{"provider_down ses"}},
		"four of eight fail":         {account: Account{Minute: Calls{4, 4, 8}, Span: Calls{4, 4, 8}}, want: []string{"provider_down ses (waning)"}},
		"a third fail":               {account: Account{Minute: Calls{20, 10, 30}, Span: Calls{20, 10, 30}}},
		"few calls, all fail":        {account: Account{Minute: Calls{0, 1, 1}, Span: Calls{0, 3, 3}}, want: []string{"provider_down ses"}},
		"few calls, one worked":      {account: Account{Minute: Calls{0, 0, 0}, Span: Calls{1, 3, 4}}},
		"refusals are no outage":     {account: Account{Minute: Calls{0, 0, 50}, Span: Calls{0, 0, 50}}},
		"account refused":            {account: Account{Parks: []Park{{"", "401"}}}, want: []string{"auth_failure ses"}},
		"two senders refused":        {account: Account{Parks: []Park{{"a.example", "x"}, {"b@c.example", "y"}}}, want: []string{"sender_parked ses a.example", "sender_parked ses b@c.example"}},
		"no event since it sent":     {account: Account{Reports: true, LastSent: noon, LastEvent: noon.Add(-2 * time.Hour)}, want: []string{"webhooks_silent ses"}},
		"no event for a lone mail":   {account: Account{Reports: true, LastSent: noon.Add(-time.Hour), LastEvent: noon.Add(-62 * time.Minute)}, want: []string{"webhooks_silent ses"}},
		"no event ever":              {account: Account{Reports: true, CreatedAt: noon.Add(-3 * time.Hour), LastSent: noon}, want: []string{"webhooks_silent ses"}},
		"new account":                {account: Account{Reports: true, CreatedAt: noon.Add(-time.Hour / 2), LastSent: noon}},
		"sent nothing since":         {account: Account{Reports: true, LastSent: noon.Add(-3 * time.Hour), LastEvent: noon.Add(-3 * time.Hour)}},
		"a relay reports nothing":    {account: Account{LastSent: noon, LastEvent: noon.Add(-2 * time.Hour)}},
		"hour nearly used up":        {account: Account{Limits: used(hour, 900)}, want: []string{"quota_near ses 1000 requests per 1h0m0s"}},
		"hour used less":             {account: Account{Limits: used(hour, 899)}, want: []string{"quota_near ses 1000 requests per 1h0m0s (waning)"}},
		"hour used much less":        {account: Account{Limits: used(hour, 799)}},
		"second used up":             {account: Account{Limits: used(day, 100)}},
		"one percent bounces":        {account: Account{Day: Outcomes{Sent: 1000, Bounced: 10}}, want: []string{"bounce_rate ses"}},
		"a little less":              {account: Account{Day: Outcomes{Sent: 1250, Bounced: 10}}, want: []string{"bounce_rate ses (waning)"}},
		"half a percent bounces":     {account: Account{Day: Outcomes{Sent: 2000, Bounced: 10}}},
		"many bounces of few":        {account: Account{Day: Outcomes{Sent: 99, Bounced: 50}}},
		"one in a thousand complain": {account: Account{Day: Outcomes{Sent: 3000, Complained: 3}}, want: []string{"complaint_rate ses"}},
		"three in a thousand":        {account: Account{Day: Outcomes{Sent: 1000, Complained: 3}}, want: []string{"complaint_rate ses", "complaint_rate_high ses"}},
		"two complaints":             {account: Account{Day: Outcomes{Sent: 200, Complained: 2}}},
		"ten became unknown":         {facts: Facts{NewUnknown: 10}, want: []string{"unknown_growing"}},
		"ten of many":                {account: Account{Minute: Calls{400, 0, 400}, Span: Calls{2000, 0, 2000}}, facts: Facts{NewUnknown: 19}},
		"a message waits":            {facts: Facts{QueueAge: 5 * time.Minute}, want: []string{"queue_age"}},
		"a message waits a little":   {facts: Facts{QueueAge: 299 * time.Second}},
		"the books":                  {facts: Facts{Violations: map[string]int{"twice": 1, "lost": 2, "ended": 0}}, want: []string{"books  lost", "books  twice"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := tt.facts
			f.Now, tt.account.Name = noon, "ses"
			f.Accounts = []Account{tt.account}
			if diff := cmp.Diff(tt.want, briefly(Judge(&f))); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// story runs steps over time and writes what began and what ended, with the seconds since noon.
func story(steps map[int][]Finding, until int) []string {
	var open []Incident
	var told []string
	for s := 0; s <= until; s += 5 {
		at := noon.Add(time.Duration(s) * time.Second)
		c := Step(open, steps[latest(steps, s)], at, mail.NewID)
		for _, in := range c.Began {
			told = append(told, fmt.Sprintf("%d began %s", s, in.Kind))
		}
		for _, in := range c.Ended {
			told = append(told, fmt.Sprintf("%d ended %s", s, in.Kind))
		}
		open = nil
		for _, in := range c.Keep {
			if in.Ended.IsZero() {
				open = append(open, in)
			}
		}
	}
	return told
}

// latest returns the last change of what is found, up to a second.
func latest(steps map[int][]Finding, s int) int {
	last := 0
	for from := range steps {
		if from <= s {
			last = max(last, from)
		}
	}
	return last
}

func TestAnIncidentBeginsAndEndsOnce(t *testing.T) {
	t.Parallel()
	one := func(kind Kind, waning bool) []Finding { return []Finding{{Kind: kind, Account: "ses", Waning: waning}} }
	tests := map[string]struct {
		steps map[int][]Finding
		want  []string
	}{
		"at once, and rest":          {map[int][]Finding{0: one(ProviderDown, false), 20: nil}, []string{"0 began provider_down", "80 ended provider_down"}},
		"it comes back in time":      {map[int][]Finding{0: one(ProviderDown, false), 20: nil, 50: one(ProviderDown, false), 100: nil}, []string{"0 began provider_down", "160 ended provider_down"}},
		"it must last":               {map[int][]Finding{0: one(QueueAge, false), 100: nil}, []string{"30 began queue_age", "160 ended queue_age"}},
		"it does not last":           {map[int][]Finding{0: one(QueueAge, false), 25: nil, 40: one(QueueAge, false), 60: nil}, nil},
		"waning begins nothing":      {map[int][]Finding{0: one(ProviderDown, true)}, nil},
		"waning ends nothing":        {map[int][]Finding{0: one(ProviderDown, false), 20: one(ProviderDown, true), 100: nil}, []string{"0 began provider_down", "160 ended provider_down"}},
		"waning does not keep young": {map[int][]Finding{0: one(QueueAge, false), 20: one(QueueAge, true), 40: one(QueueAge, false), 60: nil}, nil},
		"a second one later":         {map[int][]Finding{0: one(AuthFailure, false), 10: nil, 100: one(AuthFailure, false)}, []string{"0 began auth_failure", "25 ended auth_failure", "100 began auth_failure"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, story(tt.steps, 240)); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIncidentsOfTwoAccountsAreTwo(t *testing.T) {
	t.Parallel()
	c := Step(nil, []Finding{{Kind: AuthFailure, Account: "a"}, {Kind: AuthFailure, Account: "b"}, {Kind: SenderParked, Account: "a", Subject: "x"}}, noon, mail.NewID)
	if len(c.Began) != 3 {
		t.Fatalf("began = %v, want three", c.Began)
	}
	c = Step(c.Keep, []Finding{{Kind: AuthFailure, Account: "b", Detail: "still"}}, noon.Add(time.Hour), mail.NewID)
	if len(c.Began) != 0 || len(c.Keep) != 3 || c.Keep[1].Detail != "still" || !c.Keep[1].Gone.IsZero() || c.Keep[0].Gone.IsZero() {
		t.Errorf("after an hour: %+v", c)
	}
}

// A notice goes to chats and mailboxes: it says whose domain, and not which person.
func TestANoticeNamesNoAddress(t *testing.T) {
	t.Parallel()
	found := Judge(&Facts{Accounts: []Account{{Name: "ses", Parks: []Park{{"ann@shop.example", `550 <bob.smith+x@example.org>: "carol@example.net" unverified`}}}}})
	n := Notice{Incident: Step(nil, found, noon, mail.NewID).Began[0]}
	text := n.Text()
	for _, name := range []string{"ann", "bob", "smith", "carol"} {
		if strings.Contains(text, name) {
			t.Errorf("the text has %q:\n%s", name, text)
		}
	}
	for _, want := range []string{"ses: the provider refuses a sender", "***@shop.example", "***@example.org", "sendgate providers resume ses", "docs/runbook.md#sender-parked", "2026-01-31T12:00:00Z"} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	n.Ended, n.Incident.Ended = true, noon.Add(time.Minute)
	if text := n.Text(); !strings.HasPrefix(text, "ended: ses: ") || !strings.Contains(text, "2026-01-31T12:01:00Z") || strings.Contains(text, "resume") {
		t.Errorf("the text of the end: %s", text)
	}
}

func TestEveryKindHasASectionInTheRunbook(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range Kinds() {
		_, anchor, _ := strings.Cut(kind.Runbook(), "#")
		if !strings.Contains(string(page), "<a id=\""+anchor+"\"></a>") {
			t.Errorf("docs/runbook.md has no anchor %s", anchor)
		}
		if kind.Says() == "" || (&Incident{Kind: kind}).Remedy() == "" {
			t.Errorf("%s says nothing, or has no remedy", kind)
		}
	}
}
