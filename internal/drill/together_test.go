//go:build drill

package drill

import (
	"fmt"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/limit"
	"github.com/sendgate/sendgate/internal/provider/catalog"
)

// Messages that are due together travel in one call, where the limit counts requests. Then all processes die while such calls
// are open: the messages of these calls are unknown, and no other.
func TestD49MessagesTravelTogether(t *testing.T) {
	p := plan{
		limits: map[string][]limit.Window{}, load: load{share: 0.05, plain: true, policies: []string{"never"}},
		settings: []string{"SENDGATE_UNKNOWN_WAIT=60s", "SENDGATE_RECONCILE_DEADLINE=70s"},
	}
	for _, s := range catalog.Specs() {
		p.limits[string(s.Kind)] = catalog.DocumentedLimits(s.Kind)
	}
	drillTest(t, "D49", p, func(t *testing.T, r *rig) {
		for _, kind := range []string{"postmark", "sendgrid", "resend"} {
			r.weight(t, kind, 0) // what the clients send goes elsewhere
		}
		for kind, atLeast := range map[string]int{"postmark": 50, "sendgrid": 100, "resend": 50} {
			requests, sent := r.emu.Stats()[kind].Requests, r.calls(t, kind, "accepted")
			const messages = 3000
			r.dueTogether(t, kind, messages, time.Now().Add(4*time.Second))
			must(t, 60*time.Second, "all are sent", func() bool { return r.calls(t, kind, "accepted") == sent+messages })
			each := messages / int(r.emu.Stats()[kind].Requests-requests)
			r.report.tally(kind+"_messages_a_request", each)
			if each < atLeast/2 { // how many are due when a call begins depends on the machine as well
				t.Errorf("%s: %d messages a request, want %d on a quiet machine", kind, each, atLeast)
			}
		}
		r.killTogether(t, "postmark")
		r.killTogether(t, "resend")
		// Resend answers a repeated call of one message with the same key, and knows no key of those that came together.
		if n := r.number(t, `SELECT count(*) FROM attempt t JOIN account a ON a.id = t.account_id AND a.name = 'resend' WHERE t.verdict_source = 'repeat'`); n != 0 {
			t.Errorf("calls to Resend that were repeated = %d, want none", n)
		}
	})
}

// killTogether kills all processes while three calls to a provider are open and messages wait behind them.
func (r *rig) killTogether(t *testing.T, kind string) {
	t.Helper()
	if _, err := r.admin.SetLimits(t.Context(), kind, []api.Limit{{N: 3, Per: "20s", Unit: "requests"}}); err != nil {
		t.Fatal(err)
	}
	pause(t, 2*time.Second) // until it binds everywhere
	r.faults(t, map[string][]emulator.Fault{kind: {{Mode: "accept_then_drop", Latency: emulator.Duration(time.Minute)}, {Mode: "hook_hold"}}})
	const messages = 600
	r.dueTogether(t, kind, messages, time.Now().Add(3*time.Second))
	inCalls := `SELECT count(*) FROM inflight f JOIN account a ON a.id = f.account_id AND a.name = '` + kind + `' WHERE f.started_at IS NOT NULL`
	var open, last int
	must(t, 30*time.Second, "three calls are open", func() bool {
		last, open = open, r.count(t.Context(), inCalls)
		return open > 3 && open == last && r.count(t.Context(), inCalls+` AND NOT f.joined`) == 3
	})
	for _, x := range r.replicas {
		x.kill()
	}
	for _, x := range r.replicas {
		x.start(t)
	}
	must(t, 30*time.Second, "the open calls are unknown", func() bool { return r.calls(t, kind, "uncertain") >= open })
	if n := r.calls(t, kind, "uncertain"); n != open || open >= messages {
		t.Errorf("messages of unknown outcome = %d, want the %d of the open calls, of %d", n, open, messages)
	}
	r.report.tally(kind+"_unknown_after_the_kill", open)
	r.faults(t, nil) // which lets the events go
	must(t, 90*time.Second, "events have settled them, and the others are sent", func() bool {
		return r.count(t.Context(), `SELECT count(*) FROM ready`)+r.count(t.Context(), `SELECT count(*) FROM unknown`) == 0
	})
}

// dueTogether queues messages with the same content for one account, all due at once.
func (r *rig) dueTogether(t *testing.T, account string, n int, at time.Time) {
	t.Helper()
	client := api.NewWith("http://"+r.replicas[0].api, r.keys["acme"], r.http)
	for from := 0; from < n; from += 500 {
		var b api.BatchRequest
		for i := from; i < min(from+500, n); i++ {
			to := api.Address{Email: fmt.Sprintf("ann+%s-%d-%d@example.org", account, at.Unix(), i)}
			b.Messages = append(b.Messages, api.SendRequest{
				From: api.Address{Email: "shop@example.com"}, To: []api.Address{to}, Subject: "News", Text: "All of it.", Account: &account,
				OnAmbiguous: "never", Stream: map[string]string{"sendgrid": "bulk"}[account], SendAt: &at,
			})
		}
		if _, err := client.SendBatch(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
}

// calls counts the attempts at an account that ended in a class.
func (r *rig) calls(t *testing.T, account, class string) int {
	t.Helper()
	return r.number(t, `SELECT count(*) FROM attempt t JOIN account a ON a.id = t.account_id WHERE a.name = $1 AND t.class = $2`, account, class)
}
