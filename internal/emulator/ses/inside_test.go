package ses

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/limit"
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
	if sub := opened(t).read(r, []byte(`{"destination":{"ToAddresses":["a@b.c"]}}`)); sub.Refused == nil || len(sub.To) != 0 {
		t.Errorf("the recipients %v of a misspelt field were read", sub.To)
	}
}

func FuzzBodies(f *testing.F) {
	f.Add([]byte(`{"FromEmailAddress":"a@b.c","Destination":{"ToAddresses":["a@b.c"]},"Content":{"Raw":{"Data":"QTogYg0KDQo="}}}`))
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

func TestThrottlingTellsTheDailyQuotaFromTheRate(t *testing.T) {
	t.Parallel()
	for per, want := range map[time.Duration]string{time.Second: "Maximum sending rate exceeded.", 24 * time.Hour: "Daily message quota exceeded."} {
		p := (*api)(nil).Throttled(&emulator.Full{Window: limit.Window{N: 1, Per: per, Unit: limit.Recipients}})
		if p.Status != 429 || !strings.Contains(string(p.Body), want) || p.Header["X-Amzn-Errortype"] != "TooManyRequestsException" {
			t.Errorf("throttled over %s = %d %s", per, p.Status, p.Body)
		}
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request, SignedHeaders=host, Signature=x")
	f.Fuzz(func(t *testing.T, text string) {
		if s, ok := parseAuthorization(text); ok && (s.keyID == "" || s.value == "") {
			t.Errorf("parsed %+v", s)
		}
	})
}

// The value is the number of repetitions; -1 stands for an answer that says that the receiver has it.
func TestAnswersAreUnderstoodAsDocumented(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		what   emulator.EventType
		status int
		want   int
	}{
		{emulator.Bounced, 200, -1},
		{emulator.Bounced, 204, -1},
		{emulator.Bounced, 302, 0},
		{emulator.Bounced, 404, 0},
		{emulator.Bounced, 500, 10},
		{emulator.Bounced, 0, 10},
	} {
		taken, pauses := (*api)(nil).Answered(&emulator.Post{Events: []emulator.Event{{Type: tc.what}}}, tc.status)
		got := len(pauses)
		if taken {
			got = -1
		}
		if got != tc.want {
			t.Errorf("%s answered %d: %d repetitions, want %d", tc.what, tc.status, got, tc.want)
		}
	}
}
