package httpapi

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/record"
)

// inputRows is the table of bad inputs to the sending API, by number.
var inputRows = sync.OnceValue(func() []inputRow {
	var rows []inputRow
	for _, part := range [][]inputRow{
		jsonRows(), transportRows(), callerRows(), idempotencyRows(), addressRows(), contentRows(), fileRows(), storeRows(), hookRows(),
	} {
		rows = append(rows, part...)
	}
	return rows
})

func jsonRows() []inputRow {
	deep := func(n int) string { return `{"to":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	return []inputRow{
		{n: "1", name: "no body", status: 400, code: "empty_body"},
		{n: "8", name: "truncated JSON", body: `{"subject":"a`, status: 400, code: "truncated_json", answers: mentions("byte 13")},
		{n: "9", name: "two values", body: sendJSON() + sendJSON(), status: 400, code: "trailing_data"},
		{n: "9", name: "garbage behind", body: sendJSON() + "x", status: 400, code: "trailing_data"},
		{n: "10", name: "duplicate key", body: `{"to":"a@b.co",` + sendJSON()[1:], status: 400, code: "duplicate_key"},
		{n: "11", name: "TO beside to", body: `{"TO":"a@b.co",` + sendJSON()[1:], status: 400, code: "duplicate_key"},
		{n: "12", name: "unknown field", body: `{"form":"a@b.co",` + sendJSON()[1:], status: 422, code: "unknown_field", field: "form", answers: mentions(`did you mean \"from\"`)},
		{n: "13", name: "depth 33", body: deep(32), status: 400, code: "too_deep"},
		{n: "13", name: "depth 100,000", body: deep(100_000), status: 400, code: "too_deep"},
		{n: "14", name: "invalid UTF-8", body: sendJSON("subject", "\"\xff\""), status: 400, code: "invalid_utf8"},
		{n: "15", name: "lone surrogate", body: sendJSON("subject", `"\ud800"`), status: 400, code: "malformed_json"},
		{n: "16", name: "NUL in subject", body: sendJSON("subject", `"a\u0000"`), status: 422, code: "control_char", field: "subject"},
		{n: "16", name: "NUL in text", body: sendJSON("text", `"a\u0000"`), status: 422, code: "control_char", field: "text"},
		{n: "16", name: "NUL in metadata", body: sendJSON("metadata", `{"k":"\u0000"}`), status: 422, code: "control_char", field: "metadata.k"},
		{
			n: "16", name: "neighbours in a batch", path: "/v1/send/batch", status: 202, stored: 2,
			body:    `{"messages":[` + sendJSON() + `,` + sendJSON("subject", `"\u0000"`) + `,` + sendJSON() + `]}`,
			answers: batchCodes("", "control_char", ""),
		},
		{n: "17", name: "byte order mark", body: "\xef\xbb\xbf" + sendJSON(), status: 400, code: "byte_order_mark"},
		{n: "18", name: "null", body: "null", status: 400, code: "expected_object"},
		{n: "18", name: "list", body: "[]", status: 400, code: "expected_object"},
		{n: "18", name: "string", body: `"x"`, status: 400, code: "expected_object"},
		{n: "18", name: "number", body: "1", status: 400, code: "expected_object"},
		{n: "19", name: "to is a number", body: sendJSON("to", "5"), status: 422, code: "wrong_type", field: "to"},
		{n: "19", name: "to holds a number", body: sendJSON("to", `["a@b.co",5]`), status: 422, code: "wrong_type", field: "to[1]"},
		{n: "19", name: "text is an object", body: sendJSON("text", "{}"), status: 422, code: "wrong_type", field: "text"},
		{n: "20", name: "1e400", body: sendJSON("subject", "1e400"), status: 422, code: "wrong_type", field: "subject"},
		{n: "20", name: "NaN", body: sendJSON("subject", "NaN"), status: 400, code: "malformed_json"},
	}
}

func transportRows() []inputRow {
	body := sendJSON()
	length := fmt.Sprintf("Content-Length: %d\r\n", len(body))
	return []inputRow{
		{n: "2", name: "text/plain", body: body, header: http.Header{"Content-Type": {"text/plain"}}, status: 415, code: "unsupported_media_type"},
		{n: "2", name: "no content type", body: body, header: http.Header{"Content-Type": nil}, status: 415, code: "unsupported_media_type"},
		{n: "2", name: "two content types", body: body, header: http.Header{"Content-Type": {"application/json", "text/plain"}}, status: 415, code: "unsupported_media_type"},
		{n: "3", name: "utf-16", body: body, header: http.Header{"Content-Type": {"application/json; charset=utf-16"}}, status: 415, code: "unsupported_media_type"},
		{n: "3", name: "utf-8 is fine", body: body, header: http.Header{"Content-Type": {"application/json; charset=UTF-8"}}, status: 202, stored: 1},
		{n: "4", name: "gzip", body: body, header: http.Header{"Content-Encoding": {"gzip"}}, status: 415, code: "unsupported_encoding"},
		{n: "5", name: "one byte over the cap", raw: rawSend(fmt.Sprintf("Content-Length: %d\r\n", DefaultMaxBody+1), "{"), status: 413, code: "too_large", closed: true, lingers: true},
		{n: "6", name: "shorter than announced", do: shortBody},
		{n: "7", name: "endless chunks", do: endlessBody},
		{n: "21", name: "PUT", method: http.MethodPut, body: body, status: 405, code: "method_not_allowed", answers: header("Allow", "POST")},
		{n: "21", name: "GET", method: http.MethodGet, status: 405, code: "method_not_allowed", answers: header("Allow", "POST")},
		{n: "22", name: "HTTP/1.0 without Host", raw: strings.Replace(strings.Replace(rawSend(length, body), "HTTP/1.1", "HTTP/1.0", 1), "Host: HOST\r\n", "", 1), status: 400, code: "missing_host", closed: true},
		{n: "22", name: "HTTP/1.1 without Host", raw: strings.Replace(rawSend(length, body), "Host: HOST\r\n", "", 1), status: 400, noJSON: true, closed: true},
		{n: "22", name: "two Content-Lengths", raw: rawSend(length+"Content-Length: 5\r\n", body), status: 400, noJSON: true, closed: true},
		{
			// net/http takes a chunked request that has a Content-Length too, and hides it from handlers. What must hold is
			// that nothing behind it on the connection is ever read as a second request.
			n: "22", name: "Transfer-Encoding beside Content-Length",
			raw:    rawSend("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)+rawSend(length, body)),
			status: 202, stored: 1, closed: true,
		},
		{n: "23", name: "33 KiB of headers", raw: rawSend("X-Fill: "+strings.Repeat("x", 33<<10)+"\r\n"+length, body), status: 431, noJSON: true, closed: true},
	}
}

func callerRows() []inputRow {
	body := sendJSON()
	asks := header("Www-Authenticate", `Bearer realm="sendgate"`)
	return []inputRow{
		{n: "24", name: "no key", body: body, header: http.Header{"Authorization": nil}, status: 401, code: "unauthorized", answers: asks},
		{n: "24", name: "empty key", body: body, header: http.Header{"Authorization": {"Bearer "}}, status: 401, code: "unauthorized", answers: asks},
		{n: "24", name: "key in the query", do: keyInQuery},
		{n: "25", name: "revoked, expired and foreign keys look alike", do: deadKeys},
		{n: "26", name: "key lacks send", body: body, key: func(k inputKeys) string { return k.read }, status: 403, code: "scope_missing"},
	}
}

// mentions checks that the answer holds a text, which is given as it stands in JSON.
func mentions(want string) func(*testing.T, http.Header, []byte) {
	return func(t *testing.T, _ http.Header, body []byte) {
		t.Helper()
		if !strings.Contains(string(body), want) {
			t.Errorf("answer lacks %q: %.300s", want, body)
		}
	}
}

func header(name, want string) func(*testing.T, http.Header, []byte) {
	return func(t *testing.T, h http.Header, _ []byte) {
		t.Helper()
		if got := strings.Join(h.Values(name), ", "); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

// batchCodes checks the code of each result; "" is one that was accepted.
func batchCodes(want ...string) func(*testing.T, http.Header, []byte) {
	return func(t *testing.T, _ http.Header, body []byte) {
		t.Helper()
		var out api.BatchResult
		if err := json.Unmarshal(body, &out); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, item := range out.Results {
			code := ""
			switch {
			case item.Error == nil && (item.SendResult == nil || item.ID == ""):
				code = "neither id nor error"
			case item.Error != nil && len(item.Error.Errors) > 0:
				code = item.Error.Errors[0].Code
			case item.Error != nil:
				code = item.Error.Code
			}
			got = append(got, code)
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("results = %q, want %q", got, want)
		}
	}
}

func shortBody(t *testing.T, s *inputServer) {
	conn := dialRaw(t, s)
	text := strings.Replace(rawSend("Content-Length: 1000\r\n", `{"from":"a@b.co"`), "KEY", s.keys.send, 1)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return // closed without an answer is as good
	}
	row := inputRow{status: 400, code: "incomplete_body"}
	row.checkAnswer(t, resp)
	if _, err := in.ReadByte(); err == nil {
		t.Error("the connection goes on after the answer")
	}
}

// endlessBody writes until the server has had enough, and checks how much that was.
func endlessBody(t *testing.T, s *inputServer) {
	conn := dialRaw(t, s)
	head := strings.Replace(rawSend("Transfer-Encoding: chunked\r\n", ""), "KEY", s.keys.send, 1)
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat("x", 64<<10))
	written := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := io.WriteString(conn, head)
		for err == nil && written < 8*DefaultMaxBody {
			_, err = io.WriteString(conn, chunk)
			written += 64 << 10
		}
	})
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("read answer: %v", err)
	}
	row := inputRow{status: 413, code: "too_large"}
	row.checkAnswer(t, resp)
	_ = conn.Close()
	wg.Wait()
	if written > 2*DefaultMaxBody {
		t.Errorf("the server took %d bytes, want about %d", written, DefaultMaxBody)
	}
}

func keyInQuery(t *testing.T, s *inputServer) {
	row := inputRow{
		path: "/v1/send?key=" + s.keys.send, header: http.Header{"Authorization": nil}, body: sendJSON(), status: 401,
		code: "unauthorized",
	}
	row.check(t, s)
}

func deadKeys(t *testing.T, s *inputServer) {
	_, foreign, _ := NewKey()
	var first string
	for name, key := range map[string]string{"revoked": s.keys.revoked, "expired": s.keys.expired, "foreign": foreign} {
		row := inputRow{
			body: sendJSON(), key: func(inputKeys) string { return key }, status: 401, code: "unauthorized",
			answers: func(t *testing.T, _ http.Header, body []byte) {
				var p api.Problem
				if err := json.Unmarshal(body, &p); err != nil {
					t.Fatal(err)
				}
				same := p.Type + p.Title + p.Detail + p.Code
				if first == "" {
					first = same
				}
				if same != first {
					t.Errorf("a %s key is told apart: %s", name, body)
				}
			},
		}
		row.check(t, s)
	}
}

func storeRows() []inputRow {
	rows := []inputRow{
		{n: "71", name: "tenant is paused", body: sendJSON(), key: func(k inputKeys) string { return k.paused }, status: 403, code: "tenant_paused"},
	}
	for _, reason := range []string{"database", "queue_full", "storage_full"} {
		for path, body := range map[string]string{"/v1/send": sendJSON(), "/v1/send/batch": `{"messages":[` + sendJSON() + `]}`} {
			rows = append(rows, inputRow{n: "72", name: reason + " at " + path, do: func(t *testing.T, s *inputServer) {
				// The key is looked up first, and kept for a moment.
				(&inputRow{body: "{}", status: 422}).check(t, s)
				s.fail(&record.Unavailable{Reason: reason, RetryAfter: time.Second, Err: errors.New("secret detail")})
				defer s.fail(nil)
				row := inputRow{path: path, body: body, status: 503, code: reason, answers: func(t *testing.T, _ http.Header, body []byte) {
					if strings.Contains(string(body), "secret detail") {
						t.Errorf("the cause is told to callers: %s", body)
					}
				}}
				row.check(t, s)
			}})
		}
	}
	return rows
}
