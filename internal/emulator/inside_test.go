package emulator

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/limit"
)

// Handler is the HTTP surface, for tests without a network.
func (e *Emulator) Handler() http.Handler { return e.handler() }

func TestOutcomeOf(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"bounce@example.org": "bounce", "Bounce+1@example.org": "bounce", "SOFTBOUNCE@x": "softbounce", "complaint@x": "complaint",
		"defer@x": "defer", "suppressed+a+b@x": "suppressed", "reject@x": "reject", "open@x": "open", "click@x": "click",
		"bouncer@x": "delivered", "a+bounce@x": "delivered", "": "delivered", "@bounce": "delivered", "bounce": "bounce",
	} {
		if got := OutcomeOf(addr); got != want {
			t.Errorf("OutcomeOf(%q) = %s, want %s", addr, got, want)
		}
	}
	if got := gravest([]string{"open@x", "a@x", "bounce@x", "click@x"}); got != OutcomeBounce {
		t.Errorf("gravest = %s, want bounce", got)
	}
}

func TestGlob(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, s string
		want       bool
	}{
		{"a@b", "a@b", true},
		{"a@b", "a@bc", false},
		{"*", "", true},
		{"*@b", "a@b", true},
		{"*@b", "a@bc", false},
		{"a*", "abc", true},
		{"a*c", "abc", true},
		{"a*c", "ac", true},
		{"a*b*c", "axbxc", true},
		{"a*b*c", "axc", false},
		{"a*bc*c", "abc", false},
	}
	for _, tc := range tests {
		if got := glob(tc.pattern, tc.s); got != tc.want {
			t.Errorf("glob(%q, %q) = %t", tc.pattern, tc.s, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"a@example.org": true, "a.b+c@sub.example.org": true, "ä@exämple.org": true, "a@[192.0.2.1]": true, "a@localhost": true,
		"": false, "a": false, "@example.org": false, "a@": false, "a@b..c": false, "a@-b.c": false, "a b@c.d": false, "a@b> X=Y": false,
		"a@b,c@d": false, "a@b_c.d": true, "a@b!c": false, "\xff@b.c": false, string(bytes.Repeat([]byte("a"), 65)) + "@b.c": false,
	} {
		if got := BareAddress(s); got != want {
			t.Errorf("BareAddress(%q) = %t", s, got)
		}
	}
}

func TestLedgerPromisesNothingAfterAFailedWrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger")
	l := newLedger()
	if err := l.open(path); err != nil {
		t.Fatal(err)
	}
	if err := l.append([]Entry{{Provider: "ses"}}); err != nil {
		t.Fatal(err)
	}
	l.io.Lock()
	good := l.file
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l.file = readOnly
	l.io.Unlock()
	for range 2 {
		if err := l.append([]Entry{{Provider: "ses"}}); err == nil {
			t.Error("append reports success although the write failed")
		}
	}
	if n := len(l.snapshot()); n != 1 {
		t.Errorf("%d entries are visible, want 1", n)
	}
	if err := errors.Join(l.close(), good.Close()); err != nil {
		t.Error(err)
	}
	if err := l.append(nil); err == nil {
		t.Error("append after close works")
	}
}

func TestNoSlidingWindowIsEverExceeded(t *testing.T) {
	t.Parallel()
	w := limit.Window{N: 20, Per: 7 * time.Second, Unit: limit.Recipients}
	now := time.Unix(0, 0)
	m := &meter{now: func() time.Time { return now }}
	if err := m.limit([]limit.Window{w}); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
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
		f := m.Admit(Cost{Recipients: c.n})
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

// fixed is a provider that the test does not use.
type fixed struct{ Provider }

func (fixed) CompleteHook(Hook) error { return nil }

func fixedCourse(outcome string) []EventType {
	return append([]EventType{Accepted}, Course(outcome)...)
}

func hostFor(t *testing.T, opt Options) *Host {
	t.Helper()
	e, err := New([]Kind{{Name: "fixed", Course: fixedCourse, New: func(*Host) (Provider, error) { return fixed{}, nil }}}, opt)
	if err != nil {
		t.Fatal(err)
	}
	return e.hosts[0]
}

func TestQueueCountsWhatIsTooMuch(t *testing.T) {
	t.Parallel()
	q := hostFor(t, Options{}).queue
	plan := make([]Event, maxPendingEvents)
	q.add(true, &task{due: time.Now(), plan: plan})
	q.add(true, &task{due: time.Now(), plan: plan[:3]})
	q.add(false, &task{due: time.Now(), repeat: &Post{Events: plan[:2]}}) // counted before
	if s := q.snapshot(); s.Pending != maxPendingEvents+2 || s.Dropped != 3 {
		t.Errorf("pending %d, dropped %d", s.Pending, s.Dropped)
	}
	now := time.Now()
	for range 3 {
		if due, _ := q.next(now); len(due) != 1 {
			t.Fatal("nothing is due")
		}
	}
}

func TestPlanIsTheSameEachTime(t *testing.T) {
	t.Parallel()
	m := &Message{Entry: Entry{Provider: "fixed", ProviderMessageID: "x", To: []string{"defer@example.org", "click@example.org"}, At: time.Unix(0, 0)}}
	h := hostFor(t, Options{})
	a, b := h.plan(m), h.plan(m)
	last := m.At
	for i := range a {
		if !a[i].At.Equal(b[i].At) || !bytes.Equal(a[i].Hash("id"), b[i].Hash("id")) {
			t.Errorf("event %d differs", i)
		}
		if a[i].At.Before(last) {
			t.Errorf("event %d is before the last", i)
		}
		last = a[i].At
	}
	if first := a[0].At.Sub(m.At); first < 50*time.Millisecond || first > 200*time.Millisecond {
		t.Errorf("the first comes after %s", first)
	}
	if deferred := last.Sub(m.At); len(a) != 6 || deferred < time.Hour {
		t.Errorf("%d events, the last after %s", len(a), deferred)
	}
}

func FuzzReadLedger(f *testing.F) {
	f.Add([]byte(`{"provider":"ses","at":"2026-01-01T00:00:00Z"}` + "\n{"))
	f.Fuzz(func(t *testing.T, file []byte) {
		entries, size, err := readLedger(bytes.NewReader(file))
		if err != nil {
			return
		}
		again, sizeAgain, err := readLedger(bytes.NewReader(file[:size]))
		if err != nil || sizeAgain != size || len(again) != len(entries) {
			t.Errorf("the good part reads as %d entries and %d bytes (%v), want %d and %d", len(again), sizeAgain, err, len(entries), size)
		}
	})
}

func FuzzReadMIME(f *testing.F) {
	f.Add([]byte("From: a@b.c\r\nSubject: =?utf-8?q?x?=\r\n\r\n"))
	f.Add([]byte("To: undisclosed-recipients:;\n\n"))
	f.Add([]byte("From: a@b.c\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n"))
	f.Fuzz(func(t *testing.T, mime []byte) {
		if m, err := ReadMIME(mime); err == nil && m.From != "" && !BareAddress(m.From) {
			t.Errorf("from = %q", m.From)
		}
	})
}

func FuzzControl(f *testing.F) {
	f.Add([]byte(`{"fixed":[{"mode":"error","status":500}]}`), []byte(`{"fixed":{"url":"http://127.0.0.1/","signing_key":"x"}}`))
	e, err := New([]Kind{{Name: "fixed", New: func(*Host) (Provider, error) { return fixed{}, nil }}}, Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, faults, hooks []byte) {
		if all, err := decodeControl[map[string][]Fault](bytes.NewReader(faults), "faults"); err == nil {
			_ = e.SetFaults(all)
		}
		if all, err := decodeControl[map[string]Hook](bytes.NewReader(hooks), "hooks"); err == nil {
			_ = e.SetHooks(all)
		}
	})
}

func TestTheOldestMailsAreDropped(t *testing.T) {
	t.Parallel()
	const n = 20 // of 4 MiB; with their other fields 15 of them fit into the limit
	var s mails
	text := strings.Repeat("x", maxMails/16)
	all := make([]*Message, n)
	for i := range all {
		all[i] = &Message{Entry: Entry{ProviderMessageID: strconv.Itoa(i)}, Mail: NewMail(text, "", "")}
	}
	tooLarge := &Message{Entry: Entry{ProviderMessageID: "too large"}, Mail: NewMail(strings.Repeat("x", maxMails+1), "", "")}
	s.keep(all)
	s.keep([]*Message{tooLarge})
	for i, m := range append(all, tooLarge) {
		if got, want := s.find(&m.Entry) != nil, i >= n-15 && i < n; got != want {
			t.Errorf("mail %s is kept: %v, want %v", m.ProviderMessageID, got, want)
		}
	}
}

func TestShuffleSendsTheLastFirst(t *testing.T) {
	t.Parallel()
	at := time.Now()
	var plan []Event
	for i, kind := range []EventType{Accepted, Delivered, Clicked} {
		when := at.Add(time.Duration(i) * time.Second)
		plan = append(plan, Event{Type: kind, At: when, due: when})
	}
	shuffle(plan)
	for i, want := range []EventType{Clicked, Delivered, Accepted} {
		own := at.Add(time.Duration(2-i) * time.Second)
		if e := plan[i]; e.Type != want || !e.due.Equal(at.Add(time.Duration(i)*time.Second)) || !e.At.Equal(own) {
			t.Errorf("event %d is %s of %s, sent at %s; want %s of %s", i, e.Type, e.At, e.due, want, own)
		}
	}
}
