package sendgrid_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
)

// news is a mail to one recipient, which has its content in common with others.
func news(i int, change ...func(*mail.Message)) *provider.Send {
	m := providertest.Numbered(i).Message
	m.Subject, m.Text, m.HTML, m.Metadata = "News", "All of it.", "", map[string]string{"customer": string(rune('a' + i))}
	m.To = []mail.Address{{Email: string(rune('a'+i)) + "@example.org"}}
	for _, f := range change {
		f(m)
	}
	return &provider.Send{Message: m, To: m.To, Cc: m.Cc, Bcc: m.Bcc, Attempt: 1}
}

// sendTogether makes one call and returns the outcomes and the request.
func sendTogether(t *testing.T, status int, answer string, all ...*provider.Send) ([]provider.Outcome, []byte) {
	t.Helper()
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		if status == http.StatusAccepted {
			w.Header().Set("X-Message-Id", "14c5d75ce93.dfd.64b469")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	defer srv.Close()
	c := newClient(t, srv.URL)
	defer c.Close()
	return c.SendBatch(t.Context(), all), body
}

func TestWhatDiffersTravelsInPersonalizations(t *testing.T) {
	t.Parallel()
	withHeader := func(m *mail.Message) {
		m.Headers = []mail.Header{{Name: "List-Unsubscribe", Value: "<https://example.com/u/1>"}}
	}
	bccOnly := news(2)
	bccOnly.To, bccOnly.Bcc = nil, []mail.Address{{Email: "x@example.org"}, {Email: "y@example.org"}}
	_, body := sendTogether(t, http.StatusAccepted, "", news(0), news(1, withHeader), bccOnly)
	var m map[string]any
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	if m["headers"] != nil || m["custom_args"] != nil || strings.Count(string(body), "All of it.") != 1 {
		t.Errorf("request = %s, want one content, and headers and custom_args only in the personalizations", body)
	}
	var got []string
	for _, p := range personalizationsOf(body) {
		got = append(got, p.To[0].Email+" "+p.CustomArgs["customer"]+" "+p.Headers["List-Unsubscribe"])
		if id := p.CustomArgs["gw_msg"]; p.Headers["Message-ID"] != "<"+id+"@example.com>" {
			t.Errorf("message %s has the Message-ID %s", id, p.Headers["Message-ID"])
		}
	}
	want := []string{"a@example.org a ", "b@example.org b <https://example.com/u/1>", "x@example.org c ", "y@example.org c "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("personalizations (-want +got):\n%s", diff)
	}
}

func TestARefusalMeetsTheMessagesThatItNames(t *testing.T) {
	t.Parallel()
	errs := func(fields ...string) string {
		var all []string
		for _, f := range fields {
			all = append(all, `{"message":"bad","field":"`+f+`","help":null}`)
		}
		return `{"errors":[` + strings.Join(all, ",") + `]}`
	}
	const again, alone = "transient, again", "transient"
	for name, tc := range map[string]struct {
		status int
		answer string
		all    []*provider.Send
		want   []string
	}{
		"a recipient":             {400, errs("personalizations.1.to.0.email"), nil, []string{again, "bad_recipient", again}},
		"two recipients":          {400, errs("personalizations.2.to.0.email", "personalizations.0.to.0.email"), nil, []string{"bad_recipient", again, "bad_recipient"}},
		"another thing of one":    {400, errs("personalizations.2.headers"), nil, []string{again, again, "rejected"}},
		"the content":             {400, errs("content.0.value"), nil, []string{alone, alone, alone}},
		"one and the content":     {400, errs("personalizations.1.to.0.email", "subject"), nil, []string{alone, alone, alone}},
		"nobody knows what":       {400, "Bad Request", nil, []string{alone, alone, alone}},
		"no such message":         {400, errs("personalizations.3.to"), nil, []string{alone, alone, alone}},
		"the size":                {413, errs(""), nil, []string{alone, alone, alone}},
		"the key":                 {401, errs(""), nil, []string{"misconfigured", "misconfigured", "misconfigured"}},
		"a sender":                {403, `{"errors":[{"message":"The from address does not match a verified Sender Identity.","field":"from"}]}`, nil, []string{"misconfigured", "misconfigured", "misconfigured"}},
		"the rate":                {429, errs(""), nil, []string{"throttled", "throttled", "throttled"}},
		"a message of two, later": {400, errs("personalizations.2.to.0.email"), []*provider.Send{news(0), bccTo("x@example.org", "y@example.org"), news(3)}, []string{again, "bad_recipient", again}},
		"the same recipient":      {202, "", []*provider.Send{news(0), news(1, func(m *mail.Message) { m.To[0].Email = "A@example.org" }), news(2)}, []string{"accepted", again, "accepted"}},
		"another content":         {202, "", []*provider.Send{news(0), news(1, func(m *mail.Message) { m.Text = "Else." }), news(2)}, []string{"accepted", alone, "accepted"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := tc.all
			if all == nil {
				all = []*provider.Send{news(0), news(1), news(2)}
			}
			outcomes, _ := sendTogether(t, tc.status, tc.answer, all...)
			var got []string
			for _, o := range outcomes {
				is := string(provider.Accepted)
				if perr := (*provider.Error)(nil); errors.As(o.Err, &perr) {
					if is = string(perr.Class); perr.Again {
						is += ", again"
					}
				}
				got = append(got, is)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
		})
	}
}

// bccTo is a message whose recipients must not see each other.
func bccTo(emails ...string) *provider.Send {
	s := news(1)
	s.To = nil
	for _, e := range emails {
		s.Bcc = append(s.Bcc, mail.Address{Email: e})
	}
	return s
}
