package emulator_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/emulator"
)

func TestThrottleFaultSpeaksEachProvidersWords(t *testing.T) {
	t.Parallel()
	near := func(got time.Time) bool { return time.Until(got.Add(-time.Minute)).Abs() < 10*time.Second }
	type throttle struct {
		fault string
		send  func(*testing.T, *server) // checks the answer
	}
	for kind, c := range everyKind(t, "of throttles in fault_test.go", map[string]throttle{
		"sendgrid": {`{"mode":"throttle","seconds":60}`, func(t *testing.T, b *server) {
			sg := b.sendGrid(t, sendGridBody())
			reset, err := strconv.ParseInt(sg.header.Get("X-RateLimit-Reset"), 10, 64)
			if sg.status != 429 || !strings.Contains(sg.body, "too many requests") || err != nil || !near(time.Unix(reset, 0)) || sg.header.Get("X-RateLimit-Remaining") != "0" {
				t.Errorf("sendgrid = %d %s %v", sg.status, sg.body, sg.header)
			}
		}},
		"mailgun": {`{"mode":"throttle","seconds":60}`, func(t *testing.T, b *server) {
			mg := b.mailgun(t, "/mailgun/v3/mg.example.com/messages", mailgunForm(), key("mailgun", "api_key"))
			_, date, _ := strings.Cut(strings.TrimSuffix(mg.body, `"}`), "try again after ")
			until, err := time.Parse(time.RFC1123, date)
			if mg.status != 429 || err != nil || !near(until) || !strings.Contains(mg.body, "Domain mg.example.com is not allowed to send: request limit exceeded") {
				t.Errorf("mailgun = %d %s (%v)", mg.status, mg.body, err)
			}
		}},
		"postmark": {`{"mode":"throttle","count":1}`, func(t *testing.T, b *server) {
			if pm := b.postmark(t, "/email", postmarkBody()); pm.status != 429 || pm.body != "" || pm.header.Get("Retry-After") != "" {
				t.Errorf("postmark = %d %s", pm.status, pm.body)
			}
		}},
		"resend": {`{"mode":"throttle","seconds":60}`, func(t *testing.T, b *server) {
			if re := b.resend(t, resendBody(), ""); re.status != 429 || !strings.Contains(re.body, "rate_limit_exceeded") || re.header.Get("Retry-After") == "" {
				t.Errorf("resend = %d %s %v", re.status, re.body, re.header)
			}
		}},
		"ses": {`{"mode":"throttle","count":1}`, func(t *testing.T, b *server) {
			_, err := b.sesSDK().SendEmail(t.Context(), sesInput())
			wantAPIError(t, err, "TooManyRequestsException", "Maximum sending rate exceeded.")
		}},
		"smtp": {`{"mode":"throttle","count":1}`, func(t *testing.T, b *server) {
			c := b.login(t)
			wantReply(t, c.Mail("b@example.com", nil), 421, smtp.EnhancedCode{4, 7, 0}, "too many connections")
			if c.Noop() == nil {
				t.Error("the connection stays open after 421")
			}
		}},
	}) {
		b := start(t, emulator.Options{})
		b.faults(t, `{"`+kind+`":[`+c.fault+`]}`)
		c.send(t, b)
		b.wantLedger(t)
		if s := b.Stats()[kind]; s.Requests != 1 || s.Throttled != 1 {
			t.Errorf("stats of %s = %+v, want one request, throttled", kind, s)
		}
	}
}

func TestErrorFaultGivesTheScriptedAnswer(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.faults(t, `{"postmark":[
		{"mode":"error","count":1,"status":502,"body":"<html>bad</html>"},
		{"mode":"error","count":2,"status":503,"headers":{"retry-after":"7"}},
		{"mode":"error","count":1,"status":422,"body":"{\"ErrorCode\":1480}","headers":{"Content-Type":"text/x"}}]}`)
	want := []struct {
		status          int
		body, ctype, ra string
	}{
		{502, "<html>bad</html>", "text/html; charset=utf-8", ""},
		{503, `"ErrorCode":100`, "application/json", "7"},
		{503, `"ErrorCode":100`, "application/json", "7"},
		{422, `{"ErrorCode":1480}`, "text/x", ""},
		{200, `"ErrorCode":0`, "application/json", ""},
	}
	for i, w := range want {
		a := b.postmark(t, "/email", postmarkBody())
		if a.status != w.status || !strings.Contains(a.body, w.body) || a.header.Get("Content-Type") != w.ctype || a.header.Get("Retry-After") != w.ra {
			t.Errorf("answer %d = %d %s %v, want %+v", i, a.status, a.body, a.header, w)
		}
	}
	if n := len(b.Ledger()); n != 1 {
		t.Errorf("ledger has %d entries, want 1", n)
	}
}

func TestErrorFaultWithoutBodyHasTheProvidersShape(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.faults(t, `{"sendgrid":[{"mode":"error","status":503}],"mailgun":[{"mode":"error","status":500}],"ses":[{"mode":"error","status":503}]}`)
	if a := b.sendGrid(t, sendGridBody()); a.status != 503 || a.body != `{"errors":[{"message":"service unavailable","field":null,"help":null}]}` {
		t.Errorf("sendgrid = %d %s", a.status, a.body)
	}
	a := b.mailgun(t, "/mailgun/v3/mg.example.com/messages", mailgunForm(), key("mailgun", "api_key"))
	if a.status != 500 || a.body != `{"message":"Internal Server Error"}` {
		t.Errorf("mailgun = %d %s", a.status, a.body)
	}
	_, err := b.sesSDK().SendEmail(t.Context(), sesInput())
	wantAPIError(t, err, "ServiceUnavailable", "Service Unavailable")
}

func TestFaultMeetsOnlyMatchingRecipients(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.faults(t, `{"postmark":[{"mode":"error","status":500,"match":"BOB*@*.org"}]}`)
	for to, status := range map[string]int{
		"ann@example.org": 200, "bobby@example.org": 500, "ann@example.org, bob@x.org": 500, "bob@example.com": 200, "xbob@x.org": 200,
	} {
		if a := b.postmark(t, "/email", postmarkBody("To", to)); a.status != status {
			t.Errorf("send to %s = %d, want %d", to, a.status, status)
		}
	}
}

func TestFaultsNeedAGoodCredential(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.faults(t, `{"postmark":[{"mode":"error","status":500,"count":1}]}`)
	if a := b.do(t, "POST", "/postmark/email", "{}", postmarkHeader("x")); a.status != 401 {
		t.Errorf("answer = %d, want 401", a.status)
	}
	if a := b.postmark(t, "/email", postmarkBody()); a.status != 500 {
		t.Errorf("answer = %d, want the fault still there", a.status)
	}
}

func TestAcceptThenDropIsInTheLedger(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.faults(t, `{"sendgrid":[{"mode":"accept_then_drop","count":1},{"mode":"drop_before","count":1}]}`)
	for i, inLedger := range []int{1, 1} {
		_, err := b.try("POST", "/sendgrid/v3/mail/send", toJSON(t, sendGridBody()), b.sendGridHeader())
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("call %d: error = %v, want a reset", i, err)
		}
		if n := len(b.Ledger()); n != inLedger {
			t.Errorf("call %d: ledger has %d entries, want %d", i, n, inLedger)
		}
	}
	if a := b.sendGrid(t, sendGridBody()); a.status != 202 {
		t.Errorf("answer after the faults = %d", a.status)
	}
	b.wantStats(t, "sendgrid", emulator.Stats{Requests: 3, Accepted: 2, Faulted: 1})
}

func TestAcceptFaultsWaitForAnAcceptedMessage(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.faults(t, `{"sendgrid":[{"mode":"accept_then_500","count":1}]}`)
	bad := sendGridBody()
	delete(bad, "from")
	for i, step := range []struct {
		body   object
		status int
	}{{bad, 400}, {sendGridBody(), 500}, {sendGridBody(), 202}} {
		if a := b.sendGrid(t, step.body); a.status != step.status {
			t.Errorf("call %d = %d %s, want %d", i, a.status, a.body, step.status)
		}
	}
	if n := len(b.Ledger()); n != 2 {
		t.Errorf("ledger has %d entries, want 2", n)
	}
}

func TestBlackHoleEndsWhenTheClientLeaves(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.faults(t, `{"sendgrid":[{"mode":"black_hole","count":1}]}`)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.URL()+"/sendgrid/v3/mail/send", strings.NewReader(toJSON(t, sendGridBody())))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range b.sendGridHeader() {
		req.Header.Set(k, v)
	}
	done := make(chan error, 1)
	go func() {
		res, err := b.http.Do(req)
		if err == nil {
			res.Body.Close()
		}
		done <- err
	}()
	eventually(t, "the request", func() bool { return b.Stats()["sendgrid"].Requests == 1 })
	leave()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want only our own cancel", err)
	}
	eventually(t, "the end of the request", func() bool { return b.Stats()["sendgrid"].Faulted == 1 })
	b.wantLedger(t)
}

func TestStopFreesWhatFaultsHold(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.faults(t, `{"sendgrid":[{"mode":"black_hole","count":1},{"mode":"latency","latency":"10m","count":1},
		{"mode":"slow","latency":"10m","count":1}],"smtp":[{"mode":"black_hole","count":1}]}`)
	calls := make(chan error, 4)
	for range 3 {
		go func() {
			_, err := b.try("POST", "/sendgrid/v3/mail/send", toJSON(t, sendGridBody()), b.sendGridHeader())
			calls <- err
		}()
	}
	c := b.login(t)
	go func() {
		_, err := deliver(c, mimeMessage, "ann@example.org")
		calls <- err
	}()
	eventually(t, "all faults", func() bool { return b.do(t, "GET", "/_faults", "", nil).body == "{}\n" })
	if err := b.Stop(context.Background()); err != nil {
		t.Fatalf("Stop: %v", err)
	}
	for range 4 {
		if err := <-calls; err == nil {
			t.Error("a held call was answered")
		}
	}
}

func TestSlowAnswerIsComplete(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.faults(t, `{"postmark":[{"mode":"slow","latency":"50ms"}],"smtp":[{"mode":"slow","latency":"50ms"}]}`)
	a := b.postmark(t, "/email", postmarkBody())
	if a.status != 200 || !strings.Contains(a.body, `"ErrorCode":0`) {
		t.Errorf("answer = %d %s", a.status, a.body)
	}
	if text, err := deliver(b.login(t), mimeMessage, "ann@example.org"); err != nil || !strings.Contains(text, "queued as") {
		t.Errorf("deliver = %q, %v", text, err)
	}
}

func TestPartialRefusesEverySecond(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	batch := []any{postmarkBody(), postmarkBody("To", "bob@example.org"), postmarkBody(), postmarkBody()}
	codes := func() []int {
		var got []postmarkResult
		fromJSON(t, b.postmark(t, "/email/batch", batch).body, &got)
		list := make([]int, len(got))
		for i := range got {
			list[i] = got[i].ErrorCode
		}
		return list
	}
	b.faults(t, `{"postmark":[{"mode":"partial","count":1},{"mode":"partial","count":1,"match":"bob@*","status":406,"body":"x"}]}`)
	if diff := cmp.Diff([][]int{{0, 300, 0, 300}, {0, 406, 0, 0}, {0, 0, 0, 0}}, [][]int{codes(), codes(), codes()}); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	if n := len(b.Ledger()); n != 2+3+4 {
		t.Errorf("ledger has %d entries, want 9", n)
	}
	b.faults(t, `{"postmark":[{"mode":"partial","match":"bob@*"}]}`)
	a := b.postmark(t, "/email", postmarkBody("To", "ann@example.org, bob@example.org"))
	if a.status != 200 || !strings.Contains(a.body, "inactive addresses: bob@example.org.") {
		t.Errorf("single message = %d %s", a.status, a.body)
	}
}

func TestSMTPErrorFaultsAtEachStage(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.faults(t, `{"smtp":[
		{"mode":"error","stage":"mail","count":1,"status":451,"body":"4.3.0 try later"},
		{"mode":"error","stage":"rcpt","count":1,"status":550,"body":"5.7.1 no"},
		{"mode":"error","stage":"data","count":1,"status":554,"body":"5.6.0 bad content"}]}`)
	c := b.login(t)
	for _, want := range []struct {
		code     int
		enhanced smtp.EnhancedCode
		text     string
	}{{451, smtp.EnhancedCode{4, 3, 0}, "try later"}, {550, smtp.EnhancedCode{5, 7, 1}, "no"}, {554, smtp.EnhancedCode{5, 6, 0}, "bad content"}} {
		_, err := deliver(c, mimeMessage, "ann@example.org")
		wantReply(t, err, want.code, want.enhanced, want.text)
		if err := c.Reset(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := deliver(c, mimeMessage, "ann@example.org"); err != nil {
		t.Errorf("deliver after the faults: %v", err)
	}
	b.wantStats(t, "smtp", emulator.Stats{Requests: 4, Accepted: 1, Rejected: 3})
}

func TestSMTPFaultsByRecipient(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	c := b.login(t)
	if err := c.Mail("b@example.com", nil); err != nil {
		t.Fatal(err)
	}
	b.faults(t, `{"smtp":[{"mode":"partial","count":1,"match":"ann@*","status":452,"body":"4.2.2 full"},{"mode":"partial"}]}`)
	wantReply(t, c.Rcpt("ann@example.org", nil), 452, smtp.EnhancedCode{4, 2, 2}, "full")
	wantReply(t, c.Rcpt("second@example.org", nil), 450, smtp.EnhancedCode{4, 2, 1}, "temporarily")
	if err := c.Rcpt("third@example.org", nil); err != nil {
		t.Error(err)
	}
	b.faults(t, `{"smtp":[{"mode":"throttle","match":"bob@*"}]}`)
	wantReply(t, c.Rcpt("bob@example.org", nil), 421, smtp.EnhancedCode{4, 7, 0}, "too many")
	if c.Noop() == nil {
		t.Error("the connection stays open after 421")
	}
}

func TestSMTPDropsBeforeAndAfterTheLedger(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.faults(t, `{"smtp":[{"mode":"accept_then_drop","count":1,"latency":"1ms"},{"mode":"drop_before","count":1}]}`)
	for range 2 {
		_, err := deliver(b.login(t), mimeMessage, "ann@example.org")
		if reply := (*smtp.SMTPError)(nil); err == nil || errors.As(err, &reply) {
			t.Errorf("error = %v, want a lost connection", err)
		}
		if n := len(b.Ledger()); n != 1 {
			t.Errorf("ledger has %d entries, want 1", n)
		}
	}
	b.wantStats(t, "smtp", emulator.Stats{Requests: 2, Accepted: 1, Faulted: 1})
}

func TestSMTPBlackHoleEndsWhenTheClientLeaves(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	b.faults(t, `{"smtp":[{"mode":"black_hole"}]}`)
	c := b.login(t)
	go func() { _, _ = deliver(c, mimeMessage, "ann@example.org") }()
	eventually(t, "the fault", func() bool { return strings.Contains(b.do(t, "GET", "/_faults", "", nil).body, `"hits":1`) })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return b.Stats()["smtp"].Faulted == 1 })
	b.wantLedger(t)
}

func TestFaultScriptIsCheckedStrictly(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	const kept = `{"sendgrid":[{"mode":"error","status":500}]}`
	b.faults(t, kept)
	tests := []struct{ script, want string }{
		{`[]`, `faults are {`},
		{`{"sendgrid":[]} x`, "followed by more data"},
		{`{"acme":[]}`, `provider "acme" is not one of ` + strings.Join(kindNames(), ", ")},
		{`{"sendgrid":[{"mode":"explode"}]}`, `sendgrid[0].mode: "explode" is not one of latency, throttle`},
		{`{"sendgrid":[{"mode":"partial"}]}`, `sendgrid[0].mode: "partial" is not one of`},
		{`{"smtp":[{"mode":"accept_then_500"}]}`, `smtp[0].mode: "accept_then_500" is not one of`},
		{`{"ses":[{"mode":"throttle","n":1}]}`, `unknown field "n"`},
		{`{"ses":[{"mode":"throttle","count":-1}]}`, "count: -1 is not in 0..1000000000"},
		{`{"ses":[{"mode":"latency"}]}`, "latency: mode latency needs it"},
		{`{"ses":[{"mode":"latency","latency":"11m"}]}`, "latency: 11m0s is not in 0s..10m0s"},
		{`{"ses":[{"mode":"latency","latency":"soon"}]}`, "not a duration"},
		{`{"ses":[{"mode":"throttle","seconds":86401}]}`, "seconds: 86401 is not in 0..86400"},
		{`{"ses":[{"mode":"slow","seconds":1}]}`, "seconds: is for mode throttle only"},
		{`{"ses":[{"mode":"slow","hits":1}]}`, "hits: is shown by GET"},
		{`{"ses":[{"mode":"slow","status":500}]}`, "status, headers, body: are for modes error, accept_then_500, partial only"},
		{`{"ses":[{"mode":"error"}]}`, "status: mode error needs one in 400..599"},
		{`{"ses":[{"mode":"error","status":200}]}`, "status: 200 is not in 400..599"},
		{`{"postmark":[{"mode":"partial","status":10000}]}`, "status: 10000 is not in 1..9999"},
		{`{"ses":[{"mode":"error","status":500,"headers":{"a b":"c"}}]}`, `headers: "a b" is not a valid header`},
		{`{"ses":[{"mode":"error","status":500,"headers":{"a":"c\r\nd: e"}}]}`, `headers: "a" is not a valid header`},
		{`{"smtp":[{"mode":"error","status":500,"stage":"mail","headers":{"a":"c"}}]}`, "headers: are for HTTP errors only"},
		{`{"smtp":[{"mode":"error","status":500,"stage":"mail","body":"a\r\nb"}]}`, "body: an SMTP reply is one line"},
		{`{"smtp":[{"mode":"error","status":500}]}`, `stage: "" is not one of mail, rcpt, data`},
		{`{"ses":[{"mode":"error","status":500,"stage":"mail"}]}`, "stage: is for mode error of smtp only"},
		{`{"smtp":[{"mode":"error","status":500,"stage":"mail","match":"*"}]}`, "match: no recipient is known at stage mail"},
		{strings.Repeat(" ", 1<<20+1), "over 1048576 bytes"},
	}
	for _, tc := range tests {
		a := b.do(t, "PUT", "/_faults", tc.script, nil)
		var got struct{ Error string }
		fromJSON(t, a.body, &got)
		if a.status != 400 || !strings.Contains(got.Error, tc.want) {
			t.Errorf("PUT %.80s = %d %s, want 400 ...%s...", tc.script, a.status, got.Error, tc.want)
		}
	}
	if err := b.SetFaults(map[string][]emulator.Fault{"acme": nil}); err == nil {
		t.Error("SetFaults took an unknown provider")
	}
	if a := b.do(t, "GET", "/_faults", "", nil); a.body != `{"sendgrid":[{"mode":"error","count":0,"status":500,"hits":0}]}`+"\n" {
		t.Errorf("script after refused ones = %s, want it unchanged", a.body)
	}
}

func TestFaultsCanBeDeleted(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	if err := b.SetFaults(map[string][]emulator.Fault{
		"sendgrid": {{Mode: "error", Status: 500}}, "postmark": {{Mode: "error", Status: 500}},
	}); err != nil {
		t.Fatal(err)
	}
	if a := b.do(t, "DELETE", "/_faults?provider=acme", "", nil); a.status != 400 {
		t.Errorf("DELETE of an unknown provider = %d", a.status)
	}
	if a := b.do(t, "DELETE", "/_faults?provider=sendgrid", "", nil); a.status != 204 {
		t.Errorf("DELETE = %d", a.status)
	}
	sg, pm := b.sendGrid(t, sendGridBody()), b.postmark(t, "/email", postmarkBody())
	if sg.status != 202 || pm.status != 500 {
		t.Errorf("answers = %d, %d, want 202, 500", sg.status, pm.status)
	}
	b.do(t, "DELETE", "/_faults", "", nil)
	if pm := b.postmark(t, "/email", postmarkBody()); pm.status != 200 {
		t.Errorf("answer = %d, want 200", pm.status)
	}
}
