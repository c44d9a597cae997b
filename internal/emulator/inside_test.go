package emulator

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// noConn is a connection that is only asked for its peer.
type noConn struct{ net.Conn }

func (noConn) RemoteAddr() net.Addr { return &net.UnixAddr{Name: "@", Net: "unix"} }

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
	if got := gravest([]string{"open@x", "a@x", "bounce@x", "click@x"}); got != outcomeBounce {
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
		if got := bareAddress(s); got != want {
			t.Errorf("bareAddress(%q) = %t", s, got)
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
	if err := l.append([]Entry{{Provider: kindSES}}); err != nil {
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
		if err := l.append([]Entry{{Provider: kindSES}}); err == nil {
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

func TestFieldNamesAreCaseSensitive(t *testing.T) {
	t.Parallel()
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header.Set("Content-Type", "application/json")
	for name, sub := range map[string]*submission{
		"sendgrid": sendGrid{e}.read(r, []byte(`{"Personalizations":[{"to":[{"email":"a@b.c"}]}]}`)),
		"ses":      ses{e}.read(r, []byte(`{"destination":{"ToAddresses":["a@b.c"]}}`)),
	} {
		if sub.refused == nil || len(sub.to) != 0 {
			t.Errorf("%s read the recipients %v of a misspelt field", name, sub.to)
		}
	}
}

func FuzzMailgunForm(f *testing.F) {
	f.Add("application/x-www-form-urlencoded", []byte("from=a%40b.c&to=d%40e.f&text=x&v:gw_msg=1&recipient-variables={}"), false)
	f.Add("multipart/form-data; boundary=x", []byte("--x\r\nContent-Disposition: form-data; name=\"to\"\r\n\r\na@b.c\r\n"+
		"--x\r\nContent-Disposition: form-data; name=\"message\"; filename=\"m\"\r\n\r\nFrom: a@b.c\r\n\r\n\r\n--x--\r\n"), true)
	f.Fuzz(func(t *testing.T, contentType string, body []byte, isMIME bool) {
		form, err := parseMailgunForm(contentType, body)
		if err != nil {
			return
		}
		m, refused := form.mail(isMIME)
		if refused == nil && (len(m.to) == 0 || m.from == "" || len(m.entries("id")) == 0) {
			t.Errorf("accepted without sender or recipient: %+v", m)
		}
	})
}

func FuzzJSONBodies(f *testing.F) {
	f.Add([]byte(`{"personalizations":[{"to":[{"email":"a@b.c"}]}],"from":{"email":"a@b.c"},"subject":"s","content":[{"type":"a","value":"b"}]}`))
	f.Add([]byte(`[{"From":"a@b.c","To":"d@e.f","TextBody":"x","Metadata":{"gw_msg":"1"}}]`))
	f.Add([]byte(`{"FromEmailAddress":"a@b.c","Destination":{"ToAddresses":["a@b.c"]},"Content":{"Raw":{"Data":"QTogYg0KDQo="}}}`))
	e, err := New(Options{})
	if err != nil {
		f.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/postmark/email", nil)
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Content-Type", "application/json")
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, sub := range []*submission{
			sendGrid{e}.read(r, body), postmark{e}.read(r, body), postmark{e}.readBatch(body, false), ses{e}.read(r, body),
		} {
			if sub.refused == nil && sub.accepted == nil {
				t.Error("neither refused nor accepted")
			}
			for _, n := range sub.entries {
				if sub.refused == nil && (len(n.To) == 0 || n.From == "" || n.ProviderMessageID == "") {
					t.Errorf("accepted without sender, recipient or id: %+v", n)
				}
			}
			if sub.degrade != nil {
				sub.degrade(&Fault{Mode: modePartial})
			}
		}
	})
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

func FuzzHeads(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request, SignedHeaders=host, Signature=x", []byte("From: a@b.c\r\nSubject: =?utf-8?q?x?=\r\n\r\n"))
	f.Add(`{"ses":[{"mode":"error","status":500}]}`, []byte("To: undisclosed-recipients:;\n\n"))
	f.Fuzz(func(t *testing.T, text string, mime []byte) {
		if s, ok := parseAuthorization(text); ok && (s.keyID == "" || s.value == "") {
			t.Errorf("parsed %+v", s)
		}
		if h, err := readMIMEHead(mime); err == nil && h.from != "" && !bareAddress(h.from) {
			t.Errorf("from = %q", h.from)
		}
		if all, err := decodeScript(bytes.NewReader([]byte(text))); err == nil {
			newScript().set(all)
		}
		if ec, ok := parseEnhanced(text); ok && (ec[0] < 0 || ec[0] > 999) {
			t.Errorf("enhanced code = %v", ec)
		}
	})
}
