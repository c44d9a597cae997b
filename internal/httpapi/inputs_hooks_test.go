package httpapi

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/record"
	"github.com/sendgate/sendgate/internal/unsub"
)

// madeUp signs for the account that the rows of hooks post to.
var madeUp = &fakeParser{secret: "ours"}

func inputHooks(account int32) *fakeHooks {
	return &fakeHooks{id: account, parsers: map[string]provider.EventParser{"made-up": madeUp, "starting": nil}}
}

// hooked is a row that posts events; headers are name, value pairs beside the signature.
func hooked(row inputRow, headers ...string) inputRow {
	if row.path == "" {
		row.path = "/hooks/made-up"
	}
	row.key = func(inputKeys) string { return "" }
	row.header = http.Header{"Content-Type": {"text/plain"}, "Sign": {madeUp.sign(row.body)}}
	for i := 0; i < len(headers); i += 2 {
		row.header.Set(headers[i], headers[i+1])
	}
	return row
}

// What is right about each provider's own requests is tested with its adapter; here is what the receiver makes of it.
func hookRows() []inputRow {
	at := func(d time.Duration) string { return time.Now().Add(d).Format(time.RFC3339) }
	event := "delivered ann@example.org " + mail.NewID().String()
	var many strings.Builder
	for i := range provider.MaxHookEvents + 1 {
		fmt.Fprintf(&many, "delivered a%d@example.org\n", i)
	}
	return []inputRow{
		hooked(inputRow{n: "73", name: "unsigned", body: event, status: 401, code: "refused", answers: challenged}, "Sign", ""),
		hooked(inputRow{n: "73", name: "another key", body: event, status: 401, code: "refused"}, "Sign", (&fakeParser{secret: "theirs"}).sign(event)),
		hooked(inputRow{n: "73", name: "no such account", path: "/hooks/nobody", body: event, status: 404, code: "not_found"}),
		hooked(inputRow{n: "73", name: "account without adapter", path: "/hooks/starting", body: event, status: 503, code: "unavailable"}),
		hooked(inputRow{n: "74", name: "one byte changed", body: event + " ", status: 401, code: "refused"}, "Sign", madeUp.sign(event)),
		hooked(inputRow{n: "75", name: "11 min ahead", body: event, status: 401, code: "refused"}, "Stamp", at(11*time.Minute)),
		hooked(inputRow{n: "75", name: "26 h old", body: event, status: 401, code: "refused"}, "Stamp", at(-26*time.Hour)),
		{n: "75", name: "replay in time", events: 1, do: twice(hooked(inputRow{body: freshEvent(), status: 200}, "Stamp", at(-time.Hour)))},
		{n: "76", name: "token with another body", events: 1, do: func(t *testing.T, s *inputServer) {
			first := hooked(inputRow{body: freshEvent(), status: 200}, "Token", "once")
			first.check(t, s)
			first.check(t, s)
			other := hooked(inputRow{body: freshEvent(), status: 406, code: "refused"}, "Token", "once")
			other.check(t, s)
		}},
		hooked(inputRow{n: "78", name: "foreign topic", body: event, status: 403, code: "refused"}, "Topic", "theirs"),
		hooked(inputRow{n: "80", name: "10,000 events", body: many.String(), status: 413, code: "refused"}),
		hooked(inputRow{n: "80", name: "1.1 MiB", body: strings.Repeat("x", 1153434), status: 413, code: "refused", closed: true}),
		hooked(inputRow{n: "81", name: "unknown message", body: freshEvent(), status: 200, events: 1}),
		hooked(inputRow{n: "82", name: "unknown type", body: "sublimated ann@example.org " + mail.NewID().String(), status: 200, events: 1}),
		hooked(inputRow{n: "82", name: "no fields", body: "delivered", status: 200, events: 1}),
		{n: "83, 84", name: "46 times, shuffled", events: 3, do: shuffled},
		{n: "85", name: "of a message that the account never had", stored: 1, do: foreign},
		{n: "RFC 8058", name: "unsubscribe by one click, twice", stored: 1, events: 1, do: unsubscribed},
		{n: "86", name: "database down", do: func(t *testing.T, s *inputServer) {
			s.fail(&record.Unavailable{Reason: "database", RetryAfter: time.Second})
			row := hooked(inputRow{body: freshEvent(), status: 503, code: "database"})
			row.check(t, s)
			s.fail(nil)
		}},
	}
}

func freshEvent() string { return "delivered ann@example.org " + mail.NewID().String() }

func challenged(t *testing.T, h http.Header, body []byte) {
	t.Helper()
	if h.Get("WWW-Authenticate") != `Basic realm="sendgate"` {
		t.Errorf("WWW-Authenticate = %q", h.Get("WWW-Authenticate"))
	}
	if strings.Contains(string(body), "signature") {
		t.Errorf("the answer tells what was wrong: %s", body)
	}
}

func twice(row inputRow) func(*testing.T, *inputServer) {
	return func(t *testing.T, s *inputServer) {
		row.check(t, s)
		row.check(t, s)
	}
}

func shuffled(t *testing.T, s *inputServer) {
	id := mail.NewID().String()
	bodies := make([]string, 0, 3*46)
	for range 46 {
		bodies = append(bodies, "accepted ann@example.org "+id, "bounced ann@example.org "+id, "delivered ann@example.org "+id)
	}
	rand.Shuffle(len(bodies), func(i, j int) { bodies[i], bodies[j] = bodies[j], bodies[i] })
	for _, body := range bodies {
		row := hooked(inputRow{body: body, status: 200})
		row.check(t, s)
	}
}

func foreign(t *testing.T, s *inputServer) {
	var sent api.SendResult
	accept := inputRow{body: sendJSON(), status: 202, answers: func(t *testing.T, _ http.Header, body []byte) {
		if err := json.Unmarshal(body, &sent); err != nil {
			t.Fatal(err)
		}
	}}
	accept.check(t, s)
	row := hooked(inputRow{body: "complained ann@example.org " + sent.ID, status: 200})
	row.check(t, s)
	look := inputRow{method: "GET", path: "/v1/messages/" + sent.ID, key: func(k inputKeys) string { return k.read }, status: 200, answers: func(t *testing.T, _ http.Header, body []byte) {
		var m api.Message
		if err := json.Unmarshal(body, &m); err != nil || m.Recipients[0].Status != "queued" || len(m.Events) != 0 {
			t.Errorf("message = %s, %v, want nothing changed", body, err)
		}
	}}
	look.check(t, s)
}

// idLinks takes the id of a message for a token of zoe's.
type idLinks struct{}

func (idLinks) Open(token string) (unsub.Token, error) {
	id, err := mail.ParseID(token)
	if err != nil {
		return unsub.Token{}, unsub.ErrToken
	}
	return unsub.Token{Tenant: mail.DefaultTenant, Stream: mail.DefaultStream, Message: id, Email: "zoe@example.org"}, nil
}

func unsubscribed(t *testing.T, s *inputServer) {
	var sent api.SendResult
	accept := inputRow{body: sendJSON("to", `"zoe@example.org"`), status: 202, answers: func(t *testing.T, _ http.Header, body []byte) {
		if err := json.Unmarshal(body, &sent); err != nil {
			t.Fatal(err)
		}
	}}
	accept.check(t, s)
	click := inputRow{path: "/u/" + sent.ID, body: oneClick, header: http.Header{"Content-Type": {urlencoded}, "Authorization": nil}, status: 200}
	click.check(t, s)
	click.check(t, s)
	look := inputRow{method: "GET", path: "/v1/suppressions/zoe@example.org?stream=transactional", key: func(k inputKeys) string { return k.read }, status: 200, answers: func(t *testing.T, _ http.Header, body []byte) {
		var found api.List[api.Suppression]
		if err := json.Unmarshal(body, &found); err != nil || len(found.Data) != 1 || found.Data[0].MessageID != sent.ID || found.Data[0].Origin != "unsubscribe" {
			t.Errorf("suppressions = %s, %v", body, err)
		}
	}}
	look.check(t, s)
}

func FuzzOneClick(f *testing.F) {
	f.Add(urlencoded, oneClick)
	f.Add("multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--b--\r\n")
	f.Add("multipart/form-data; boundary=", "--\r\n")
	f.Fuzz(func(t *testing.T, kind, body string) {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/u/x", strings.NewReader(body))
		req.Header.Set("Content-Type", kind)
		err := readOneClick(httptest.NewRecorder(), req)
		if err == nil && !strings.Contains(body, "Click") && !strings.Contains(body, "%") {
			t.Errorf("%q, %q counts as a click", kind, body)
		}
		if err != nil && refusalOf(err).status >= 500 {
			t.Errorf("%q, %q: %v", kind, body, err)
		}
	})
}
