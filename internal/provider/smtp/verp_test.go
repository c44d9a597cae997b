package smtp

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestBounceAddressHoldsTheMessageID(t *testing.T) {
	t.Parallel()
	v := newVERP(verpConfig(t, nil))
	id := mail.NewID()
	addr := v.address(id)
	local, _, _ := strings.Cut(addr, "@")
	if len(local) != 45 || !strings.HasPrefix(addr, "b+"+strings.ReplaceAll(id.String(), "-", "")+".") || !isEnvelopeFrom(addr) {
		t.Errorf("address = %s", addr)
	}
	if got, ok := v.open(addr); !ok || got != id {
		t.Errorf("open = %s, %v, want %s", got, ok, id)
	}
	longest := newVERP(verpConfig(t, func(c *Config) { c.BounceDomain = strings.Repeat("a.", 99) + "aa" }))
	if n := len(longest.address(id)); n > 254 {
		t.Errorf("an address of the longest domain has %d characters", n)
	}
}

// TestBounceAddressStaysTheSame checks the form of bounce addresses. Mail with this form is in queues everywhere, so a change
// would lose bounces.
func TestBounceAddressStaysTheSame(t *testing.T) {
	t.Parallel()
	id, err := mail.ParseID("019ab4f0-0000-7000-8000-000000000001")
	if err != nil {
		t.Fatal(err)
	}
	const want = "b+019ab4f0000070008000000000000001.pbqmz7dgpi@bounces.example.com"
	if got := newVERP(verpConfig(t, nil)).address(id); got != want {
		t.Errorf("address = %s, want %s", got, want)
	}
}

func TestSendLeavesWithABounceAddress(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		extra  map[string]any
		ehlo   []string
		params string // of MAIL FROM, "@" being the message's id
		rcpt   string
	}{
		"dsn": {
			ehlo: []string{"relay.test", "DSN"}, params: " RET=HDRS ENVID=@",
			rcpt: "RCPT TO:<ann@example.org> NOTIFY=FAILURE,DELAY ORCPT=RFC822;ann@example.org",
		},
		"success": {
			extra: map[string]any{"notify_success": true}, ehlo: []string{"relay.test", "DSN"}, params: " RET=HDRS ENVID=@",
			rcpt: "RCPT TO:<ann@example.org> NOTIFY=FAILURE,DELAY,SUCCESS ORCPT=RFC822;ann@example.org",
		},
		"no dsn": {ehlo: []string{"relay.test", "8BITMIME"}, rcpt: "RCPT TO:<ann@example.org>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startRelay(t, func(r *relay) { r.ehlo = tc.ehlo })
			extra := map[string]any{"bounce_domain": "Bounces.Example.com."}
			for k, v := range tc.extra {
				extra[k] = v
			}
			c := r.clientWith(r.config(map[string]seal.Secret{"verp_key": seal.NewSecret(testVERPKey)}, extra))
			m := message("ann@example.org")
			_, perr := send(deadline(t), t, c, m)
			wantClass(t, "send", perr, provider.Accepted)
			want := "MAIL FROM:<" + c.verp.address(m.ID) + ">" + strings.Replace(tc.params, "@", m.ID.String(), 1)
			if got := r.said("MAIL"); len(got) != 1 || !strings.HasPrefix(got[0], "MAIL FROM:<"+c.verp.address(m.ID)+">") || strings.Replace(got[0], " BODY=8BITMIME", "", 1) != want {
				t.Errorf("sender: %q, want %q", got, want)
			}
			if diff := cmp.Diff([]string{tc.rcpt}, r.said("RCPT")); diff != "" {
				t.Errorf("recipient (-want +got):\n%s", diff)
			}
			if !strings.Contains(r.bodies[0], "\r\nFrom: \"Shop\" <shop@example.com>\r\n") && !strings.Contains(r.bodies[0], "\r\nFrom: Shop <shop@example.com>\r\n") {
				t.Errorf("From changed:\n%s", r.bodies[0])
			}
		})
	}
}

func TestBounceSettings(t *testing.T) {
	t.Parallel()
	key := map[string]seal.Secret{"verp_key": seal.NewSecret(testVERPKey)}
	for name, tc := range map[string]struct {
		raw     string
		secrets map[string]seal.Secret
		want    string
	}{
		"good":                  {`{"host":"127.0.0.1","bounce_domain":"b.example.com","notify_success":true}`, key, ""},
		"no key":                {`{"host":"127.0.0.1","bounce_domain":"b.example.com"}`, nil, "verp_key"},
		"key alone":             {`{"host":"127.0.0.1"}`, key, ""}, // turned off: a secret can't be taken back
		"short key":             {`{"host":"127.0.0.1","bounce_domain":"b.example.com"}`, map[string]seal.Secret{"verp_key": seal.NewSecret(testVERPKey[1:])}, "32"},
		"not a domain":          {`{"host":"127.0.0.1","bounce_domain":"b@example.com"}`, key, "bounce_domain"},
		"too long":              {`{"host":"127.0.0.1","bounce_domain":"` + strings.Repeat("a.", 101) + `a"}`, key, "bounce_domain"},
		"two bounce addresses":  {`{"host":"127.0.0.1","bounce_domain":"b.example.com","envelope_from":"x@example.com"}`, key, "envelope_from"},
		"reports come nowhere":  {`{"host":"127.0.0.1","notify_success":true}`, nil, "notify_success"},
		"http for nothing":      {`{"host":"127.0.0.1","reports_by_http":true}`, nil, "reports_by_http"},
		"by http":               {`{"host":"127.0.0.1","bounce_domain":"b.example.com","reports_by_http":true}`, key, ""},
		"reports go to another": {`{"host":"127.0.0.1","notify_success":true,"envelope_from":"x@example.com"}`, nil, "notify_success"},
	} {
		_, err := ParseConfig([]byte(tc.raw), tc.secrets)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: err = %v, want one about %q", name, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), testVERPKey[1:]) {
			t.Errorf("%s: the error shows the key", name)
		}
	}
}

// FuzzVERP checks that an address which opens was made by us: its MAC is that of its id.
func FuzzVERP(f *testing.F) {
	v := newVERP(Config{BounceDomain: "bounces.example.com", VERPKey: seal.NewSecret(testVERPKey)})
	f.Add(v.address(mail.NewID()))
	f.Add("b+" + strings.Repeat("0", 32) + ".aaaaaaaaaa@bounces.example.com")
	f.Add("B+@bounces.example.com")
	f.Add("text b+" + strings.Repeat("f", 32) + ".2222222222@bounces.example.com text")
	f.Fuzz(func(t *testing.T, addr string) {
		if id, ok := v.open(addr); ok && strings.ToLower(addr) != v.address(id) {
			t.Errorf("open(%q) = %s, whose address is %s", addr, id, v.address(id))
		}
		if found, id, ok := v.search([]byte(addr)); ok && (!strings.EqualFold(found, v.address(id)) || !strings.Contains(addr, found)) {
			t.Errorf("search(%q) = %q, %s", addr, found, id)
		}
		if len(addr) >= 16 {
			id := mail.ID([]byte(addr[:16]))
			if got, ok := v.open(v.address(id)); !ok || got != id {
				t.Errorf("open(address(%s)) = %s, %v", hex.EncodeToString(id[:]), got, ok)
			}
		}
	})
}

// FuzzDSN checks that any bytes become events that the store can keep, the same ones each time, and that the events of a
// payload are those that its kept form gives.
func FuzzDSN(f *testing.F) {
	c := verpClient(f)
	id := mail.IDAt(sentAt)
	addr := c.verp.address(id)
	for name := range reports {
		f.Add(fixture(f, name, addr))
	}
	f.Add(fixture(f, "vacation", addr))
	cases, err := os.Open("testdata/cases.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	defer cases.Close() //nolint:errcheck // only read
	for d := json.NewDecoder(cases); d.More(); {
		var c struct{ Mail string }
		if err := d.Decode(&c); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(strings.ReplaceAll(c.Mail, "@VERP@", addr)))
	}
	f.Add([]byte("Content-Type: multipart/report; boundary=\"\"\r\n\r\n----\r\nContent-Type: message/delivery-status\r\n\r\nStatus: 5\r\n----"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > provider.MaxHook {
			return
		}
		b, err := c.Receive(t.Context(), &provider.Hook{Body: raw, Now: receivedAt, RcptTo: addr})
		if err == nil && b.Note != "" && len(b.Payloads) == 0 {
			for _, e := range c.Parse(raw) { // as one that was kept before is read again
				if e.Type == mail.EventBounced || e.Type == mail.EventComplained {
					t.Fatalf("%s: %s", b.Note, line(e))
				}
			}
			return
		}
		if err != nil || len(b.Payloads) != 1 || len(b.Payloads[0].Raw) > provider.MaxHook {
			t.Fatalf("Receive = %d payloads, %v", len(b.Payloads), err)
		}
		events := b.Payloads[0].Events
		if diff := cmp.Diff(events, c.Parse(b.Payloads[0].Raw)); diff != "" {
			t.Errorf("read again (-want +got):\n%s", diff)
		}
		if len(events) == 0 || len(events) > maxSettled {
			t.Fatalf("events = %d", len(events))
		}
		for i := range events {
			checkEvent(t, &events[i], id)
		}
	})
}

func checkEvent(t *testing.T, e *mail.Event, id mail.ID) {
	t.Helper()
	if e.MessageID != id || e.UniqueID == "" || e.Name == "" && e.Type != mail.EventUnmapped {
		t.Errorf("event %+v lacks what it is about", e)
	}
	if e.At.Before(sentAt.AddDate(0, 0, -1)) || e.At.After(receivedAt.AddDate(0, 0, 1)) {
		t.Errorf("at = %s", e.At)
	}
	needsBounce := e.Type == mail.EventBounced || e.Type == mail.EventDeferred
	if (e.Bounce != nil) != needsBounce {
		t.Errorf("%s with bounce %+v", e.Type, e.Bounce)
	}
	if e.Recipient != "" && canonical(e.Recipient) != e.Recipient {
		t.Errorf("recipient %q is not canonical", e.Recipient)
	}
	if b := e.Bounce; b != nil && (b.Class != b.Reason.Class() || b.Class == "" || len(b.Text) > provider.MaxDetail || e.Type == mail.EventDeferred && b.Class == mail.Hard) {
		t.Errorf("%s with bounce %+v", e.Type, b)
	}
	for _, s := range []string{e.Name, e.Detail, e.Recipient} {
		if strings.ToValidUTF8(s, "") != s || strings.ContainsRune(s, 0) || len(s) > provider.MaxDetail {
			t.Errorf("%q can't be stored", s)
		}
	}
}
