package app

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// toldIn is how soon an incident must be told.
const toldIn = 60 * time.Second

// duty is a receiver of incidents: it keeps their bodies and, once it has a secret, verifies them.
type duty struct {
	mu     sync.Mutex
	secret string
	got    []map[string]any
	bad    []error
}

func newDuty(t *testing.T) (d *duty, url, allow string) {
	t.Helper()
	d = &duty{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		d.take(body, r.Header)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	return d, server.URL + "/in?token=canary", "SENDGATE_FORWARD_ALLOW=127.0.0.1/32:" + server.URL[strings.LastIndexByte(server.URL, ':')+1:]
}

func (d *duty) take(body []byte, h http.Header) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.secret != "" {
		wh, err := standardwebhooks.NewWebhook(d.secret)
		if err == nil {
			err = wh.Verify(body, h)
		}
		if err != nil {
			d.bad = append(d.bad, err)
		}
	}
	var in map[string]any
	if err := json.Unmarshal(body, &in); err != nil {
		d.bad = append(d.bad, err)
	}
	d.got = append(d.got, in)
}

// told lists the types of what came about an account.
func (d *duty) told(account string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var types []string
	for _, in := range d.got {
		if data, _ := in["data"].(map[string]any); data["account"] == account {
			kind, _ := in["type"].(string)
			types = append(types, kind)
		}
	}
	return types
}

// mails lists the subjects of the notices that the providers took, with the provider of each.
func (b *bench) mails() map[string][]string {
	mails := map[string][]string{}
	for _, e := range b.emu.Ledger() {
		if strings.HasPrefix(e.Subject, "[sendgate] ") {
			mails[e.Subject] = append(mails[e.Subject], e.Provider)
		}
	}
	return mails
}

// Failover hides that a provider refuses everything: all mail goes out by others. The service says so itself.
func TestAnOutageThatFailoverHidesIsTold(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	pager, url, allow := newDuty(t)
	first, second := b.start(t, allow, "SENDGATE_PARK_PROBE=1s"), b.start(t, allow, "SENDGATE_PARK_PROBE=1s")
	hook, err := first.admin.CreateNotifyRule(t.Context(), api.NotifyRuleRequest{Name: "pager", Channel: "webhook", URL: url})
	if err != nil {
		t.Fatal(err)
	}
	pager.secret = hook.Secret
	_, err = first.admin.CreateNotifyRule(t.Context(), api.NotifyRuleRequest{
		Name: "night-shift", Channel: "mail", From: "sendgate@example.com", To: []string{"ops@example.org"}, Kinds: []string{"auth_failure"},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.faults(t, map[string][]emulator.Fault{"sendgrid": {{Mode: "error", Status: 401, Body: `{"errors":[{"message":"The provided authorization grant is invalid"}]}`}}})
	ids := submit(t, second.api, letters(40))
	began, ended := "[sendgate] sendgrid: the provider refuses the account", "[sendgate] ended: sendgrid: the provider refuses the account"
	eventually(t, toldIn, "the webhook tells that it began", func() bool { return len(pager.told("sendgrid")) > 0 })
	eventually(t, toldIn, "a mail tells that it began", func() bool { return len(b.mails()[began]) > 0 })
	for _, id := range ids { // nobody else noticed
		becomes(t, first.api, id, settleTime, "sent")
	}
	b.faults(t, nil)
	eventually(t, settleTime, "the webhook tells that it ended", func() bool {
		send(t, second.api, letter(0)) // one of these probes the account
		return slices.Contains(pager.told("sendgrid"), "incident.ended")
	})
	eventually(t, settleTime, "a mail tells that it ended", func() bool { return len(b.mails()[ended]) > 0 })
	if got := pager.told("sendgrid"); !slices.Equal(got, []string{"incident.began", "incident.ended"}) || len(pager.bad) > 0 {
		t.Errorf("the webhook was told %v (%v), want the beginning and the end, once, signed", got, pager.bad)
	}
	for _, subject := range []string{began, ended} {
		if by := b.mails()[subject]; len(by) != 1 || by[0] == "sendgrid" {
			t.Errorf("the mail %q went out by %v, want one other account", subject, by)
		}
	}
	all, err := first.admin.Incidents(t.Context())
	if err != nil || len(all) != 1 || all[0].Kind != "auth_failure" || all[0].EndedAt == nil {
		t.Errorf("incidents = %+v, %v; want the one, with its end", all, err)
	}
	rules, err := second.admin.NotifyRules(t.Context())
	if err != nil || len(rules) != 2 {
		t.Fatalf("rules = %+v, %v", rules, err)
	}
	for _, r := range rules {
		if r.LastToldAt == nil || r.LastError != "" || strings.Contains(r.URL, "canary") || r.Secret != "" {
			t.Errorf("rule %+v, want it told, without the secrets", r)
		}
	}
}
