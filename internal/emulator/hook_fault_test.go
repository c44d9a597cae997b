package emulator_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/emulator"
)

// mailgunIDs lists the ids of events of one kind, in order of arrival.
func mailgunIDs(t *testing.T, calls []hookCall, event string) []string {
	t.Helper()
	var ids []string
	for _, c := range calls {
		var p mailgunPayload
		fromJSON(t, c.body, &p)
		if p.Event["event"] == event {
			ids = append(ids, p.Event["id"].(string))
		}
	}
	return ids
}

func distinct(list []string) int {
	seen := map[string]bool{}
	for _, s := range list {
		seen[s] = true
	}
	return len(seen)
}

func TestHookFaultsDuplicate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, script string
		calls, ids   int
	}{
		{"once more", `{"mailgun":[{"mode":"hook_duplicate","count":1}]}`, 2, 1},
		{"copies", `{"mailgun":[{"mode":"hook_duplicate","count":1,"copies":3}]}`, 4, 1},
		{"with new ids", `{"mailgun":[{"mode":"hook_duplicate","count":1,"copies":3},{"mode":"hook_new_id","count":1}]}`, 4, 4},
		{"of others", `{"mailgun":[{"mode":"hook_duplicate","count":1,"match":"bob@*"}]}`, 1, 1},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b, in := hooked(t, "mailgun", nil)
			b.faults(t, tc.script)
			b.mailgunTo(t, "ann@example.org")
			b.settled(t, "mailgun", func(s emulator.HookStats) bool { return s.OK == int64(tc.calls+1) })
			ids := mailgunIDs(t, in.got(), "accepted")
			if len(ids) != tc.calls || distinct(ids) != tc.ids {
				t.Errorf("%d calls with %d ids, want %d with %d", len(ids), distinct(ids), tc.calls, tc.ids)
			}
		})
	}
}

func TestHookFaultNewIDAtRepetition(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]int{`{"mailgun":[{"mode":"hook_new_id","count":0}]}`: 3, `{}`: 1} {
		b, in := hooked(t, "mailgun", func(int, hookCall) int { return http.StatusServiceUnavailable })
		b.faults(t, script)
		b.mailgunTo(t, "suppressed@example.org")
		eventually(t, "three tries", func() bool { return len(mailgunIDs(t, in.got(), "accepted")) >= 3 })
		if n := distinct(mailgunIDs(t, in.got(), "accepted")[:3]); n != want {
			t.Errorf("%s: %d ids in three tries, want %d", script, n, want)
		}
	}
}

// In which order posts arrive is up to the system: an inside test has the order in which they are sent.
func TestHookFaultShuffleLosesNothing(t *testing.T) {
	t.Parallel()
	b, in := hooked(t, "mailgun", nil)
	b.faults(t, `{"mailgun":[{"mode":"hook_shuffle","count":1}]}`)
	b.mailgunTo(t, "click@example.org")
	times := map[string]float64{}
	for _, c := range in.wait(t, 3) {
		var p mailgunPayload
		fromJSON(t, c.body, &p)
		times[p.Event["event"].(string)] = p.Event["timestamp"].(float64)
	}
	if len(times) != 3 || times["accepted"] >= times["delivered"] || times["delivered"] >= times["clicked"] {
		t.Errorf("times of the events = %v, want each with its own", times)
	}
}

func TestHookFaultDropIsCounted(t *testing.T) {
	t.Parallel()
	b, in := hooked(t, "mailgun", nil)
	b.faults(t, `{"mailgun":[{"mode":"hook_drop","count":1}]}`)
	b.mailgunTo(t, "ann@example.org")
	s := b.settled(t, "mailgun", func(s emulator.HookStats) bool { return s.Events == 1 })
	if s.Dropped != 1 || len(mailgunIDs(t, in.got(), "accepted")) != 0 {
		t.Errorf("stats = %+v", s)
	}
}

func TestHookFaultDelay(t *testing.T) {
	t.Parallel()
	in := newInbox(t, nil)
	b := start(t, fast("mailgun", emulator.Hook{"url": in.URL}))
	b.faults(t, `{"mailgun":[{"mode":"hook_delay","latency":"1s","count":1}]}`)
	b.mailgunTo(t, "ann@example.org") // its accepted event meets the fault, and comes after the other
	var first mailgunPayload
	fromJSON(t, in.wait(t, 2)[0].body, &first)
	if first.Event["event"] != "delivered" {
		t.Errorf("first came %v", first.Event["event"])
	}
}

func TestHookFaultHold(t *testing.T) {
	t.Parallel()
	for _, release := range []struct{ method, path, body string }{
		{"DELETE", "/_hooks/held", ""}, {"DELETE", "/_hooks/held?provider=mailgun", ""}, {"DELETE", "/_faults", ""}, {"PUT", "/_faults", "{}"},
	} {
		b, in := hooked(t, "mailgun", nil)
		b.faults(t, `{"mailgun":[{"mode":"hook_hold","match":"ann@*"}]}`)
		b.mailgunTo(t, "ann@example.org")
		b.mailgunTo(t, "bob@example.org")
		b.settled(t, "mailgun", func(s emulator.HookStats) bool { return s.Held == 2 && s.Events == 2 })
		if n := strings.Count(in.got()[0].body+in.got()[1].body, "ann@"); n != 0 {
			t.Errorf("what is held came")
		}
		b.do(t, release.method, release.path, release.body, nil)
		if s := b.settled(t, "mailgun", func(s emulator.HookStats) bool { return s.Events == 4 }); s.Held != 0 {
			t.Errorf("after %s %s: %+v", release.method, release.path, s)
		}
	}
}

func TestHookFaultBadSignature(t *testing.T) {
	t.Parallel()
	script := func(kind string) string { return `{"` + kind + `":[{"mode":"hook_bad_signature"}]}` }
	for kind, try := range everyKind(t, "of TestHookFaultBadSignature", map[string]func(*testing.T){
		"sendgrid": func(t *testing.T) {
			t.Parallel()
			b, in := hooked(t, "sendgrid", nil)
			b.faults(t, script("sendgrid"))
			b.sendGrid(t, sendGridBody())
			if sendGridVerifies(t, b.HookKeys()["sendgrid_public_key"], in.wait(t, 1)[0]) {
				t.Error("it verifies")
			}
		},
		"mailgun": func(t *testing.T) {
			t.Parallel()
			b, in := hooked(t, "mailgun", nil)
			b.faults(t, script("mailgun"))
			b.mailgunTo(t, "ann@example.org")
			if p := mailgunPayloads(t, in.wait(t, 1))[0]; p.verifies(b.HookKeys()["mailgun_signing_key"]) || p.Signature.Signature == "" {
				t.Error("it verifies")
			}
		},
		"postmark": func(t *testing.T) {
			t.Parallel()
			b, in := hooked(t, "postmark", nil)
			b.faults(t, script("postmark"))
			b.postmark(t, "/email", postmarkBody())
			if _, password, ok := (&http.Request{Header: in.wait(t, 1)[0].header}).BasicAuth(); !ok || password == b.HookKeys()["postmark_password"] {
				t.Error("it shows the right password, or none")
			}
		},
		"resend": func(t *testing.T) {
			t.Parallel()
			in := newInbox(t, nil)
			b := start(t, fast("resend", emulator.Hook{"url": in.URL, "secret": resendSecret}))
			b.faults(t, script("resend"))
			resendID(t, b.resend(t, resendBody(), ""))
			if c := in.wait(t, 1)[0]; resendVerifies(c) || c.header.Get("svix-signature") == "" {
				t.Error("it verifies")
			}
		},
		"ses": func(t *testing.T) {
			t.Parallel()
			b, in := hooked(t, "ses", nil)
			b.faults(t, script("ses"))
			if _, err := b.sesSDK().SendEmail(t.Context(), sesInput()); err != nil {
				t.Fatal(err)
			}
			var m map[string]string
			fromJSON(t, in.wait(t, 1)[0].body, &m)
			if b.snsVerifies(t, m) {
				t.Error("it verifies")
			}
		},
		"smtp": func(t *testing.T) {
			t.Parallel()
			in := newLMTPInbox(t, nil)
			b := start(t, fast("smtp", emulator.Hook{"url": in.URL}))
			b.faults(t, script("smtp"))
			b.relay(t, returnPath, nil, "bounce@example.org")
			if m := in.wait(t, 1)[0]; m.to == returnPath || !strings.HasSuffix(m.to, "@bounces.example.com") {
				t.Errorf("it goes to %q", m.to)
			}
		},
	}) {
		t.Run(kind, try)
	}
}

func TestEventsComeThoughTheAnswerWasLost(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"accept_then_drop", "accept_then_500"} {
		b, in := hooked(t, "mailgun", nil)
		b.faults(t, `{"mailgun":[{"mode":"`+mode+`","count":1}]}`)
		_, _ = b.try("POST", "/mailgun/v3/mg.example.com/messages", mailgunForm("v:gw_msg", "m1").Encode(), map[string]string{
			"Authorization": mailgunAuth(key("mailgun", "api_key")), "Content-Type": "application/x-www-form-urlencoded",
		})
		in.wait(t, 2)
	}
}

func TestHookFaultsDoNotStandInTheWayOfOthers(t *testing.T) {
	t.Parallel()
	b, _ := hooked(t, "mailgun", nil)
	b.faults(t, `{"mailgun":[{"mode":"hook_drop"},{"mode":"lookup_empty"},{"mode":"error","status":503,"count":1}]}`)
	if a := b.mailgun(t, "/mailgun/v3/mg.example.com/messages", mailgunForm(), key("mailgun", "api_key")); a.status != 503 {
		t.Errorf("answer = %d, want 503", a.status)
	}
	var left map[string][]emulator.Fault
	fromJSON(t, b.do(t, "GET", "/_faults", "", nil).body, &left)
	want := map[string][]emulator.Fault{"mailgun": {{Mode: "hook_drop"}, {Mode: "lookup_empty", Path: "lookup"}}}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("faults left (-want +got):\n%s", diff)
	}
}

func TestHookFaultScriptIsChecked(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	for script, want := range map[string]string{
		`{"mailgun":[{"mode":"hook_delay"}]}`:                      "latency",
		`{"mailgun":[{"mode":"hook_drop","latency":"1s"}]}`:        "latency",
		`{"mailgun":[{"mode":"hook_drop","copies":2}]}`:            "copies",
		`{"mailgun":[{"mode":"hook_duplicate","copies":101}]}`:     "copies",
		`{"mailgun":[{"mode":"hook_signature_v1"}]}`:               "mode",
		`{"mailgun":[{"mode":"lookup_delay"}]}`:                    "latency",
		`{"ses":[{"mode":"lookup_empty"}]}`:                        "mode",
		`{"ses":[{"mode":"throttle","path":"lookup"}]}`:            "path",
		`{"mailgun":[{"mode":"drop_before","path":"lookup"}]}`:     "path",
		`{"mailgun":[{"mode":"hook_drop","path":"lookup"}]}`:       "path",
		`{"mailgun":[{"mode":"lookup_empty","path":"send"}]}`:      "path",
		`{"mailgun":[{"mode":"throttle","path":"nowhere"}]}`:       "path",
		`{"mailgun":[{"mode":"hook_bad_signature","status":500}]}`: "status",
	} {
		if a := b.do(t, "PUT", "/_faults", script, nil); a.status != 400 || !strings.Contains(a.body, want) {
			t.Errorf("%s = %d %s, want ...%s...", script, a.status, a.body, want)
		}
	}
	for _, script := range []string{`{"mailgun":[{"mode":"throttle","path":"send"},{"mode":"error","status":500,"path":"lookup"}]}`} {
		b.faults(t, script)
	}
}

func mailgunAuth(key string) string {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth("api", key)
	return r.Header.Get("Authorization")
}
