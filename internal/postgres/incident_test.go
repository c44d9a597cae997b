package postgres

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/incident"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/queue"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/seal"
)

// watching gives a new owner the lease of the watch.
func (b *bed) watching(t *testing.T) mail.ID {
	t.Helper()
	owner := mail.NewID()
	if mine, err := b.db.LeaseWatch(t.Context(), owner, time.Minute); err != nil || !mine {
		t.Fatalf("lease: %t, %v", mine, err)
	}
	return owner
}

func TestOneReplicaWatches(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	ctx := t.Context()
	first, second := b.watching(t), mail.NewID()
	lease := func(owner mail.ID) bool {
		t.Helper()
		mine, err := b.db.LeaseWatch(ctx, owner, time.Minute)
		must(t, err)
		return mine
	}
	if lease(second) || !lease(first) {
		t.Error("a second replica has the lease, or the first one lost it")
	}
	if err := b.db.KeepIncidents(ctx, second, incident.Changes{}); !errors.Is(err, record.ErrStale) {
		t.Errorf("KeepIncidents without the lease: %v, want ErrStale", err)
	}
	must(t, b.db.EndWatch(ctx, first))
	if !lease(second) || lease(first) {
		t.Error("the lease that was given up is not the next one's")
	}
	b.exec(t, `UPDATE notify_state SET lease_until = now() - interval '1 second'`)
	if !lease(first) {
		t.Error("the lease that ran out is not the next one's")
	}
}

func TestEachBeginningAndEndMakesOneNoticeForEachRuleThatWantsIt(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	ctx := t.Context()
	owner, now := b.watching(t), time.Now().UTC().Truncate(time.Millisecond)
	for _, r := range []incident.Rule{
		{Name: "all", Channel: incident.Webhook, URL: seal.NewSecret("https://a.example/x"), Origin: "https://a.example", Secret: seal.NewSecret("whsec_1")},
		{Name: "books", Channel: incident.Slack, URL: seal.NewSecret("https://b.example/x"), Kinds: []incident.Kind{incident.Books}},
		{Name: "auth", Channel: incident.Mail, From: "a@example.com", To: []string{"b@example.com"}, Kinds: []incident.Kind{incident.AuthFailure, incident.QueueAge}},
	} {
		if _, err := b.db.CreateNotifyRule(ctx, "t", r); err != nil {
			t.Fatal(err)
		}
	}
	due := func() (names []string) {
		t.Helper()
		all, err := b.db.DueNotices(ctx, 20)
		must(t, err)
		for _, n := range all {
			name := n.Rule.Name
			if n.Ended {
				name += " end"
			}
			names = append(names, name)
		}
		slices.Sort(names)
		return names
	}
	in := incident.Incident{ID: mail.NewID(), Kind: incident.AuthFailure, Account: "ses", Detail: "401", Since: now}
	must(t, b.db.KeepIncidents(ctx, owner, incident.Changes{Keep: []incident.Incident{in}}))
	if got := due(); got != nil {
		t.Errorf("before it began: notices of %q", got)
	}
	in.Began = now
	begins := incident.Changes{Keep: []incident.Incident{in}, Began: []incident.Incident{in}}
	for range 2 { // as after an answer that was lost
		must(t, b.db.KeepIncidents(ctx, owner, begins))
	}
	if got := due(); !slices.Equal(got, []string{"all", "auth"}) {
		t.Errorf("when it began: notices of %q", got)
	}
	all, err := b.db.DueNotices(ctx, 20)
	must(t, err)
	for i := range all {
		if n := &all[i]; n.Rule.Name == "all" {
			if n.Rule.URL.Reveal() != "https://a.example/x" || n.Rule.Secret.Reveal() != "whsec_1" || n.Incident.Detail != "401" || n.Incident.ID != in.ID {
				t.Errorf("notice = %+v", n)
			}
			must(t, b.db.FinishNotice(ctx, incident.Result{Notice: n, Done: true}))
		} else {
			n.Tried, n.Message, n.Tries = []string{"ses"}, mail.NewID(), 1
			must(t, b.db.FinishNotice(ctx, incident.Result{Notice: n, Error: "no", Again: time.Hour}))
		}
	}
	if got := due(); got != nil {
		t.Errorf("after the tries: notices of %q", got)
	}
	if _, err := b.db.CreateNotifyRule(ctx, "t", incident.Rule{Name: "late", Channel: incident.Slack, URL: seal.NewSecret("https://c.example/x")}); err != nil {
		t.Fatal(err)
	}
	in.Ended = now.Add(time.Minute)
	must(t, b.db.KeepIncidents(ctx, owner, incident.Changes{Keep: []incident.Incident{in}, Ended: []incident.Incident{in}}))
	if got := due(); !slices.Equal(got, []string{"all end", "auth end"}) { // not the one that was not told of its beginning
		t.Errorf("when it ended: notices of %q", got)
	}
	rules, err := b.db.NotifyRules(ctx)
	must(t, err)
	if len(rules) != 4 || rules[0].Name != "all" || rules[0].LastTold.IsZero() || rules[0].LastError != "" || rules[1].LastError != "no" || !rules[1].LastTold.IsZero() || !rules[0].URL.IsZero() {
		t.Errorf("rules = %+v", rules)
	}
	if open, err := b.db.OpenIncidents(ctx); err != nil || len(open) != 0 {
		t.Errorf("open = %v, %v", open, err)
	}
	if shown, err := b.db.Incidents(ctx, 10); err != nil || len(shown) != 1 || !shown[0].Ended.Equal(in.Ended) {
		t.Errorf("incidents = %v, %v", shown, err)
	}
	must(t, b.db.DeleteNotifyRule(ctx, "t", "all"))
	if got := due(); !slices.Equal(got, []string{"auth end"}) {
		t.Errorf("without the rule: notices of %q", got)
	}
	if err := b.db.DeleteNotifyRule(ctx, "t", "all"); !errors.Is(err, record.ErrNotFound) {
		t.Errorf("DeleteNotifyRule again: %v", err)
	}
	if _, err := b.db.CreateNotifyRule(ctx, "t", incident.Rule{Name: "late", Channel: incident.Slack, URL: seal.NewSecret("u")}); !errors.Is(err, record.ErrConflict) {
		t.Errorf("CreateNotifyRule of a taken name: %v", err)
	}
}

func TestIncidentFactsAreThoseOfAllReplicas(t *testing.T) {
	t.Parallel()
	b := newOwnBed(t)
	ctx := t.Context()
	ses := b.account(t, "ses")
	ids := b.accept(t, submission(), submission(), submission(), submission())
	for i, class := range []string{"accepted", "transient", "uncertain", "misconfigured"} {
		b.exec(t, `INSERT INTO attempt (message_id, n, owner, account_id, decision, started_at, finished_at, class, error)
			VALUES ($1, 1, gen_random_uuid(), $2, '{}', now() - make_interval(secs => $3), now() - interval '20 seconds', $4, 'because of ' || $4)`,
			[16]byte(ids[i]), ses, []int{20, 20, 90, 400}[i], class)
	}
	must(t, b.db.TallyCalls(ctx, []record.CallTally{{Account: ses, Accepted: 1, Made: 1}}))
	must(t, b.db.TallyCalls(ctx, []record.CallTally{{Account: ses, Failed: 1, Made: 2, Failure: "because"}}))
	b.exec(t, `INSERT INTO call_span SELECT account_id, at - make_interval(secs => s), 0, failed, failed, 'older' FROM call_span, unnest(ARRAY[90, 400]) s`)
	b.exec(t, `UPDATE ready SET held = true, due = now() + interval '1 hour' WHERE id = $1`, [16]byte(ids[0]))
	b.exec(t, `UPDATE message SET created_at = now() - interval '7 minutes' WHERE id = $1`, [16]byte(ids[0]))
	b.exec(t, `UPDATE ready SET due = now() + interval '1 hour' WHERE id = $1`, [16]byte(ids[1])) // scheduled
	b.exec(t, `UPDATE message SET created_at = now() - interval '9 minutes', send_at = now() + interval '1 hour' WHERE id = $1`, [16]byte(ids[1]))
	for _, e := range []struct {
		kind   string
		bounce any
	}{{"bounced", `{"class":"soft"}`}, {"bounced", nil}, {"delivered", nil}, {"opened", nil}} {
		id, past := mail.NewID(), mail.IDAt(time.Now().Add(-time.Minute))
		copy(id[:6], past[:6])
		b.exec(t, `INSERT INTO event (id, origin, account_id, type, at, source, bounce, key) VALUES ($1, $1, $2, $3, now(), 'webhook', $4, $1)`,
			[16]byte(id), ses, e.kind, e.bounce)
		b.exec(t, `UPDATE event SET message_id = $2, at = (SELECT finished_at + interval '3 seconds' FROM attempt WHERE message_id = $2) WHERE id = $1 AND type = 'delivered'`,
			[16]byte(id), [16]byte(ids[0]))
	}
	b.exec(t, `UPDATE notify_state SET counted_to = now() - interval '5 minutes'`)
	must(t, b.db.NoteBooks(ctx, &queue.Accounting{Violations: []queue.Violation{{Kind: queue.Lost, Count: 2}, {Kind: queue.Lost, Count: 3}}}))
	var delays []record.Delay
	for range 2 { // what was counted once is not counted again
		counted, err := b.db.CountOutcomes(ctx)
		must(t, err)
		delays = append(delays, counted.Delivered...)
		for _, c := range counted.Outcomes {
			if c.Account != "ses" {
				t.Errorf("count = %+v", c)
			}
		}
	}
	if len(delays) != 1 || delays[0] != (record.Delay{Account: "ses", After: 3 * time.Second}) {
		t.Errorf("delays = %v, want that of the one delivery", delays)
	}
	c, err := b.db.Config(ctx)
	must(t, err)
	f, err := b.db.IncidentFacts(ctx, c)
	must(t, err)
	a := factsOf(f, "ses")
	if a == nil || a.Minute != (incident.Calls{Accepted: 1, Failed: 1, All: 3}) || a.Span != (incident.Calls{Accepted: 1, Failed: 2, All: 4}) || a.LastFailure != "because" {
		t.Errorf("calls = %+v", a)
	}
	if a.Day != (incident.Outcomes{Sent: 1, Delivered: 1, Bounced: 2}) || a.LastSent.IsZero() || !a.LastEvent.IsZero() {
		t.Errorf("outcomes = %+v", a)
	}
	if f.QueueAge < 7*time.Minute || f.QueueAge > 8*time.Minute {
		t.Errorf("queue age = %s, want that of the message that was put off", f.QueueAge)
	}
	if f.Violations["lost"] != 5 || f.Now.IsZero() {
		t.Errorf("facts = %+v", f)
	}
}
