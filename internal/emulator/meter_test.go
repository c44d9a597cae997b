package emulator

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// bubble is an emulator and a test inside synctest's bubble.
type bubble struct {
	*testing.T
	*Emulator
}

// inBubble runs the HTTP side without a network, on synctest's clock.
func inBubble(t *testing.T, limits map[string][]limit.Window, test func(bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e, err := New(Options{Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		test(bubble{t, e})
	})
}

func (e *Emulator) post(path, body string, header map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	e.handler().ServeHTTP(w, r)
	return w
}

func (e *Emulator) postSendGrid() *httptest.ResponseRecorder {
	return e.post("/sendgrid/v3/mail/send", `{"personalizations":[{"to":[{"email":"a@example.org"}]}],"from":{"email":"b@example.com"},
		"subject":"s","content":[{"type":"text/plain","value":"x"}]}`,
		map[string]string{"Authorization": "Bearer " + DefaultCredentials().SendGridKey, "Content-Type": "application/json"})
}

// postPostmark sends a batch of n messages with two recipients each.
func (e *Emulator) postPostmark(n int) *httptest.ResponseRecorder {
	item := `{"From":"b@example.com","To":"a@example.org,c@example.org","TextBody":"x"}`
	return e.post("/postmark/email/batch", "["+strings.Repeat(item+",", n-1)+item+"]", map[string]string{
		"X-Postmark-Server-Token": DefaultCredentials().PostmarkToken, "Accept": "application/json", "Content-Type": "application/json",
	})
}

func TestWindowSlides(t *testing.T) {
	t.Parallel()
	limits := map[string][]limit.Window{kindSendGrid: {{N: 3, Per: 10 * time.Second, Unit: limit.Requests}}}
	inBubble(t, limits, func(x bubble) {
		t, e := x.T, x.Emulator
		want := func(status int, remaining string) {
			t.Helper()
			w := e.postSendGrid()
			if w.Code != status || w.Header().Get("X-RateLimit-Remaining") != remaining || w.Header().Get("X-RateLimit-Limit") != "3" {
				t.Errorf("at %s: answer = %d %v, want %d with %s left", time.Now(), w.Code, w.Header(), status, remaining)
			}
		}
		first := time.Now()
		want(202, "2")
		time.Sleep(4 * time.Second)
		want(202, "1")
		want(202, "0")
		time.Sleep(6*time.Second - time.Nanosecond)
		want(429, "0")
		time.Sleep(time.Nanosecond) // the first call has left
		want(202, "0")
		want(429, "0")
		time.Sleep(4 * time.Second) // the second and third have left
		want(202, "1")
		if got := e.Ledger()[0].At; !got.Equal(first.Truncate(time.Microsecond)) {
			t.Errorf("at = %s, want %s", got, first)
		}
	})
}

func TestResetNamesTheFirstSecondWithRoom(t *testing.T) {
	t.Parallel()
	limits := map[string][]limit.Window{kindSendGrid: {
		{N: 1, Per: 90 * time.Second, Unit: limit.Requests}, {N: 1, Per: 2 * time.Second, Unit: limit.Requests},
	}}
	inBubble(t, limits, func(x bubble) {
		t, e := x.T, x.Emulator
		time.Sleep(300 * time.Millisecond)
		e.postSendGrid()
		w := e.postSendGrid()
		reset, err := strconv.ParseInt(w.Header().Get("X-RateLimit-Reset"), 10, 64)
		if w.Code != 429 || err != nil {
			t.Fatalf("answer = %d %v", w.Code, w.Header())
		}
		time.Sleep(time.Until(time.Unix(reset, 0)) - time.Second)
		if w := e.postSendGrid(); w.Code != 429 {
			t.Errorf("a second before the reset: %d, want 429", w.Code)
		}
		time.Sleep(time.Second)
		if w := e.postSendGrid(); w.Code != 202 {
			t.Errorf("at the reset: %d, want 202", w.Code)
		}
	})
}

func TestWindowsChargeTheirUnit(t *testing.T) {
	t.Parallel()
	for unit, fits := range map[limit.Unit]int{limit.Requests: 12, limit.Messages: 4, limit.Recipients: 2} {
		limits := map[string][]limit.Window{kindPostmark: {{N: 12, Per: time.Minute, Unit: unit}}}
		inBubble(t, limits, func(x bubble) {
			t, e := x.T, x.Emulator
			taken := 0
			for range 14 {
				if e.postPostmark(3).Code == 200 {
					taken++
				}
			}
			if taken != fits {
				t.Errorf("%d batches fit into 12 %s, want %d", taken, unit, fits)
			}
		})
	}
}

func TestFullWindowChargesNoOther(t *testing.T) {
	t.Parallel()
	limits := map[string][]limit.Window{kindPostmark: {
		{N: 5, Per: time.Minute, Unit: limit.Messages}, {N: 5, Per: time.Hour, Unit: limit.Requests},
	}}
	inBubble(t, limits, func(x bubble) {
		t, e := x.T, x.Emulator
		for _, step := range []struct{ batch, status int }{{4, 200}, {2, 429}, {1, 200}, {1, 429}} {
			if w := e.postPostmark(step.batch); w.Code != step.status {
				t.Errorf("batch of %d = %d, want %d", step.batch, w.Code, step.status)
			}
		}
		ws := e.Stats()[kindPostmark].Windows
		if ws[0].Used != 5 || ws[1].Used != 2 {
			t.Errorf("used = %d, %d, want 5, 2", ws[0].Used, ws[1].Used)
		}
	})
}

func TestPeakCountsRefusedRequestsToo(t *testing.T) {
	t.Parallel()
	limits := map[string][]limit.Window{kindSendGrid: {{N: 2, Per: 10 * time.Second, Unit: limit.Requests}}}
	inBubble(t, limits, func(x bubble) {
		t, e := x.T, x.Emulator
		for range 5 {
			e.postSendGrid()
		}
		time.Sleep(10 * time.Second)
		e.postSendGrid()
		e.post("/sendgrid/v3/mail/send", "{}", nil) // no credential: not counted
		s := e.Stats()[kindSendGrid]
		if s.Windows[0].Peak != 5 || s.Windows[0].Used != 1 || s.Throttled != 3 || s.Accepted != 3 || s.Rejected != 1 || s.Requests != 7 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestNoSlidingWindowIsEverExceeded(t *testing.T) {
	t.Parallel()
	w := limit.Window{N: 20, Per: 7 * time.Second, Unit: limit.Recipients}
	meters, err := newMeters(map[string][]limit.Window{kindSES: {w}})
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	now := time.Unix(0, 0)
	type charge struct {
		at time.Time
		n  int
	}
	var taken []charge
	used := 0
	for range 5000 {
		now = now.Add(time.Duration(rnd.IntN(500)) * time.Millisecond)
		c := charge{now, 1 + rnd.IntN(5)}
		sum := c.n // what the window that ends now would hold
		for _, o := range taken {
			if now.Sub(o.at) < w.Per {
				sum += o.n
			}
		}
		f := meters[kindSES].admit(func() time.Time { return now }, cost{recipients: c.n})
		if (f == nil) != (sum <= w.N) {
			t.Fatalf("at %s: admitted %t with %d in the window", now, f == nil, sum)
		}
		if f == nil {
			taken, used = append(taken, c), used+c.n
		}
	}
	if used == 0 {
		t.Fatal("nothing was admitted")
	}
}

func TestSESTellsTheDailyQuotaFromTheRate(t *testing.T) {
	t.Parallel()
	for per, want := range map[time.Duration]string{time.Second: "Maximum sending rate exceeded.", 24 * time.Hour: "Daily message quota exceeded."} {
		p := ses{}.throttled(&full{Window: limit.Window{N: 1, Per: per, Unit: limit.Recipients}}, time.Now())
		if p.status != 429 || !strings.Contains(string(p.body), want) || p.header["X-Amzn-Errortype"] != "TooManyRequestsException" {
			t.Errorf("throttled over %s = %d %s", per, p.status, p.body)
		}
	}
}

func TestMailgunNamesTheUnit(t *testing.T) {
	t.Parallel()
	g := mailgun{&Emulator{opt: Options{Credentials: DefaultCredentials()}}}
	until := time.Date(2026, 1, 2, 3, 4, 5, 1, time.UTC)
	p := g.throttled(&full{limit.Window{N: 1, Per: time.Hour, Unit: limit.Recipients}, until}, until)
	if want := "recipient limit exceeded, try again after Fri, 02 Jan 2026 03:04:06 UTC"; !strings.Contains(string(p.body), want) {
		t.Errorf("throttled = %s, want ...%s", p.body, want)
	}
}

func TestLatencyFaultDelaysAndThenAccepts(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(x bubble) {
		t, e := x.T, x.Emulator
		if err := e.SetFaults(map[string][]Fault{kindSendGrid: {{Mode: modeLatency, Latency: Duration(3 * time.Second), Count: 1}}}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []time.Duration{3 * time.Second, 0} {
			began := time.Now()
			if w := e.postSendGrid(); w.Code != 202 || time.Since(began) != want {
				t.Errorf("answer = %d after %s, want 202 after %s", w.Code, time.Since(began), want)
			}
		}
	})
}

func TestThrottleFaultLastsItsSeconds(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(x bubble) {
		t, e := x.T, x.Emulator
		if err := e.SetFaults(map[string][]Fault{kindSendGrid: {{Mode: modeThrottle, Seconds: 5}}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // the time begins with the first hit
		var got []string
		for range 4 {
			got = append(got, fmt.Sprint(e.postSendGrid().Code))
			time.Sleep(2 * time.Second)
		}
		if s := strings.Join(got, " "); s != "429 429 429 202" {
			t.Errorf("answers every 2 s = %s, want 429 429 429 202", s)
		}
	})
}

func TestSMTPWindowsRefuseInPostfixsWords(t *testing.T) {
	t.Parallel()
	e, err := New(Options{Limits: map[string][]limit.Window{kindSMTP: {
		{N: 2, Per: time.Minute, Unit: limit.Messages}, {N: 3, Per: time.Minute, Unit: limit.Recipients},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	s := &sinkSession{e: e, m: e.meters[kindSMTP], authed: true, conn: &sinkConn{Conn: noConn{}}}
	say := func(err error) string {
		if err == nil {
			return "ok"
		}
		return err.Error()
	}
	var got []string
	for range 3 {
		got = append(got, say(s.Mail("b@example.com", nil)), say(s.Rcpt("a@example.org", nil)), say(s.Rcpt("c@example.org", nil)))
		s.Reset()
	}
	const mail, rcpt = "SMTP error 450: Error: too much mail from unknown", "SMTP error 450: Error: too many recipients from unknown"
	want := []string{"ok", "ok", "ok", "ok", "ok", rcpt, mail, rcpt, rcpt}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("replies = %q, want %q", got, want)
	}
	st := e.Stats()[kindSMTP]
	if st.Requests != 3 || st.Throttled != 2 || st.Windows[0].Peak != 3 || st.Windows[1].Peak != 6 {
		t.Errorf("stats = %+v", st)
	}
}
