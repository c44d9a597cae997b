package emulator_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/emulator/catalog"
	"github.com/sendgate/sendgate/internal/limit"
)

// bubble is an emulator and a test inside synctest's bubble.
type bubble struct {
	*testing.T
	*emulator.Emulator
}

// inBubble runs the HTTP side without a network, on synctest's clock.
func inBubble(t *testing.T, limits map[string][]limit.Window, test func(bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e, err := catalog.New(emulator.Options{Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		test(bubble{t, e})
	})
}

func post(e *emulator.Emulator, path, body string, header map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "http://localhost"+path, strings.NewReader(body))
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	e.Handler().ServeHTTP(w, r)
	return w
}

func postOne(e *emulator.Emulator) *httptest.ResponseRecorder {
	return post(e, "/sendgrid/v3/mail/send", `{"personalizations":[{"to":[{"email":"a@example.org"}]}],"from":{"email":"b@example.com"},
		"subject":"s","content":[{"type":"text/plain","value":"x"}]}`,
		map[string]string{"Authorization": "Bearer " + key("sendgrid", "api_key"), "Content-Type": "application/json"})
}

// postPostmark sends a batch of n messages with two recipients each.
func postBatch(e *emulator.Emulator, n int) *httptest.ResponseRecorder {
	item := `{"From":"b@example.com","To":"a@example.org,c@example.org","TextBody":"x"}`
	return post(e, "/postmark/email/batch", "["+strings.Repeat(item+",", n-1)+item+"]", map[string]string{
		"X-Postmark-Server-Token": key("postmark", "server_token"), "Accept": "application/json", "Content-Type": "application/json",
	})
}

func TestWindowSlides(t *testing.T) {
	t.Parallel()
	limits := map[string][]limit.Window{"sendgrid": {{N: 3, Per: 10 * time.Second, Unit: limit.Requests}}}
	inBubble(t, limits, func(x bubble) {
		t, e := x.T, x.Emulator
		want := func(status int, remaining string) {
			t.Helper()
			w := postOne(e)
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
	limits := map[string][]limit.Window{"sendgrid": {
		{N: 1, Per: 90 * time.Second, Unit: limit.Requests}, {N: 1, Per: 2 * time.Second, Unit: limit.Requests},
	}}
	inBubble(t, limits, func(x bubble) {
		t, e := x.T, x.Emulator
		time.Sleep(300 * time.Millisecond)
		postOne(e)
		w := postOne(e)
		reset, err := strconv.ParseInt(w.Header().Get("X-RateLimit-Reset"), 10, 64)
		if w.Code != 429 || err != nil {
			t.Fatalf("answer = %d %v", w.Code, w.Header())
		}
		time.Sleep(time.Until(time.Unix(reset, 0)) - time.Second)
		if w := postOne(e); w.Code != 429 {
			t.Errorf("a second before the reset: %d, want 429", w.Code)
		}
		time.Sleep(time.Second)
		if w := postOne(e); w.Code != 202 {
			t.Errorf("at the reset: %d, want 202", w.Code)
		}
	})
}

func TestWindowsChargeTheirUnit(t *testing.T) {
	t.Parallel()
	for unit, fits := range map[limit.Unit]int{limit.Requests: 12, limit.Messages: 4, limit.Recipients: 2} {
		limits := map[string][]limit.Window{"postmark": {{N: 12, Per: time.Minute, Unit: unit}}}
		inBubble(t, limits, func(x bubble) {
			t, e := x.T, x.Emulator
			taken := 0
			for range 14 {
				if postBatch(e, 3).Code == 200 {
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
	limits := map[string][]limit.Window{"postmark": {
		{N: 5, Per: time.Minute, Unit: limit.Messages}, {N: 5, Per: time.Hour, Unit: limit.Requests},
	}}
	inBubble(t, limits, func(x bubble) {
		t, e := x.T, x.Emulator
		for _, step := range []struct{ batch, status int }{{4, 200}, {2, 429}, {1, 200}, {1, 429}} {
			if w := postBatch(e, step.batch); w.Code != step.status {
				t.Errorf("batch of %d = %d, want %d", step.batch, w.Code, step.status)
			}
		}
		ws := e.Stats()["postmark"].Windows
		if ws[0].Used != 5 || ws[1].Used != 2 {
			t.Errorf("used = %d, %d, want 5, 2", ws[0].Used, ws[1].Used)
		}
	})
}

func TestPeakCountsRefusedRequestsToo(t *testing.T) {
	t.Parallel()
	limits := map[string][]limit.Window{"sendgrid": {{N: 2, Per: 10 * time.Second, Unit: limit.Requests}}}
	inBubble(t, limits, func(x bubble) {
		t, e := x.T, x.Emulator
		for range 5 {
			postOne(e)
		}
		time.Sleep(10 * time.Second)
		postOne(e)
		post(e, "/sendgrid/v3/mail/send", "{}", nil) // no credential: not counted
		s := e.Stats()["sendgrid"]
		if s.Windows[0].Peak != 5 || s.Windows[0].Used != 1 || s.Throttled != 3 || s.Accepted != 3 || s.Rejected != 1 || s.Requests != 7 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestLatencyFaultDelaysAndThenAccepts(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(x bubble) {
		t, e := x.T, x.Emulator
		if err := e.SetFaults(map[string][]emulator.Fault{"sendgrid": {{Mode: emulator.ModeLatency, Latency: emulator.Duration(3 * time.Second), Count: 1}}}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []time.Duration{3 * time.Second, 0} {
			began := time.Now()
			if w := postOne(e); w.Code != 202 || time.Since(began) != want {
				t.Errorf("answer = %d after %s, want 202 after %s", w.Code, time.Since(began), want)
			}
		}
	})
}

func TestThrottleFaultLastsItsSeconds(t *testing.T) {
	t.Parallel()
	inBubble(t, nil, func(x bubble) {
		t, e := x.T, x.Emulator
		if err := e.SetFaults(map[string][]emulator.Fault{"sendgrid": {{Mode: emulator.ModeThrottle, Seconds: 5}}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // the time begins with the first hit
		var got []string
		for range 4 {
			got = append(got, fmt.Sprint(postOne(e).Code))
			time.Sleep(2 * time.Second)
		}
		if s := strings.Join(got, " "); s != "429 429 429 202" {
			t.Errorf("answers every 2 s = %s, want 429 429 429 202", s)
		}
	})
}

// FuzzBodies sends arbitrary bodies to the calls that take one, and checks the accepted mails.
func FuzzBodies(f *testing.F) {
	f.Add([]byte(`{"personalizations":[{"to":[{"email":"a@b.c"}]}],"from":{"email":"a@b.c"},"subject":"s","content":[{"type":"a","value":"b"}]}`))
	f.Add([]byte(`[{"From":"a@b.c","To":"d@e.f","TextBody":"x","Metadata":{"gw_msg":"1"}}]`))
	f.Add([]byte(`{"query":"subject = 'x'","limit":3}`))
	f.Add([]byte(`{"duration":"1d","pagination":{"token":"b2Zmc2V0OjE","limit":1}}`))
	e, err := catalog.New(emulator.Options{})
	if err != nil {
		f.Fatal(err)
	}
	header := map[string]string{
		"Authorization": "Bearer " + key("sendgrid", "api_key"), "X-Postmark-Server-Token": key("postmark", "server_token"),
		"Accept": "application/json", "Content-Type": "application/json",
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if err := e.SetFaults(map[string][]emulator.Fault{"postmark": {{Mode: emulator.ModePartial, Count: 1}}}); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/sendgrid/v3/mail/send", "/postmark/email", "/postmark/email/batch", "/sendgrid/v3/logs"} {
			before := len(e.Ledger())
			if w := post(e, path, string(body), header); w.Code >= 500 {
				t.Errorf("%s = %d", path, w.Code)
			}
			for _, n := range e.Ledger()[before:] {
				if len(n.To) == 0 || n.From == "" || n.ProviderMessageID == "" {
					t.Errorf("%s accepted without sender, recipient or id: %+v", path, n)
				}
			}
		}
	})
}
