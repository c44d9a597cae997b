package mailgun_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mailgun"
	"github.com/sendgate/sendgate/internal/provider/providertest"
)

// logItem makes an item of the logs API from an event: its time is a date, and its variables are JSON in a string.
func logItem(t *testing.T, event string, at time.Time) string {
	t.Helper()
	var item map[string]any
	if err := json.Unmarshal([]byte(event), &item); err != nil {
		t.Fatal(err)
	}
	delete(item, "timestamp")
	item["@timestamp"] = at.Format("2006-01-02T15:04:05.000Z")
	vars, err := json.Marshal(item["user-variables"])
	if err != nil {
		t.Fatal(err)
	}
	item["user-variables"] = string(vars)
	b, err := json.Marshal(item)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// twoAPIs serves pages of the logs, or a status, and the events API with one page, or a status.
type twoAPIs struct {
	logs       [][]string
	logStatus  int
	events     []string
	eventState int

	asked []string // "logs TOKEN" or "events"
	query map[string]any
}

func (a *twoAPIs) client(t *testing.T) *mailgun.Client {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path != logsPath {
			a.asked = append(a.asked, "events")
			if a.eventState != 0 {
				w.WriteHeader(a.eventState)
				return
			}
			_, _ = fmt.Fprintf(w, `{"items":[%s],"paging":{}}`, strings.Join(a.events, ","))
			return
		}
		var in struct {
			Pagination struct{ Token string } `json:"pagination"`
		}
		raw := json.RawMessage{}
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || json.NewDecoder(r.Body).Decode(&raw) != nil || json.Unmarshal(raw, &in) != nil {
			t.Errorf("%s %s with %s: not a request of the logs API", r.Method, r.URL, raw)
		}
		if in.Pagination.Token == "" {
			_ = json.Unmarshal(raw, &a.query)
		}
		a.asked = append(a.asked, strings.TrimSpace("logs "+in.Pagination.Token))
		if a.logStatus != 0 {
			w.WriteHeader(a.logStatus)
			return
		}
		n, next := 0, ""
		_, _ = fmt.Sscanf(in.Pagination.Token, "page%d", &n)
		if n+1 < len(a.logs) {
			next = fmt.Sprintf("page%d", n+1)
		}
		items := []string{}
		if n < len(a.logs) {
			items = a.logs[n]
		}
		_, _ = fmt.Fprintf(w, `{"start":"","end":"","items":[%s],"pagination":{"next":%q,"total":9}}`, strings.Join(items, ","), next)
	}))
	t.Cleanup(srv.Close)
	c := newClient(t, srv.URL)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestFindReadsTheLogs(t *testing.T) {
	t.Parallel()
	at := query().From.Add(10 * time.Second)
	a := &twoAPIs{logs: [][]string{
		{logItem(t, change(t, "accepted", map[string]any{"message": nil, "user-variables": nil}), at)},
		{logItem(t, sample(t, "accepted"), at), logItem(t, sample(t, "delivered"), at.Add(time.Hour))},
	}}
	got, err := a.client(t).Find(t.Context(), query())
	if err != nil || !got.Found || got.ProviderMessageID != query().InternetID || len(got.Payloads) != 2 {
		t.Fatalf("Find = %+v, %v, want it with two payloads", got, err)
	}
	e := got.Payloads[0].Events[0]
	if e.Type != mail.EventAccepted || !e.At.Equal(at) || e.MessageID != plainID() || e.Recipient != "ann@example.org" {
		t.Errorf("event = %+v", e)
	}
	if diff := cmp.Diff([]string{"logs", "logs page1"}, a.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	filter := fmt.Sprint(a.query["filter"])
	if want := "map[AND:[map[attribute:domain comparator:= values:[map[label:" + testDomain + " value:" + testDomain + "]]]]]"; filter != want {
		t.Errorf("filter = %s, want %s", filter, want)
	}
	if a.query["start"] != "Mon, 19 Mar 2018 15:10:00 +0000" {
		t.Errorf("start = %v", a.query["start"])
	}
}

// The log proves that a message is missing only if the older API is gone, or agrees.
func TestAbsenceFromTheLogsIsChecked(t *testing.T) {
	t.Parallel()
	at := query().From.Add(10 * time.Second)
	stranger := func(d time.Duration) string {
		return logItem(t, change(t, "accepted", map[string]any{"message": nil, "user-variables": nil}), at.Add(d))
	}
	busy := make([][]string, 40)
	for i := range busy {
		busy[i] = []string{stranger(0)}
	}
	past := [][]string{{stranger(0), stranger(time.Hour)}, {logItem(t, sample(t, "accepted"), at)}}
	ours := []string{sample(t, "accepted")}
	for name, c := range map[string]struct {
		api   twoAPIs
		found bool
		want  provider.Class
		asked int
	}{
		"both show nothing":                  {twoAPIs{}, false, provider.Accepted, 2},
		"the older API shows it":             {twoAPIs{events: ours}, true, provider.Accepted, 2},
		"the older API is gone":              {twoAPIs{eventState: 410}, false, provider.Accepted, 2},
		"the older API is gone, as 404":      {twoAPIs{eventState: 404}, false, provider.Accepted, 2},
		"the older API is busy":              {twoAPIs{eventState: 503}, false, provider.Transient, 2},
		"read past the call":                 {twoAPIs{logs: past, eventState: 410}, false, provider.Accepted, 2},
		"no logs API, and it is there":       {twoAPIs{logStatus: 404, events: ours}, true, provider.Accepted, 2},
		"no logs API, and it is not":         {twoAPIs{logStatus: 404}, false, provider.Accepted, 2},
		"filter refused":                     {twoAPIs{logStatus: 400, events: ours}, true, provider.Accepted, 2},
		"neither API":                        {twoAPIs{logStatus: 404, eventState: 404}, false, provider.Misconfigured, 2},
		"filter refused, no older API":       {twoAPIs{logStatus: 400, eventState: 410}, false, provider.Misconfigured, 2},
		"throttled":                          {twoAPIs{logStatus: 429, events: ours}, false, provider.Throttled, 1},
		"down":                               {twoAPIs{logStatus: 502, events: ours}, false, provider.Transient, 1},
		"too long a log, older API":          {twoAPIs{logs: busy, events: ours}, true, provider.Accepted, 11},
		"too long a log, older API is gone":  {twoAPIs{logs: busy, eventState: 410}, false, provider.Misconfigured, 11},
		"too long a log, older API is empty": {twoAPIs{logs: busy}, false, provider.Accepted, 11},
	} {
		api := c.api
		got, err := api.client(t).Find(t.Context(), query())
		providertest.CheckClass(t, err, c.want)
		if got.Found != c.found || len(api.asked) != c.asked {
			t.Errorf("%s: found %t after %d requests (%v), want %t after %d", name, got.Found, len(api.asked), err, c.found, c.asked)
		}
	}
}
