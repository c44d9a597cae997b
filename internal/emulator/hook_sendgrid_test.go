package emulator_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/emulator"
)

// sendGridVerifies checks a call as the page "Event Webhook Security Features" of the SendGrid documentation says.
func sendGridVerifies(t *testing.T, key string, c hookCall) bool {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := base64.StdEncoding.DecodeString(c.header.Get("X-Twilio-Email-Event-Webhook-Signature"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(c.header.Get("X-Twilio-Email-Event-Webhook-Timestamp") + c.body))
	return ecdsa.VerifyASN1(parsed.(*ecdsa.PublicKey), sum[:], signature)
}

// sendGridEvents reads all the events of all calls.
func sendGridEvents(t *testing.T, calls []hookCall) []object {
	t.Helper()
	var all []object
	for _, c := range calls {
		var list []object
		fromJSON(t, c.body, &list)
		all = append(all, list...)
	}
	return all
}

// only keeps some fields.
func only(m object, names ...string) object {
	out := object{}
	for _, n := range names {
		if v, ok := m[n]; ok {
			out[n] = v
		}
	}
	return out
}

func sendGridTo(addresses ...string) object {
	m := sendGridBody()
	var list []any
	for _, a := range addresses {
		list = append(list, object{"to": []any{object{"email": a}}})
	}
	m["personalizations"] = list
	m["categories"] = []any{"order"}
	return m
}

func TestSendGridTellsEachOutcome(t *testing.T) {
	t.Parallel()
	tests := []struct {
		to   string
		want []object
	}{
		{"ann@example.org", []object{{"event": "processed"}, {"event": "delivered"}}},
		{"bounce@example.org", []object{
			{"event": "processed"},
			{"event": "bounce", "type": "bounce", "status": "5.1.1", "bounce_classification": "Invalid Address"},
		}},
		{"softbounce@example.org", []object{
			{"event": "processed"},
			{"event": "bounce", "type": "blocked", "status": "5.2.2", "bounce_classification": "Mailbox Unavailable"},
		}},
		{"complaint@example.org", []object{{"event": "processed"}, {"event": "delivered"}, {"event": "spamreport"}}},
		{"defer@example.org", []object{{"event": "processed"}, {"event": "deferred", "attempt": "0"}, {"event": "delivered"}}},
		{"suppressed@example.org", []object{{"event": "dropped", "reason": "Bounced Address", "status": "5.0.0"}}},
		{"open@example.org", []object{{"event": "processed"}, {"event": "delivered"}, {"event": "open", "sg_machine_open": false}}},
		{"click@example.org", []object{{"event": "processed"}, {"event": "delivered"}, {"event": "click", "url": "https://example.com/order"}}},
	}
	for _, tc := range tests {
		t.Run(tc.to, func(t *testing.T) {
			t.Parallel()
			b, in := hooked(t, "sendgrid", nil)
			id := b.sendGrid(t, sendGridTo(tc.to)).header.Get("X-Message-Id")
			b.settled(t, "sendgrid", func(s emulator.HookStats) bool { return s.Events == int64(len(tc.want)) })
			events := sendGridEvents(t, in.got())
			// Batches may overtake each other, and times are in seconds: put them in the order of a message's life.
			life := []any{"processed", "deferred", "delivered"}
			rank := func(e object) int { return (slices.Index(life, e["event"]) + len(life) + 1) % (len(life) + 1) }
			slices.SortStableFunc(events, func(x, y object) int { return rank(x) - rank(y) })
			ids := map[string]bool{}
			for i, e := range events {
				if diff := cmp.Diff(tc.want[i], only(e, "event", "type", "status", "bounce_classification", "attempt", "sg_machine_open", "url")); diff != "" && tc.want[i]["reason"] == nil {
					t.Errorf("event %d (-want +got):\n%s", i, diff)
				}
				if r := tc.want[i]["reason"]; r != nil && r != e["reason"] {
					t.Errorf("reason = %v, want %v", e["reason"], r)
				}
				if e["email"] != tc.to || e["gw_msg"] != "m1" || e["category"] != "order" || !strings.HasPrefix(e["sg_message_id"].(string), id+".recvd-") {
					t.Errorf("event %d = %v", i, e)
				}
				ids[e["sg_event_id"].(string)] = true
			}
			if len(ids) != len(tc.want) {
				t.Errorf("%d event ids for %d events", len(ids), len(tc.want))
			}
		})
	}
}

func TestSendGridSignsTheRawBody(t *testing.T) {
	t.Parallel()
	b, in := hooked(t, "sendgrid", nil)
	b.sendGrid(t, sendGridTo("ann@example.org", "bob@example.org"))
	b.settled(t, "sendgrid", func(s emulator.HookStats) bool { return s.Events == 4 })
	key := b.HookKeys()["sendgrid_public_key"]
	for _, c := range in.got() {
		if !sendGridVerifies(t, key, c) {
			t.Errorf("signature does not verify")
		}
		if !strings.HasPrefix(c.body, "[{") || !strings.HasSuffix(c.body, "}]\r\n") {
			t.Errorf("body = %q", c.body)
		}
		stamp, err := strconv.ParseInt(c.header.Get("X-Twilio-Email-Event-Webhook-Timestamp"), 10, 64)
		if err != nil || time.Since(time.Unix(stamp, 0)).Abs() > time.Minute {
			t.Errorf("timestamp = %d, %v", stamp, err)
		}
		c.body = strings.Replace(c.body, "ann", "eve", 1) + " "
		if sendGridVerifies(t, key, c) {
			t.Error("a changed body verifies")
		}
	}
}

func TestSendGridGathersABatch(t *testing.T) {
	t.Parallel()
	in := newInbox(t, nil)
	opt := fast("sendgrid", emulator.Hook{"url": in.URL})
	opt.EventPace = 100 * time.Millisecond
	b := start(t, opt)
	var to []string
	for i := range 60 {
		to = append(to, "a"+strconv.Itoa(i)+"@example.org")
	}
	body := sendGridTo(to...)
	body["custom_args"] = object{"gw_msg": "m1", "big": strings.Repeat("x", 9000)}
	b.sendGrid(t, body)
	s := b.settled(t, "sendgrid", func(s emulator.HookStats) bool { return s.Events == 120 })
	if s.Posted >= 60 {
		t.Errorf("%d posts for 120 events", s.Posted)
	}
	for _, c := range in.got() {
		if len(c.body) > 768<<10 {
			t.Errorf("a batch has %d bytes", len(c.body))
		}
	}
}

func TestSendGridRepeatsAllButSuccess(t *testing.T) {
	t.Parallel()
	b, in := hooked(t, "sendgrid", func(n int, _ hookCall) int { return []int{500, 403, 302, 202}[min(n, 4)-1] })
	b.sendGrid(t, sendGridTo("suppressed@example.org"))
	s := b.settled(t, "sendgrid", func(s emulator.HookStats) bool { return s.OK == 1 })
	want := emulator.HookStats{Events: 1, Posted: 4, OK: 1, Refused: map[int]int64{500: 1, 403: 1, 302: 1}, Retried: 3}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
	calls := in.got()
	if calls[0].body != calls[3].body || !sendGridVerifies(t, b.HookKeys()["sendgrid_public_key"], calls[3]) {
		t.Error("a repetition is another request")
	}
}

func TestSendGridArgumentsDoNotReplaceFields(t *testing.T) {
	t.Parallel()
	b, in := hooked(t, "sendgrid", nil)
	body := sendGridTo("suppressed@example.org")
	body["custom_args"] = object{"gw_msg": "m1", "event": "delivered", "email": "eve@example.org"}
	body["categories"] = []any{"a", "b"}
	b.sendGrid(t, body)
	e := sendGridEvents(t, in.wait(t, 1))[0]
	if e["event"] != "dropped" || e["email"] != "suppressed@example.org" {
		t.Errorf("event = %v", e)
	}
	if diff := cmp.Diff([]any{"a", "b"}, e["category"]); diff != "" {
		t.Errorf("category (-want +got):\n%s", diff)
	}
	if _, err := json.Marshal(e); err != nil {
		t.Error(err)
	}
}
