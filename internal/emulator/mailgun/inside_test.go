package mailgun

import (
	"net/http"
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

func TestThrottlingNamesTheUnit(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 1, 2, 3, 4, 5, 1, time.UTC)
	p := opened(t).Throttled(&emulator.Full{Window: limit.Window{N: 1, Per: time.Hour, Unit: limit.Recipients}, Until: until})
	if want := "recipient limit exceeded, try again after Fri, 02 Jan 2026 03:04:06 UTC"; !strings.Contains(string(p.Body), want) {
		t.Errorf("throttled = %s, want ...%s", p.Body, want)
	}
}

func FuzzForm(f *testing.F) {
	f.Add("application/x-www-form-urlencoded", []byte("from=a%40b.c&to=d%40e.f&text=x&v:gw_msg=1&recipient-variables={}"), false)
	f.Add("multipart/form-data; boundary=x", []byte("--x\r\nContent-Disposition: form-data; name=\"to\"\r\n\r\na@b.c\r\n"+
		"--x\r\nContent-Disposition: form-data; name=\"message\"; filename=\"m\"\r\n\r\nFrom: a@b.c\r\n\r\n\r\n--x--\r\n"), true)
	f.Fuzz(func(t *testing.T, contentType string, body []byte, isMIME bool) {
		form, err := parseForm(contentType, body)
		if err != nil {
			return
		}
		m, refused := form.mail(isMIME)
		if refused == nil && (len(m.to) == 0 || m.from == "" || len(m.messages("id")) == 0) {
			t.Errorf("accepted without sender or recipient: %+v", m)
		}
	})
}

func FuzzLookups(f *testing.F) {
	f.Add([]byte(`{"start":"Mon, 08 Jul 2024 00:00:00 -0000","filter":{"AND":[{"attribute":"domain","comparator":"=","values":[{"value":"x"}]}]}}`), "x")
	f.Add([]byte(`{"duration":"1d","pagination":{"token":"b2Zmc2V0OjE","limit":1}}`), page(3))
	a := opened(f)
	f.Fuzz(func(t *testing.T, body []byte, text string) {
		if s := a.searchLogs(nil, body); s.Refused == nil {
			if p := s.Show(nil); p.Status != http.StatusOK {
				t.Errorf("answer = %d", p.Status)
			}
		}
		if n, ok := parsePage(text); ok && n < 0 {
			t.Errorf("page %q is at %d", text, n)
		}
		_, _ = moment(text, time.Time{})
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
		{emulator.Delivered, 200, -1},
		{emulator.Bounced, 406, 0},
		{emulator.Bounced, 202, 6},
		{emulator.Bounced, 500, 6},
		{emulator.Bounced, 0, 6},
		{emulator.Delivered, 500, 0},
		{emulator.Delivered, 0, 0},
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
