//go:build drill

package app

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
	emulated "github.com/sendgate/sendgate/internal/emulator/catalog"
)

// sendStatus sends a message and returns the id and the status in the answer.
func sendStatus(t *testing.T, c *api.Client, m api.SendRequest) (id, status string) {
	t.Helper()
	got, err := c.Send(t.Context(), m, "")
	if err != nil {
		t.Fatal(err)
	}
	return got.ID, got.Status
}

func TestBounceAndComplaintStopAllFurtherMail(t *testing.T) {
	t.Parallel()
	b, settings := newCircle(t)
	r := b.start(t, settings...)
	var want []api.Suppression
	first, events := map[string]string{}, b.told()
	for _, account := range accountNames() {
		for _, outcome := range []string{"bounce", "complaint", "softbounce", "suppressed", "defer"} {
			events[account] += int64(tellings(t, account, outcome))
		}
		for outcome, status := range map[string]string{"bounce": "bounced", "complaint": "complained"} {
			email := outcome + "+" + account + "@example.org"
			id := send(t, r.api, letterTo(account, strings.ToUpper(email[:1])+email[1:]))
			becomes(t, r.api, id, settleTime, status)
			first[email] = id
			reason := map[string]string{"bounce": "hard_bounce", "complaint": "complaint"}[outcome]
			want = append(want, api.Suppression{Email: email, Reason: reason, Origin: "webhook", Account: account, MessageID: id})
		}
		for _, outcome := range []string{"softbounce", "suppressed", "defer"} { // which do not say that the address is invalid
			email := outcome + "+" + account + "@example.org"
			id := send(t, r.api, letterTo(account, email))
			if emulates(account).SMTP && outcome == "suppressed" { // except a relay's 550 5.1.1
				becomes(t, r.api, id, settleTime, "failed")
				first[email] = id
				want = append(want, api.Suppression{Email: email, Reason: "hard_bounce", Origin: "response", Account: account, MessageID: id})
			}
		}
	}
	b.awaitTold(t, events)
	b.settle(t, settleTime)
	slices.SortFunc(want, func(a, b api.Suppression) int { return strings.Compare(a.Email, b.Email) })
	if diff := cmp.Diff(want, suppressions(t, r.api)); diff != "" {
		t.Errorf("suppressions (-want +got):\n%s", diff)
	}
	lines := len(b.emu.Ledger())
	for email := range first {
		for _, stream := range []string{"", "bulk"} {
			m := letter(1)
			m.To[0].Email, m.Stream = email, stream
			if id, status := sendStatus(t, r.api, m); status != "suppressed" {
				t.Errorf("second message to %s, stream %q: %s is %s, want suppressed at once", email, stream, id, status)
			}
		}
	}
	if n := len(b.emu.Ledger()); n != lines {
		t.Errorf("messages to suppressed addresses that a provider got = %d, want 0", n-lines)
	}
}

func TestASuppressionAfterAcceptanceHoldsAtTheClaim(t *testing.T) {
	t.Parallel()
	b, settings := newCircle(t)
	r := b.start(t, settings...)
	if _, err := r.admin.PauseAccount(t.Context(), "ses"); err != nil {
		t.Fatal(err)
	}
	eventually(t, settleTime, "the pause binds", func() bool { return code(t, r, "ses") == "paused" })
	waits := letterTo("ses", "bounce+later@example.org")
	waits.To = append(waits.To, api.Address{Email: "ann@example.org"})
	id, status := sendStatus(t, r.api, waits)
	if status != "queued" {
		t.Fatalf("status = %s, want queued", status)
	}
	becomes(t, r.api, send(t, r.api, letterTo("mailgun", "bounce+later@example.org")), settleTime, "bounced")
	if _, err := r.admin.ResumeAccount(t.Context(), "ses"); err != nil {
		t.Fatal(err)
	}
	m := message(t, r.api, id)
	eventually(t, settleTime, "the other recipient has it", func() bool {
		m = message(t, r.api, id)
		return m.Recipients[1].Status == "delivered" && m.Recipients[0].Status != "queued" // the event may come before our record
	})
	if got := m.Recipients[0].Status; got != "suppressed" {
		t.Errorf("recipient suppressed since acceptance = %s, want suppressed", got)
	}
	if l := b.ledger()[id]; len(l) != 1 || !slices.Equal(l[0].To, []string{"ann@example.org"}) {
		t.Errorf("ledger = %+v, want one line for ann alone", l)
	}
	var told []string
	for _, e := range m.Events {
		if e.Recipient == "bounce+later@example.org" {
			told = append(told, e.Type+" "+e.Source+" "+e.Bounce.Reason)
		}
	}
	if diff := cmp.Diff([]string{"rejected response suppressed_bounce"}, told); diff != "" {
		t.Errorf("events of the suppressed recipient (-want +got):\n%s", diff)
	}
}

// wire forwards calls to the emulators and keeps their bodies, to show what a provider really got.
type wire struct {
	mu     sync.Mutex
	bodies []string
}

func newWire(t *testing.T, b *bench) (w *wire, base string) {
	t.Helper()
	w = &wire{}
	to, err := url.Parse(b.emu.URL())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	base = serveHTTP(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			t.Error(err)
		}
		w.mu.Lock()
		w.bodies = append(w.bodies, string(body))
		w.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(rw, r)
	}))
	return w, base
}

var linkPattern = regexp.MustCompile(`http://127\.0\.0\.1:\d+/u/[A-Za-z0-9_-]+`)

// links lists the unsubscribe links on the wire.
func (w *wire) links() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, body := range w.bodies {
		all = append(all, linkPattern.FindAllString(body, -1)...)
	}
	return all
}

func TestOneClickStopsTheStreamThatTheLinkCameWith(t *testing.T) {
	t.Parallel()
	b, settings := newCircle(t)
	r := b.start(t, settings...)
	w, base := newWire(t, b)
	key := map[string]string{"api_key": b.emu.Secret("sendgrid", "api_key")}
	b.amend(t, r, "sendgrid", func(s map[string]any) { s["base_url"] = base + "/sendgrid" }, key)
	becomes(t, r.api, send(t, r.api, letterTo("sendgrid", "ann@example.org")), settleTime, "delivered")
	if got := w.links(); len(got) != 0 {
		t.Fatalf("transactional mail has links: %v", got)
	}
	news := letterTo("sendgrid", "ann@example.org")
	news.Stream = "bulk-news"
	id := send(t, r.api, news)
	becomes(t, r.api, id, settleTime, "delivered")
	links := w.links()
	if len(links) != 1 {
		t.Fatalf("links in bulk mail = %v, want one", links)
	}
	if status, _ := b.get(t, links[0]); status != http.StatusOK {
		t.Errorf("GET of the link = %d, want 200", status)
	}
	if got := suppressions(t, r.api); len(got) != 0 {
		t.Fatalf("a GET unsubscribed: %+v", got)
	}
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	for range 2 { // once more is as good as once
		if status := post(t, b, links[0], "List-Unsubscribe=One-Click", form); status != http.StatusOK {
			t.Errorf("POST of the link = %d, want 200", status)
		}
	}
	want := []api.Suppression{{Email: "ann@example.org", Stream: "bulk-news", Reason: "unsubscribe", Origin: "unsubscribe", MessageID: id}}
	if diff := cmp.Diff(want, suppressions(t, r.api)); diff != "" {
		t.Errorf("suppressions (-want +got):\n%s", diff)
	}
	if _, status := sendStatus(t, r.api, news); status != "suppressed" {
		t.Errorf("more of the stream = %s, want suppressed", status)
	}
	for _, stream := range []string{"", "bulk"} {
		other := letterTo("mailgun", "ann@example.org")
		other.Stream = stream
		becomes(t, r.api, send(t, r.api, other), settleTime, "delivered")
	}
	var types []string
	for _, e := range message(t, r.api, id).Events {
		types = append(types, e.Type+" "+e.Source)
	}
	if diff := cmp.Diff([]string{"accepted webhook", "delivered webhook", "unsubscribed unsubscribe"}, types); diff != "" {
		t.Errorf("events of the message (-want +got):\n%s", diff)
	}
}

func TestEventsThatWereRefusedForAWrongKeyComeAgain(t *testing.T) {
	t.Parallel()
	b, settings := newCircle(t)
	r := b.start(t, settings...)
	another, err := emulated.New(emulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	keys, other := b.emu.HookKeys(), another.HookKeys()
	b.amend(t, r, "sendgrid", func(s map[string]any) { s["webhook_public_keys"] = []string{other["sendgrid_public_key"]} }, nil)
	b.amend(t, r, "postmark", func(map[string]any) {}, map[string]string{"webhook_password": other["postmark_password"]})
	ids := []string{
		send(t, r.api, letterTo("sendgrid", "bounce+s@example.org")), send(t, r.api, letterTo("postmark", "bounce+p@example.org")),
	}
	eventually(t, settleTime, "both are refused", func() bool {
		return b.refusals("sendgrid", http.StatusForbidden) >= 1 && b.refusals("postmark", http.StatusUnauthorized) >= 1
	})
	for _, id := range ids {
		becomes(t, r.api, id, settleTime, "sent")
	}
	b.amend(t, r, "sendgrid", func(s map[string]any) {
		s["webhook_public_keys"] = []string{other["sendgrid_public_key"], keys["sendgrid_public_key"]}
	}, nil)
	b.amend(t, r, "postmark", func(map[string]any) {}, map[string]string{"webhook_password_previous": keys["postmark_password"]})
	for _, id := range ids {
		m := becomes(t, r.api, id, settleTime, "bounced")
		if n := len(slices.DeleteFunc(m.Events, func(e api.Event) bool { return e.Type != "bounced" })); n != 1 {
			t.Errorf("bounces of %s = %d, want 1", id, n)
		}
	}
}
