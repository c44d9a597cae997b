package sendgrid

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/emulator"
)

// opened is the provider of an emulator that is not started.
func opened(t testing.TB) *api {
	t.Helper()
	var p emulator.Provider
	k := Kind()
	k.New = func(h *emulator.Host) (_ emulator.Provider, err error) {
		p, err = open(h)
		return p, err
	}
	if _, err := emulator.New([]emulator.Kind{k}, emulator.Options{}); err != nil {
		t.Fatal(err)
	}
	return p.(*api)
}

func TestFieldNamesAreCaseSensitive(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header.Set("Content-Type", "application/json")
	if sub := opened(t).read(r, []byte(`{"Personalizations":[{"to":[{"email":"a@b.c"}]}]}`)); sub.Refused == nil || len(sub.To) != 0 {
		t.Errorf("the recipients %v of a misspelt field were read", sub.To)
	}
}

func FuzzBodies(f *testing.F) {
	f.Add([]byte(`{"personalizations":[{"to":[{"email":"a@b.c"}]}],"from":{"email":"a@b.c"},"subject":"s","content":[{"type":"a","value":"b"}]}`))
	a := opened(f)
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Content-Type", "application/json")
	f.Fuzz(func(t *testing.T, body []byte) {
		sub := a.read(r, body)
		if sub.Refused == nil && sub.Accepted == nil {
			t.Error("neither refused nor accepted")
		}
		for _, m := range sub.Messages {
			if sub.Refused == nil && (len(m.To) == 0 || m.From == "" || m.ProviderMessageID == "") {
				t.Errorf("accepted without sender, recipient or id: %+v", m)
			}
		}
		if sub.Degrade != nil {
			sub.Degrade(&emulator.Fault{Mode: emulator.ModePartial})
		}
	})
}

func FuzzQuery(f *testing.F) {
	f.Add(`to_email = 'a@b.c' AND sg_message_id_created_at > TIMESTAMP "2025-01-01T00:00:00Z" AND status IN ('a', 'b')`)
	f.Add(`subject='it''s' AND reason="x"`)
	f.Fuzz(func(t *testing.T, s string) {
		q, ok := parseQuery(s)
		if ok && strings.TrimSpace(s) != "" && len(q.equal)+len(q.in)+len(q.times) == 0 {
			t.Errorf("%q is taken and asks for nothing", s)
		}
	})
}
