package app

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// newCircle is a bench whose events come back: the settings are those of a service at addresses that the emulators' hooks
// name, and that a process which is started again has again.
func newCircle(t *testing.T) (b *bench, settings []string) {
	t.Helper()
	b = newBench(t, benchOptions{emu: emulator.Options{
		EventPace: 50 * time.Millisecond, DeferFor: 200 * time.Millisecond, RetryPace: 300 * time.Millisecond,
	}})
	listen, lmtp := fixedAddr(t), fixedAddr(t)
	hooks := map[string]emulator.Hook{"smtp": {"url": "lmtp://" + lmtp}}
	for _, kind := range []string{"sendgrid", "mailgun", "postmark", "resend", "ses"} {
		hooks[kind] = emulator.Hook{"url": "http://" + listen + "/hooks/" + kind}
	}
	if err := b.emu.SetHooks(hooks); err != nil {
		t.Fatal(err)
	}
	return b, []string{"SENDGATE_LISTEN=" + listen, "SENDGATE_LMTP_LISTEN=" + lmtp, "SENDGATE_PUBLIC_URL=http://" + listen}
}

// nextPort counts the ports that tests fixed.
var nextPort atomic.Int32

// fixedAddr is an address of this machine that is free, and stays so: it is below the ports that systems give out by
// themselves. Where it begins differs from run to run.
func fixedAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20_000+(37*os.Getpid()+int(nextPort.Add(1)))%10_000)
		if l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// outcomes are the local parts by which the emulators decide what becomes of a message.
func outcomes() []string {
	return []string{"ann", "bounce", "softbounce", "complaint", "defer", "suppressed", "open", "click"}
}

// end is what must be known of a message when all that happened was told. Events are in the order of what happens.
type end struct {
	Status, Class, Reason string
	Events                []string // type and source
}

// endOf is the end of a message by one account, from the providers' documentation of their events.
func endOf(account, outcome string) end {
	e, ok := map[string]end{
		"ann":        {Status: "delivered", Events: []string{"delivered webhook"}},
		"bounce":     {"bounced", "hard", "invalid_address", []string{"bounced webhook"}},
		"softbounce": {"bounced", "soft", "mailbox_full", []string{"bounced webhook"}},
		"complaint":  {Status: "complained", Events: []string{"delivered webhook", "complained webhook"}},
		"defer":      {Status: "delivered", Events: []string{"deferred webhook", "delivered webhook"}},
		"suppressed": {"suppressed", "", "suppressed_bounce", []string{"rejected webhook"}},
		"open":       {Status: "delivered", Events: []string{"delivered webhook", "opened webhook"}},
		"click":      {Status: "delivered", Events: []string{"delivered webhook", "clicked webhook"}},
	}[outcome]
	if !ok {
		panic("no such outcome: " + outcome)
	}
	first := "accepted webhook"
	switch account {
	case "postmark": // it does not tell of what it accepts, and refuses in the call whom it has on its list
		first = "accepted response"
		if outcome == "suppressed" {
			return end{"suppressed", "", "suppressed_bounce", []string{"rejected response"}}
		}
	case "smtp":
		first = "accepted response"
		e = relayEnd(e, outcome)
	}
	if e.Events == nil || !strings.HasPrefix(e.Events[0], "rejected") || account == "mailgun" || account == "ses" {
		e.Events = append([]string{first}, e.Events...)
	}
	return e
}

// relayEnd is what a relay tells: failures, delays and complaints.
func relayEnd(e end, outcome string) end {
	switch outcome {
	case "complaint":
		e.Events = []string{"complained webhook"}
	case "defer":
		return end{"deferred", "soft", "technical", []string{"deferred webhook"}}
	case "suppressed": // it has no list, and refuses the address
		return end{"failed", "hard", "invalid_address", []string{"rejected response"}}
	case "ann", "open", "click":
		return end{Status: "sent"}
	}
	return e
}

// tellings is how many events the provider tells of such a message.
func tellings(account, outcome string) int {
	n := 0
	for _, e := range endOf(account, outcome).Events {
		if strings.HasSuffix(e, " webhook") {
			n++
		}
	}
	if account == "postmark" && (outcome == "bounce" || outcome == "complaint") {
		n++ // SubscriptionChange, which mirrors the other
	}
	return n
}

// letterTo goes by one account to one address.
func letterTo(account, email string) api.SendRequest {
	m := pinned(account)
	m.To[0].Email = email
	return m
}

// awaitTold waits until each provider has told as many events as wanted, each taken with an answer of ours. What an
// answer was given for is stored. What cases before were told does not count.
func (b *bench) awaitTold(t *testing.T, want map[string]int64) {
	t.Helper()
	got := map[string]int64{}
	deadline := time.Now().Add(settleTime)
	for {
		for kind, s := range b.emu.Stats() {
			got[kind] = s.Hooks.Events - b.told[kind]
		}
		if maps.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("events told = %v, want %v; %+v", got, want, b.emu.Stats())
		}
		pause(t, 20*time.Millisecond)
	}
}

// amend changes the settings and secrets of an account, and returns when they bind.
func (b *bench) amend(t *testing.T, r *replica, account string, change func(settings map[string]any), secrets map[string]string) {
	t.Helper()
	acc, err := r.admin.Account(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]any{}
	if err := json.Unmarshal(acc.Settings, &settings); err != nil {
		t.Fatal(err)
	}
	change(settings)
	raw, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.PatchAccount(t.Context(), account, api.AccountRequest{Settings: raw, Secrets: secrets}); err != nil {
		t.Fatal(err)
	}
	b.binds(t, r)
}

// refusals counts the requests of a provider that were refused with the status.
func (b *bench) refusals(kind string, status int) int64 {
	return b.emu.Stats()[kind].Hooks.Refused[status]
}

// get fetches a page as a browser would.
func (b *bench) get(t *testing.T, url string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
