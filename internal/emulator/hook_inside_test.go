package emulator

import (
	"bytes"
	netmail "net/mail"
	"strings"
	"testing"
	"time"
)

func TestLaneCountsWhatIsTooMuch(t *testing.T) {
	t.Parallel()
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := e.lanes[kindMailgun]
	plan := make([]happening, maxPendingEvents)
	l.add(true, &errand{due: time.Now(), plan: plan})
	l.add(true, &errand{due: time.Now(), plan: plan[:3]})
	l.add(false, &errand{due: time.Now(), again: &post{events: plan[:2]}}) // counted before
	if s := l.snapshot(); s.Pending != maxPendingEvents+2 || s.Dropped != 3 {
		t.Errorf("pending %d, dropped %d", s.Pending, s.Dropped)
	}
	now := time.Now()
	for range 3 {
		if due, _ := l.next(now); len(due) != 1 {
			t.Fatal("nothing is due")
		}
	}
}

func TestPlanIsTheSameEachTime(t *testing.T) {
	t.Parallel()
	l := &letter{Entry: Entry{Provider: kindMailgun, ProviderMessageID: "x", To: []string{"defer@example.org", "click@example.org"}, At: time.Unix(0, 0)}}
	tm := timing{pace: 100 * time.Millisecond, deferFor: time.Hour}
	a, b := tm.plan(l), tm.plan(l)
	last := l.At
	for i := range a {
		if !a[i].at.Equal(b[i].at) || !bytes.Equal(a[i].hash("id"), b[i].hash("id")) {
			t.Errorf("event %d differs", i)
		}
		if a[i].at.Before(last) {
			t.Errorf("event %d is before the last", i)
		}
		last = a[i].at
	}
	if first := a[0].at.Sub(l.At); first < 50*time.Millisecond || first > 200*time.Millisecond {
		t.Errorf("the first comes after %s", first)
	}
	if deferred := last.Sub(l.At); len(a) != 6 || deferred < time.Hour {
		t.Errorf("%d events, the last after %s", len(a), deferred)
	}
}

func FuzzSendGridQuery(f *testing.F) {
	f.Add(`to_email = 'a@b.c' AND sg_message_id_created_at > TIMESTAMP "2025-01-01T00:00:00Z" AND status IN ('a', 'b')`)
	f.Add(`subject='it''s' AND reason="x"`)
	f.Fuzz(func(t *testing.T, s string) {
		q, ok := parseSendGridQuery(s)
		if ok && strings.TrimSpace(s) != "" && len(q.equal)+len(q.in)+len(q.times) == 0 {
			t.Errorf("%q is taken and asks for nothing", s)
		}
	})
}

func FuzzLookups(f *testing.F) {
	f.Add([]byte(`{"start":"Mon, 08 Jul 2024 00:00:00 -0000","filter":{"AND":[{"attribute":"domain","comparator":"=","values":[{"value":"x"}]}]}}`), "x")
	f.Add([]byte(`{"duration":"1d","pagination":{"token":"b2Zmc2V0OjE","limit":1}}`), mailgunPage(3))
	f.Add([]byte(`{"query":"subject = 'x'","limit":3}`), "1e9")
	e, err := New(Options{})
	if err != nil {
		f.Fatal(err)
	}
	n := Entry{Provider: kindMailgun, ProviderMessageID: "x", From: "a@b.c", To: []string{"bounce@d.e"}, At: time.Now().Add(-time.Minute)}
	if err := e.ledger.append([]Entry{n}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte, text string) {
		for _, s := range []*search{mailgun{e}.searchLogs(nil, body), sendGrid{e}.searchLogs(nil, body)} {
			if s.refused != nil {
				continue
			}
			if p := s.show(e.sights(e.find(kindMailgun, s), 0)); p.status != 200 {
				t.Errorf("answer = %d", p.status)
			}
		}
		if n, ok := parseMailgunPage(text); ok && n < 0 {
			t.Errorf("page %q is at %d", text, n)
		}
		_, _ = mailgunMoment(text, time.Time{})
		_, _ = postmarkDate(text, true)
	})
}

func FuzzHooks(f *testing.F) {
	f.Add([]byte(`{"mailgun":{"url":"http://127.0.0.1/","signing_key":"x"}}`), []byte("Subject: x\r\n\r\nbody"), "b+1.abc@example.org")
	f.Fuzz(func(t *testing.T, body, mime []byte, address string) {
		if all, err := decodeHooks(bytes.NewReader(body)); err == nil {
			for kind, h := range all {
				_ = h.check(kind, false)
			}
		}
		head := headerOf(mime)
		if len(head) > maxReturnedHeader || !bytes.HasPrefix(mime, head) {
			t.Errorf("header of %q is %q", mime, head)
		}
		if forged := forgeSender(address); strings.Contains(address, "@") && !strings.HasPrefix(address, "@") && forged == address {
			t.Errorf("forged %q is the same", address)
		}
	})
}

func FuzzReports(f *testing.F) {
	f.Add("bounce@example.org", "b+1.abc@bounces.example.org", []byte("Subject: x\r\nFrom: a@b.c\r\n"))
	f.Fuzz(func(t *testing.T, to, sender string, header []byte) {
		if !bareAddress(to) || !bareAddress(sender) {
			return
		}
		l := &letter{
			Entry:    Entry{Provider: kindSMTP, ProviderMessageID: "A1", From: "a@b.c", To: []string{to}, At: time.Unix(0, 0), Subject: string(header)},
			envelope: &envelope{sender: sender, header: headerOf(header)},
		}
		for _, w := range []what{wasBounced, wasSoftBounced, wasDeferred, wasDelivered} {
			h := &happening{of: l, what: w, to: l.To, at: time.Unix(1, 0)}
			for _, raw := range [][]byte{deliveryReport(h), feedbackReport(h)} {
				m, err := netmail.ReadMessage(bytes.NewReader(raw))
				if err != nil {
					t.Fatalf("report can't be read: %v", err)
				}
				if !strings.HasPrefix(m.Header.Get("Content-Type"), "multipart/report") {
					t.Errorf("content type = %q", m.Header.Get("Content-Type"))
				}
			}
		}
	})
}
