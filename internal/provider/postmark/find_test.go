package postmark_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/postmark"
	"github.com/sendgate/sendgate/internal/provider/providertest"
)

// api is Postmark's API except for sending: it answers by method and target, and records the requests.
type api struct {
	url     string
	answers map[string]string // "GET /path?query" -> body, or "status body"
	mu      sync.Mutex
	calls   []string // "POST /path body"
}

func newAPI(t *testing.T, answers map[string]string) *api {
	t.Helper()
	a := &api{answers: answers}
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	a.url = srv.URL
	return a
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	call := r.Method + " " + r.URL.RequestURI()
	a.mu.Lock()
	a.calls = append(a.calls, strings.TrimSpace(call+" "+string(body)))
	answer, ok := a.answers[call]
	a.mu.Unlock()
	var status int
	switch n, _ := fmt.Sscanf(answer, "%d ", &status); {
	case r.Header.Get("X-Postmark-Server-Token") != testToken:
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, fault(10, "Bad or missing Server API token."))
	case r.Header.Get("Accept") != "application/json":
		w.WriteHeader(http.StatusUnsupportedMediaType)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	case n == 1:
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer[4:])
	default:
		_, _ = io.WriteString(w, answer)
	}
}

const (
	searchOutbound   = "GET /messages/outbound?count=10&messagestream=outbound&metadata_gw_msg=" + ourText + "&offset=0"
	searchBroadcasts = "GET /messages/outbound?count=10&messagestream=broadcasts&metadata_gw_msg=" + ourText + "&offset=0"
	messageDetails   = "GET /messages/outbound/" + theirText + "/details"
	noMessages       = `{"TotalCount":0,"Messages":[]}`
)

func foundMessage(id, ours string) string {
	return fmt.Sprintf(`{"TotalCount":1,"Messages":[{"Tag":"t","MessageID":%q,"Recipients":["ann@example.org"],"ReceivedAt":"2026-01-01T05:00:00-05:00","Status":"Sent","Metadata":{"gw_msg":%q}}]}`, id, ours)
}

func query(t *testing.T) *provider.Query {
	t.Helper()
	id, err := mail.ParseID(ourText)
	if err != nil {
		t.Fatal(err)
	}
	return &provider.Query{MessageID: id, Sender: "shop@example.com", Recipients: []string{"ann@example.org"}}
}

func withBroadcasts(c *postmark.Config) { c.Streams = map[string]string{"bulk": "broadcasts"} }

func TestFindReadsWhatBecameOfTheMessage(t *testing.T) {
	t.Parallel()
	a := newAPI(t, map[string]string{
		searchBroadcasts: noMessages,
		searchOutbound:   foundMessage(theirText, ourText),
		messageDetails: `{"MessageID":"` + theirText + `","TextBody":"secret text","MessageEvents":[
			{"Recipient":"ann@example.org","Type":"Delivered","ReceivedAt":"2026-01-01T05:00:01.1234567-05:00","Details":{"DeliveryMessage":"smtp;250 OK"}},
			{"Recipient":"bob@example.org","Type":"Transient","ReceivedAt":"2026-01-01T05:00:02-05:00","Details":{"DeliveryMessage":"smtp;452 4.2.2 over quota"}},
			{"Recipient":"eve@example.org","Type":"Bounced","ReceivedAt":"2026-01-01T05:00:03-05:00","Details":{"Summary":"smtp;550","BounceID":"374814878"}},
			{"Recipient":"gus@example.org","Type":"Bounced","ReceivedAt":"2026-01-01T05:00:03-05:00","Details":{"Summary":"smtp;550","BounceID":"1"}},
			{"Recipient":"ann@example.org","Type":"Opened","ReceivedAt":"2026-01-01T05:00:04-05:00","Details":{"Summary":"x"}}, 7]}`,
		"GET /bounces/374814878": `{"RecordType":"Bounce","ID":374814878,"Type":"HardBounce","MessageID":"` + theirText + `","Email":"eve@example.org","BouncedAt":"2026-01-01T05:00:03-05:00","Details":"smtp;550 5.1.1 no such user"}`,
	})
	c := newClient(t, a.url, withBroadcasts)
	f, err := c.Find(t.Context(), query(t))
	if err != nil || !f.Found || f.ProviderMessageID != theirText {
		t.Fatalf("Find = %+v, %v", f, err)
	}
	var got []string
	for _, p := range f.Payloads {
		if diff := cmp.Diff(p.Events, c.Parse(p.Raw)); diff != "" {
			t.Errorf("Parse reads otherwise:\n%s", diff)
		}
		if strings.Contains(string(p.Raw), "secret text") {
			t.Error("a payload holds the message")
		}
		for _, e := range p.Events {
			reason := mail.Reason("")
			if e.Bounce != nil {
				reason = e.Bounce.Reason
			}
			got = append(got, fmt.Sprintf("%s %s %s %s %q %s", e.Type, e.Name, e.Recipient, reason, e.UniqueID, e.At.Format("05.000000")))
			if e.MessageID.String() != ourText || e.ProviderMessageID != theirText {
				t.Errorf("event = %+v, want it to be of the message", e)
			}
		}
	}
	want := []string{
		`delivered Delivery ann@example.org  "" 01.123456`,
		`deferred MessageEvent/Transient bob@example.org connection "" 02.000000`,
		`bounced Bounce/HardBounce eve@example.org invalid_address "Bounce/374814878" 03.000000`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// A look-up and a webhook about the same delivery give one event.
func TestFoundDeliveryIsThatOfTheWebhook(t *testing.T) {
	t.Parallel()
	hooked := one(t, members{"RecordType": "Delivery", "DeliveredAt": "2026-01-01T10:00:01.1234567Z"})
	looked := one(t, members{"RecordType": "MessageEvent", "Type": "Delivered", "ReceivedAt": "2026-01-01T05:00:01.1234567-05:00"})
	a, _ := hooked.Keys(1)
	if b, _ := looked.Keys(1); a != b {
		t.Errorf("the keys of %+v and %+v differ", hooked, looked)
	}
}

func TestFindBelievesNothingButOurMetadata(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"none":            noMessages,
		"somebody else's": foundMessage(theirText, "0199c0de-0000-7000-8000-00000000ffff"),
		"no metadata":     `{"TotalCount":1,"Messages":[{"MessageID":"` + theirText + `"}]}`,
		"no id":           foundMessage("", ourText),
	} {
		a := newAPI(t, map[string]string{searchOutbound: answer})
		if f, err := newClient(t, a.url).Find(t.Context(), query(t)); err != nil || f.Found {
			t.Errorf("%s: %+v, %v, want a clear no", name, f, err)
		}
	}
	a := newAPI(t, map[string]string{searchOutbound: foundMessage(theirText, ourText)})
	if f, err := newClient(t, a.url).Find(t.Context(), query(t)); err != nil || !f.Found || f.Payloads != nil {
		t.Errorf("without details: %+v, %v, want it found all the same", f, err)
	}
}

func TestFindErrorsLeaveTheRightDecision(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers map[string]string
		want    provider.Class
	}{
		"token":         {map[string]string{searchBroadcasts: "401 " + fault(10, "Bad or missing Server API token.")}, provider.Misconfigured},
		"stream":        {map[string]string{searchBroadcasts: "422 " + fault(1235, "no such stream")}, provider.Misconfigured},
		"paging":        {map[string]string{searchBroadcasts: "422 " + fault(13, "paging")}, provider.Misconfigured},
		"throttled":     {map[string]string{searchBroadcasts: "429 "}, provider.Throttled},
		"500":           {map[string]string{searchBroadcasts: "500 "}, provider.Transient},
		"503":           {map[string]string{searchBroadcasts: "503 "}, provider.Transient},
		"HTML":          {map[string]string{searchBroadcasts: "200 <html>"}, provider.Transient},
		"other JSON":    {map[string]string{searchBroadcasts: `200 {"status":"ok"}`}, provider.Transient},
		"firewall":      {map[string]string{searchBroadcasts: "403 <html>"}, provider.Transient},
		"second stream": {map[string]string{searchBroadcasts: noMessages, searchOutbound: "503 "}, provider.Transient},
	} {
		f, err := newClient(t, newAPI(t, c.answers).url, withBroadcasts).Find(t.Context(), query(t))
		if perr := providertest.AsError(t, err); perr.Class != c.want || f.Found {
			t.Errorf("%s: %+v, %v, want %s", name, f, err, c.want)
		}
	}
	_, err := newClient(t, "http://127.0.0.1:1").Find(t.Context(), query(t))
	providertest.CheckClass(t, err, provider.Transient)
}
