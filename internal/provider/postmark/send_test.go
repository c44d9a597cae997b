package postmark_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/postmark"
	"github.com/sendgate/sendgate/internal/provider/providertest"
)

// sent makes one call with the settings and returns what the server got.
func sent(t *testing.T, work *provider.Send, more ...func(*postmark.Config)) map[string]any {
	t.Helper()
	var body map[string]any
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("decode request: %v", err)
		}
		accept(w, r)
	}))
	defer srv.Close()
	c := newClient(t, srv.URL, more...)
	defer c.Close()
	if _, err := c.Send(t.Context(), work); err != nil {
		t.Fatalf("Send: %v", err)
	}
	return body
}

func plain(change func(*mail.Message)) *provider.Send {
	m := providertest.Plain()
	change(m)
	return &provider.Send{Message: m, To: m.To, Cc: m.Cc, Bcc: m.Bcc, Attempt: 1}
}

func TestTrackingIsLeftToTheServerUnlessSet(t *testing.T) {
	t.Parallel()
	body := sent(t, providertest.PlainSend())
	if body["TrackOpens"] != nil || body["TrackLinks"] != nil {
		t.Errorf("TrackOpens %v, TrackLinks %v though nothing is set", body["TrackOpens"], body["TrackLinks"])
	}
	on, off := true, false
	body = sent(t, providertest.PlainSend(), func(c *postmark.Config) { c.Tracking = postmark.Tracking{Opens: &off, Clicks: &on} })
	if body["TrackOpens"] != false || body["TrackLinks"] != "HtmlAndText" {
		t.Errorf("TrackOpens %v, TrackLinks %v, want false and HtmlAndText", body["TrackOpens"], body["TrackLinks"])
	}
	body = sent(t, providertest.PlainSend(), func(c *postmark.Config) { c.Tracking.Clicks = &off })
	if body["TrackLinks"] != "None" {
		t.Errorf("TrackLinks %v, want None", body["TrackLinks"])
	}
}

func TestStreamsAreTranslated(t *testing.T) {
	t.Parallel()
	configure := func(c *postmark.Config) {
		c.MessageStream, c.Streams = "receipts", map[string]string{"bulk": "broadcasts"}
	}
	for ours, want := range map[string]string{"bulk": "broadcasts", "transactional": "receipts"} {
		body := sent(t, plain(func(m *mail.Message) { m.Stream = ours }), configure)
		if body["MessageStream"] != want {
			t.Errorf("stream %s goes to %v, want %s", ours, body["MessageStream"], want)
		}
	}
}

// Each result of a batch is read as the answer to a call of its own. Without a result for each message, nothing is known.
func TestEachResultOfABatchIsItsMessages(t *testing.T) {
	t.Parallel()
	const ok = `{"MessageID":"0a129aee-e1cd-480d-b08d-4f48548ff48d","ErrorCode":0,"Message":"OK"}`
	inactive := fault(406, "You tried to send to recipient(s) that have been marked as inactive.\nFound inactive addresses: bob@example.org.")
	for name, tc := range map[string]struct {
		status int
		answer string
		want   []provider.Class
	}{
		"all are taken":                {200, "[" + ok + "," + ok + "]", []provider.Class{provider.Accepted, provider.Accepted}},
		"one is refused":               {200, "[" + fault(300, "Invalid 'subject'") + "," + ok + "]", []provider.Class{provider.Rejected, provider.Accepted}},
		"one is inactive":              {200, "[" + ok + "," + inactive + "]", []provider.Class{provider.Accepted, provider.BadRecipient}},
		"credits end on the way":       {200, "[" + ok + "," + fault(405, "Not allowed to send") + "]", []provider.Class{provider.Accepted, provider.Misconfigured}},
		"one result lacks its code":    {200, "[" + `{"MessageID":"0a129aee-e1cd-480d-b08d-4f48548ff48d","Message":"OK"}` + "," + inactive + "]", []provider.Class{provider.Accepted, provider.BadRecipient}},
		"a result is missing":          {200, "[" + ok + "]", []provider.Class{provider.Uncertain, provider.Uncertain}},
		"one result for all":           {200, ok, []provider.Class{provider.Uncertain, provider.Uncertain}},
		"one result is no JSON object": {200, "[" + ok + ",17]", []provider.Class{provider.Accepted, provider.Uncertain}},
		"the batch is too large":       {413, "", []provider.Class{provider.Transient, provider.Transient}},
		"the batch is refused":         {422, fault(402, "Invalid JSON"), []provider.Class{provider.Transient, provider.Transient}},
		"a sender is unknown":          {422, fault(400, "Sender signature not found"), []provider.Class{provider.Transient, provider.Transient}},
		"the key is wrong":             {401, fault(10, "Bad or missing Server API token."), []provider.Class{provider.Misconfigured, provider.Misconfigured}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if strings.Contains(tc.answer, "406") {
					w.Header().Set("X-Pm-Apierrorcode", "406")
				}
				w.WriteHeader(tc.status)
				_, _ = w.Write([]byte(tc.answer))
			}))
			defer srv.Close()
			c := newClient(t, srv.URL)
			defer c.Close()
			outcomes := c.SendBatch(t.Context(), []*provider.Send{plain(func(*mail.Message) {}), plain(func(m *mail.Message) { m.To[0].Email = "bob@example.org" })})
			for i, want := range tc.want {
				providertest.CheckClass(t, outcomes[i].Err, want)
			}
		})
	}
}

// If only one Bcc is left, it becomes the To. Several are never put where they could read each other's address.
func TestBccRecipientsNeverSeeEachOther(t *testing.T) {
	t.Parallel()
	bcc := []mail.Address{{Email: "dave@example.org"}, {Email: "erin@example.org"}}
	one := sent(t, &provider.Send{Message: providertest.Plain(), Bcc: bcc[:1], Attempt: 2})
	if one["To"] != "dave@example.org" || one["Cc"] != nil || one["Bcc"] != nil {
		t.Errorf("one left: To %v, Cc %v, Bcc %v", one["To"], one["Cc"], one["Bcc"])
	}
	both := sent(t, &provider.Send{Message: providertest.Plain(), Bcc: bcc, Attempt: 2})
	if both["To"] != nil || both["Cc"] != nil || both["Bcc"] != "dave@example.org, erin@example.org" {
		t.Errorf("two left: To %v, Cc %v, Bcc %v", both["To"], both["Cc"], both["Bcc"])
	}
}

func TestNamesAreQuoted(t *testing.T) {
	t.Parallel()
	body := sent(t, plain(func(m *mail.Message) {
		m.To = []mail.Address{{Email: "a@example.org", Name: `Smith, "Al" \ Co`}, {Email: "b@example.org"}}
	}))
	if want := `"Smith, \"Al\" \\ Co" <a@example.org>, b@example.org`; body["To"] != want {
		t.Errorf("To = %v, want %s", body["To"], want)
	}
}

func TestOneTagTravels(t *testing.T) {
	t.Parallel()
	body := sent(t, plain(func(m *mail.Message) { m.Tags = []string{"first", "second"} }))
	if body["Tag"] != "first" {
		t.Errorf("Tag = %v, want first", body["Tag"])
	}
}

func TestOurIDWinsOverMetadata(t *testing.T) {
	t.Parallel()
	work := plain(func(m *mail.Message) { m.Metadata = map[string]string{"GW_MSG": "forged", "order": "42"} })
	want := map[string]any{"gw_msg": work.Message.ID.String(), "order": "42"}
	if diff := cmp.Diff(want, sent(t, work)["Metadata"]); diff != "" {
		t.Errorf("Metadata (-want +got):\n%s", diff)
	}
}

func TestMessageIDOfTheCallerIsKept(t *testing.T) {
	t.Parallel()
	body := sent(t, plain(func(m *mail.Message) { m.Headers = []mail.Header{{Name: "message-id", Value: "<own@example.com>"}} }))
	want := []any{
		map[string]any{"Name": "Message-ID", "Value": "<own@example.com>"},
		map[string]any{"Name": "X-PM-KeepID", "Value": "true"},
	}
	if diff := cmp.Diff(want, body["Headers"]); diff != "" {
		t.Errorf("Headers (-want +got):\n%s", diff)
	}
}

func TestWhatPostmarkCannotCarryIsNotSent(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer srv.Close()
	c := newClient(t, srv.URL)
	defer c.Close()
	tenKeys := map[string]string{}
	for i := range 10 {
		tenKeys[fmt.Sprint(i)] = ""
	}
	for name, change := range map[string]func(*mail.Message){
		"recipients":            func(m *mail.Message) { m.To = make([]mail.Address, 51) },
		"metadata key":          func(m *mail.Message) { m.Metadata = map[string]string{strings.Repeat("k", 21): ""} },
		"metadata value":        func(m *mail.Message) { m.Metadata = map[string]string{"k": strings.Repeat("v", 81)} },
		"metadata keys":         func(m *mail.Message) { m.Metadata = tenKeys },
		"metadata keys in case": func(m *mail.Message) { m.Metadata = map[string]string{"key": "", "Key": ""} },
		"attachment type":       func(m *mail.Message) { m.Attachments = []mail.Attachment{{Filename: "a.EXE"}} },
		"size":                  func(m *mail.Message) { m.Attachments = []mail.Attachment{{Content: make([]byte, 10<<20)}} },
		"non-ASCII local part":  func(m *mail.Message) { m.To = []mail.Address{{Email: "žofie@example.org"}} },
	} {
		_, err := c.Send(t.Context(), plain(change))
		if perr := providertest.AsError(t, err); perr.Class != provider.Rejected || !perr.Elsewhere {
			t.Errorf("%s: %v, want rejected here and not elsewhere", name, err)
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("requests = %d, want none", n)
	}
}
