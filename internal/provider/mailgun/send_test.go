package mailgun_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mailgun"
	"github.com/sendgate/sendgate/internal/provider/mime"
	"github.com/sendgate/sendgate/internal/provider/providertest"
)

// sent sends and returns the one request that arrived, or fails.
func sent(t *testing.T, s *provider.Send, more ...func(*mailgun.Config)) (form, *http.Request, provider.Receipt) {
	t.Helper()
	var (
		got   []form
		first *http.Request
	)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read request: %v", err)
		}
		f, err := parseForm(r, body)
		if err != nil {
			t.Errorf("parse request: %v", err)
		}
		got, first = append(got, f), r
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		accept(w, r)
	}))
	defer srv.Close()
	c := newClient(t, srv.URL, more...)
	defer c.Close()
	receipt, err := c.Send(t.Context(), s)
	if err != nil {
		t.Fatalf("Send: %v", err)
	}
	if len(got) != 1 {
		t.Fatalf("requests = %d, want 1", len(got))
	}
	return got[0], first, receipt
}

// refusedHere sends to a server that must not be called.
func refusedHere(t *testing.T, s *provider.Send) *provider.Error {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request was made") }))
	defer srv.Close()
	c := newClient(t, srv.URL)
	defer c.Close()
	_, err := c.Send(t.Context(), s)
	return providertest.AsError(t, err)
}

func TestSendCarriesOurBytesAndTheWholeEnvelope(t *testing.T) {
	t.Parallel()
	for _, sm := range providertest.Samples() {
		f, _, receipt := sent(t, sm.Send)
		want, err := mime.Build(sm.Send.Message)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(f.message)); diff != "" {
			t.Errorf("%s: message (-want +got):\n%s", sm.Name, diff)
		}
		var envelope []string
		for _, a := range sm.Send.Envelope() {
			envelope = append(envelope, a.Email)
		}
		if diff := cmp.Diff([]string{strings.Join(envelope, ", ")}, f.values.all("to")); diff != "" {
			t.Errorf("%s: to (-want +got):\n%s", sm.Name, diff)
		}
		if receipt.ProviderMessageID != sm.Send.Message.MessageID() {
			t.Errorf("%s: ProviderMessageID = %q, want our Message-ID %q", sm.Name, receipt.ProviderMessageID, sm.Send.Message.MessageID())
		}
		for _, name := range []string{"cc", "bcc", "subject", "text", "html", "h:X-Mailgun-Variables", "o:tracking-clicks"} {
			if got := f.values.all(name); len(got) != 0 {
				t.Errorf("%s: %s = %q, want it absent", sm.Name, name, got)
			}
		}
	}
}

func TestOneThousandRecipientsGoInOneCall(t *testing.T) {
	t.Parallel()
	m := providertest.Plain()
	m.To = nil
	for i := range 1000 {
		m.To = append(m.To, mail.Address{Email: fmt.Sprintf("u%d@example.org", i)})
	}
	f, _, _ := sent(t, &provider.Send{Message: m, To: m.To})
	if to := f.values.all("to"); len(to) != 1 || strings.Count(to[0], "@") != 1000 {
		t.Errorf("to = %d fields, want one with 1000 addresses", len(to))
	}
	m.To = append(m.To, mail.Address{Email: "one@example.org"})
	if perr := refusedHere(t, &provider.Send{Message: m, To: m.To}); perr.Class != provider.Rejected || !perr.Elsewhere {
		t.Errorf("1001 recipients: %+v, want rejected here only", perr)
	}
	if f, _, _ := sent(t, &provider.Send{Message: m, To: m.To[:5]}); strings.Count(f.values.first("to"), "@") != 5 {
		t.Error("an attempt for the five left of 1001 was not made")
	}
}

func TestTagsStayWithinMailgunsCaps(t *testing.T) {
	t.Parallel()
	m := providertest.Plain()
	m.Tags = []string{"", strings.Repeat("x", 129), "größe", "a", strings.Repeat("y", 128), "b", "c", "d"}
	f, _, _ := sent(t, &provider.Send{Message: m, To: m.To})
	if diff := cmp.Diff([]string{"a", strings.Repeat("y", 128), "b"}, f.values.all("o:tag")); diff != "" {
		t.Errorf("o:tag (-want +got):\n%s", diff)
	}
}

func TestMetadataArrivesUnchanged(t *testing.T) {
	t.Parallel()
	m := providertest.Plain()
	m.Metadata = map[string]string{
		"html": `<a href="x">&'</a>`, "quote": `"quoted" \ and \u003c`, "unicode": "žluť 🐎 \u2028", "json": `{"a":[1,2]}`, "number": "42",
		"lines": "a\nb\tc", "empty": "", provider.MessageKey: "forged",
	}
	f, _, _ := sent(t, &provider.Send{Message: m, To: m.To})
	for k, want := range m.Metadata {
		if k == provider.MessageKey {
			want = m.ID.String()
		}
		if got := f.values.all("v:" + k); len(got) != 1 || got[0] != want {
			t.Errorf("v:%s = %q, want %q once", k, got, want)
		}
	}
}

func TestParametersOverSixteenKilobytesAreRefusedHere(t *testing.T) {
	t.Parallel()
	m := providertest.Plain()
	m.Tags = []string{strings.Repeat("t", 128), strings.Repeat("u", 128), strings.Repeat("v", 128)}
	m.Metadata = map[string]string{}
	for i := range 200 {
		m.Metadata[fmt.Sprintf("key-%03d", i)] = strings.Repeat("x", 75)
	}
	perr := refusedHere(t, &provider.Send{Message: m, To: m.To})
	if perr.Class != provider.Rejected || !perr.Elsewhere {
		t.Errorf("over the cap: %+v, want rejected here only", perr)
	}
	// Routing lets messages through that are below the capability; the exact count includes the prefixes.
	m.Metadata = map[string]string{"k": strings.Repeat("x", mailgun.Spec().Capabilities.MaxMetadataBytes-len(`{"k":""}`))}
	sent(t, &provider.Send{Message: m, To: m.To})
	facts := m.Facts()
	m.Metadata["k"] += "x"
	over := m.Facts()
	if can := mailgun.Spec().Capabilities; can.Refuse(&facts) != "" || can.Refuse(&over) == "" {
		t.Error("the capability does not draw the line that was tested")
	}
}

func TestUnsendableMessagesAreRefusedHere(t *testing.T) {
	t.Parallel()
	forged := providertest.Plain()
	forged.Subject = "a\r\nBcc: x@y.z"
	utf8 := providertest.Plain()
	utf8.To = []mail.Address{{Email: "jürgen@example.org"}}
	big := providertest.Plain()
	big.Attachments = []mail.Attachment{{Filename: "a", Content: make([]byte, 19_000_000)}}
	for name, c := range map[string]struct {
		m         *mail.Message
		elsewhere bool
	}{"header injection": {forged, false}, "non-ASCII local part": {utf8, true}, "size": {big, true}} {
		perr := refusedHere(t, &provider.Send{Message: c.m, To: c.m.To})
		if perr.Class != provider.Rejected || perr.Elsewhere != c.elsewhere {
			t.Errorf("%s: %+v, want rejected with Elsewhere = %t", name, perr, c.elsewhere)
		}
	}
}

func TestOptionsAreSentOnlyWhenSet(t *testing.T) {
	t.Parallel()
	options := func(f form) []string {
		var out []string
		for _, kv := range f.values {
			if strings.HasPrefix(kv[0], "o:") {
				out = append(out, kv[0]+"="+kv[1])
			}
		}
		slices.Sort(out)
		return out
	}
	f, r, _ := sent(t, providertest.PlainSend())
	if got := options(f); len(got) != 0 {
		t.Errorf("options by default = %q, want none", got)
	}
	if got := r.Header.Get("X-Mailgun-On-Behalf-Of"); got != "" {
		t.Errorf("X-Mailgun-On-Behalf-Of by default = %q", got)
	}
	yes, no := true, false
	f, r, _ = sent(t, providertest.PlainSend(), func(c *mailgun.Config) {
		c.TestMode, c.Tracking.Opens, c.Tracking.Clicks, c.Subaccount = true, &no, &yes, "646d00a1b32c35364a2ad34f"
	})
	if diff := cmp.Diff([]string{"o:testmode=yes", "o:tracking-clicks=yes", "o:tracking-opens=no"}, options(f)); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	if got := r.Header.Get("X-Mailgun-On-Behalf-Of"); got != "646d00a1b32c35364a2ad34f" {
		t.Errorf("X-Mailgun-On-Behalf-Of = %q", got)
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	requests := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer srv.Close()
	c := newClient(t, srv.URL)
	defer c.Close()
	_, err := c.Send(context.Background(), providertest.PlainSend())
	providertest.CheckClass(t, err, provider.Misconfigured)
	if requests != 1 {
		t.Errorf("requests = %d, want 1", requests)
	}
}
