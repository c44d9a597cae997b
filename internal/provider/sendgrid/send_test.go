package sendgrid_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/provider/sendgrid"
)

// sent makes one call with the settings and returns what the server got.
func sent(t *testing.T, work *provider.Send, more ...func(*sendgrid.Config)) (map[string]any, http.Header) {
	t.Helper()
	var body map[string]any
	var header http.Header
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("decode request: %v", err)
		}
		accept("id").ServeHTTP(w, r)
	}))
	defer srv.Close()
	c := newClient(t, srv.URL, more...)
	defer c.Close()
	if _, err := c.Send(t.Context(), work); err != nil {
		t.Fatalf("Send: %v", err)
	}
	return body, header
}

func TestTrackingIsLeftToTheAccountUnlessSet(t *testing.T) {
	t.Parallel()
	body, _ := sent(t, providertest.PlainSend())
	if _, ok := body["tracking_settings"]; ok {
		t.Error("tracking_settings are sent though nothing is set")
	}
	on, off := true, false
	body, _ = sent(t, providertest.PlainSend(), func(c *sendgrid.Config) { c.Tracking = sendgrid.Tracking{Opens: &off, Clicks: &on} })
	want := map[string]any{
		"open_tracking":  map[string]any{"enable": false},
		"click_tracking": map[string]any{"enable": true, "enable_text": true},
	}
	if diff := cmp.Diff(want, body["tracking_settings"]); diff != "" {
		t.Errorf("tracking_settings (-want +got):\n%s", diff)
	}
}

func TestSettingsReachTheRequest(t *testing.T) {
	t.Parallel()
	body, header := sent(t, providertest.PlainSend(), func(c *sendgrid.Config) {
		c.Sandbox, c.Subuser, c.IPPool = true, "shop", "tx"
	})
	if got := header.Get("On-Behalf-Of"); got != "shop" {
		t.Errorf("On-Behalf-Of = %q, want shop", got)
	}
	if got := body["ip_pool_name"]; got != "tx" {
		t.Errorf("ip_pool_name = %v, want tx", got)
	}
	want := map[string]any{"sandbox_mode": map[string]any{"enable": true}}
	if diff := cmp.Diff(want, body["mail_settings"]); diff != "" {
		t.Errorf("mail_settings (-want +got):\n%s", diff)
	}
}

func TestSandboxAcceptsWith200(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	c := newClient(t, srv.URL, func(c *sendgrid.Config) { c.Sandbox = true })
	defer c.Close()
	_, err := c.Send(t.Context(), providertest.PlainSend())
	providertest.CheckClass(t, err, provider.Accepted)
}

// The SDK returns a response and an error then.
func TestAcceptanceSurvivesATruncatedBody(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"LRzX_m_A", ""} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if id != "" {
				w.Header().Set("X-Message-Id", id)
			}
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, "half")
		}))
		defer srv.Close()
		c := newClient(t, srv.URL)
		defer c.Close()
		r, err := c.Send(t.Context(), providertest.PlainSend())
		if id == "" {
			providertest.CheckClass(t, err, provider.Uncertain)
			continue
		}
		if err != nil || r.ProviderMessageID != id {
			t.Errorf("Send = %+v, %v, want id %s", r, err, id)
		}
	}
}

func TestMetadataCannotPoseAsAnEvent(t *testing.T) {
	t.Parallel()
	m := providertest.Plain()
	m.Metadata = map[string]string{"event": "bounce", "Email": "x@example.org", "sg_event_id": "1", "gw_msg": "forged", "order": "42"}
	body, _ := sent(t, &provider.Send{Message: m, To: m.To, Attempt: 1})
	want := map[string]any{"gw_msg": m.ID.String(), "order": "42"}
	if diff := cmp.Diff(want, body["custom_args"]); diff != "" {
		t.Errorf("custom_args (-want +got):\n%s", diff)
	}
}

func TestTagsBecomeAtMostTenDistinctCategories(t *testing.T) {
	t.Parallel()
	m := providertest.Plain()
	m.Tags = []string{"a", "b", "a", strings.Repeat("x", 256), "c", "d", "e", "f", "g", "h", "i", "j", "k"}
	body, _ := sent(t, &provider.Send{Message: m, To: m.To, Attempt: 1})
	want := []any{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	if diff := cmp.Diff(want, body["categories"]); diff != "" {
		t.Errorf("categories (-want +got):\n%s", diff)
	}
}

func TestHeadersThatSendGridWritesAreLeftOut(t *testing.T) {
	t.Parallel()
	m := providertest.Plain()
	m.Headers = []mail.Header{{Name: "message-id", Value: "<own@example.com>"}, {Name: "X-A", Value: "1"}, {Name: "X-SG-EID", Value: "1"}}
	body, _ := sent(t, &provider.Send{Message: m, To: m.To, Attempt: 1})
	want := map[string]any{"Message-ID": "<own@example.com>", "X-A": "1"}
	if diff := cmp.Diff(want, body["headers"]); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestSameMessageIDOnEveryAttempt(t *testing.T) {
	t.Parallel()
	m := providertest.Plain()
	first, _ := sent(t, &provider.Send{Message: m, To: m.To, Attempt: 1})
	second, _ := sent(t, &provider.Send{Message: m, To: m.To, Attempt: 2})
	if diff := cmp.Diff(first["headers"], second["headers"]); diff != "" {
		t.Errorf("headers differ between attempts:\n%s", diff)
	}
}

func TestWhatSendGridCannotCarryIsNotSent(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer srv.Close()
	c := newClient(t, srv.URL)
	defer c.Close()
	for name, change := range map[string]func(*mail.Message){
		"recipients":      func(m *mail.Message) { m.To = make([]mail.Address, 1001) },
		"metadata":        func(m *mail.Message) { m.Metadata = map[string]string{"k": strings.Repeat("v", 10_000)} },
		"repeated header": func(m *mail.Message) { m.Headers = []mail.Header{{Name: "X-A"}, {Name: "x-a"}} },
		"non-ASCII local": func(m *mail.Message) { m.To = []mail.Address{{Email: "žofie@example.org"}} },
		"size":            func(m *mail.Message) { m.Attachments = []mail.Attachment{{Content: make([]byte, 30_000_000)}} },
	} {
		m := providertest.Plain()
		change(m)
		_, err := c.Send(t.Context(), &provider.Send{Message: m, To: m.To, Attempt: 1})
		if perr := providertest.AsError(t, err); perr.Class != provider.Rejected || !perr.Elsewhere {
			t.Errorf("%s: %v, want rejected here and not elsewhere", name, err)
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("requests = %d, want none", n)
	}
}
