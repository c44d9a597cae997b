package httpapi

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/route"
)

// routerFunc answers each Explain.
type routerFunc func(f mail.Facts) []route.Candidate

func (r routerFunc) Explain(in route.Request) route.Decision {
	return route.Decision{Pinned: in.Facts.Account != "", Candidates: r(*in.Facts)}
}

// sendServer is a Server without its HTTP part, over a fake store.
func sendServer(t *testing.T, r Router) *Server {
	t.Helper()
	s, err := New(Options{Store: newFakeStore(time.Now()), Router: r, Kinds: fakeKinds{}, SecretKey: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// submitCode gives the code with which a message is refused, or "".
func submitCode(t *testing.T, s *Server, body string) string {
	t.Helper()
	_, err := s.submission(&record.Key{Tenant: mail.DefaultTenant}, []byte(body), "")
	if err == nil {
		return ""
	}
	p := problemOf(err)
	if p.Status != http.StatusUnprocessableEntity {
		t.Errorf("status = %d, want 422", p.Status)
	}
	return p.Code
}

func TestSendIsRefusedWhenNoAccountCanEverCarryIt(t *testing.T) {
	t.Parallel()
	cannot := route.Candidate{Why: route.Why{Code: route.Cannot, Reason: "message of 99 bytes is over the cap of 1"}}
	utf8 := func(f mail.Facts) route.Candidate {
		if f.NeedsSMTPUTF8 {
			return route.Candidate{Why: route.Why{Code: route.Cannot, Reason: "address with a non-ASCII local part needs SMTPUTF8"}}
		}
		return route.Candidate{}
	}
	plain, eai := sendJSON(), sendJSON("to", `"jöhn@example.com"`)
	tests := map[string]struct {
		body   string
		router routerFunc
		want   string
	}{
		"nobody is there yet": {plain, func(mail.Facts) []route.Candidate { return nil }, ""},
		"one can":             {plain, func(mail.Facts) []route.Candidate { return []route.Candidate{cannot, {}} }, ""},
		"one is only paused": {plain, func(mail.Facts) []route.Candidate {
			return []route.Candidate{cannot, {Why: route.Why{Code: route.Paused}}}
		}, ""},
		"none can":               {plain, func(mail.Facts) []route.Candidate { return []route.Candidate{cannot, cannot} }, "no_route_capability"},
		"none carries UTF-8":     {eai, func(f mail.Facts) []route.Candidate { return []route.Candidate{utf8(f)} }, "smtputf8_unsupported"},
		"UTF-8 is not the cause": {eai, func(mail.Facts) []route.Candidate { return []route.Candidate{cannot} }, "no_route_capability"},
		"one carries UTF-8":      {eai, func(f mail.Facts) []route.Candidate { return []route.Candidate{utf8(f), {}} }, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := submitCode(t, sendServer(t, tt.router), tt.body); got != tt.want {
				t.Errorf("submission = %q, want %q", got, tt.want)
			}
		})
	}
}

// The real planner is asked, so that a change of its words is noticed here.
func TestSendToAPinnedAccount(t *testing.T) {
	t.Parallel()
	exe := fileJSON("filename", `"a.exe"`)
	tests := map[string]struct{ body, want string }{
		"that exists":          {sendJSON("account", `"small"`), ""},
		"that does not exist":  {sendJSON("account", `"nobody"`), "invalid"},
		"that can't carry it":  {sendJSON("account", `"small"`, "attachments", exe), "no_route_capability"},
		"that can carry it":    {sendJSON("account", `"big"`, "attachments", exe), ""},
		"none, one of two can": {sendJSON("attachments", exe), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := submitCode(t, sendServer(t, planRouter{}), tt.body); got != tt.want {
				t.Errorf("submission = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSubmissionCarriesWhatTheStoreNeeds(t *testing.T) {
	t.Parallel()
	s := sendServer(t, planRouter{})
	sub, err := s.submission(&record.Key{Tenant: 7}, []byte(sendJSON()), "k")
	if err != nil {
		t.Fatal(err)
	}
	if sub.Message.Tenant != 7 || sub.Message.ID.IsZero() || sub.Key != "k" || sub.Fingerprint == [32]byte{} {
		t.Errorf("submission = %+v, want tenant 7, an id, key k and a fingerprint", sub)
	}
	if got := sub.Message.ExpiresAt.Sub(sub.Message.CreatedAt); got != DefaultExpiry {
		t.Errorf("expires after %s, want %s", got, DefaultExpiry)
	}
}

// The fingerprint is stored for 24 hours by replicas of two releases: it may only change with its version.
func TestFingerprintIsPinned(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	sum := func(body string, at time.Time) [32]byte {
		var in sendRequest
		if err := decodeStrict([]byte(body), &in); err != nil {
			t.Fatal(err)
		}
		d := in.draft()
		m, err := d.Message(at, mail.DefaultCaps())
		if err != nil {
			t.Fatal(err)
		}
		return fingerprint(d, m)
	}
	const body = `{"from":"Shop <shop@example.com>","to":["a@example.org"],"cc":["b@example.org"],"subject":"s","text":"t","html":"h",
		"headers":{"X-A":"1"},"attachments":[{"filename":"a","content":"aGk="}],"tags":["x"],"metadata":{"k":"v"}}`
	got := sum(body, now)
	if got != sum(body, now.Add(time.Hour)) {
		t.Error("the fingerprint changes with the time of the request")
	}
	moved := strings.Replace(body, `"to":["a@example.org"],"cc":["b@example.org"]`, `"to":["a@example.org","b@example.org"]`, 1)
	if got == sum(moved, now) {
		t.Error("moving a recipient from cc to to does not change the fingerprint")
	}
	const want = "28812aea8098580d1b22eaee71a4889e80690142c335e5cfb045e79bca669384"
	if text := hex.EncodeToString(got[:]); text != want {
		t.Errorf("fingerprint = %s, want %s: raise fingerprintVersion when its encoding changes", text, want)
	}
}

func TestSendAnswersLikeTheContract(t *testing.T) {
	t.Parallel()
	s := newInputServer(t)
	row := inputRow{body: sendJSON("to", `["ann@example.org","gone@example.org"]`), status: 202}
	row.answers = func(t *testing.T, _ http.Header, body []byte) {
		var got api.SendResult
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatal(err)
		}
		if _, err := mail.ParseID(got.ID); err != nil {
			t.Error(err)
		}
		want := api.SendResult{ID: got.ID, Status: "queued", Recipients: []api.RecipientStatus{
			{Email: "ann@example.org", Status: "queued"}, {Email: "gone@example.org", Status: "suppressed"},
		}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
	}
	row.check(t, s)
}

func BenchmarkSubmission(b *testing.B) {
	s, err := New(Options{Store: newFakeStore(time.Now()), Router: planRouter{}, Kinds: fakeKinds{}, SecretKey: make([]byte, 32)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	body, key := sendBody5KB(), &record.Key{Tenant: mail.DefaultTenant}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.submission(key, body, "k"); err != nil {
			b.Fatal(err)
		}
	}
}
