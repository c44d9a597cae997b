package postmark

import (
	"net/http"
	"net/http/httptest"
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

func FuzzBodies(f *testing.F) {
	f.Add([]byte(`[{"From":"a@b.c","To":"d@e.f","TextBody":"x","Metadata":{"gw_msg":"1"}}]`))
	a := opened(f)
	r := httptest.NewRequest(http.MethodPost, "/email/batch", nil)
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
