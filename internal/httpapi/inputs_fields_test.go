package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

func idempotencyRows() []inputRow {
	bad := func(name string, values ...string) inputRow {
		return inputRow{
			n: "27", name: name, body: sendJSON(), header: http.Header{"Idempotency-Key": values}, status: 400,
			code: "invalid_idempotency_key",
		}
	}
	two := bad("two headers", "a", "b")
	two.n = "28"
	return []inputRow{
		bad("key of 256", strings.Repeat("k", 256)),
		bad("empty key", ""),
		bad("key is not ASCII", "schlüssel"),
		{n: "27", name: "key with CRLF", raw: rawSend("Idempotency-Key: a\r\nb\r\nContent-Length: 2\r\n", "{}"), status: 400, noJSON: true, closed: true},
		{n: "27", name: "key of 255 is fine", body: sendJSON(), header: http.Header{"Idempotency-Key": {strings.Repeat("k", 255)}}, status: 202, stored: 1},
		two,
		{n: "29", name: "same key, same meaning", do: replay, stored: 1},
		{n: "30", name: "same key, other body", do: mismatch, stored: 1},
		{n: "31", name: "64 at once", do: sixtyFour, stored: 1},
		{n: "32", name: "same key after a 422", do: afterRefusal, stored: 1},
		{n: "33", name: "same key, other tenant", do: otherTenant, stored: 2},
	}
}

// idem is a send with a key; the answer's id and replay mark are returned.
func idem(t *testing.T, s *inputServer, key, body string, who func(inputKeys) string, status int, code string) (id, replayed string) {
	t.Helper()
	row := inputRow{
		body: body, key: who, header: http.Header{"Idempotency-Key": {key}}, status: status, code: code,
		answers: func(t *testing.T, h http.Header, body []byte) {
			if status != http.StatusAccepted {
				return
			}
			var out api.SendResult
			if err := json.Unmarshal(body, &out); err != nil {
				t.Error(err)
			}
			id, replayed = out.ID, h.Get("Idempotent-Replayed")
		},
	}
	row.check(t, s)
	return id, replayed
}

func replay(t *testing.T, s *inputServer) {
	sent := `{"from":"Shop <shop@example.com>","to":"ann@example.org","subject":"é","text":"t","metadata":{"a":"1","b":"2"},"send_at":"SOON"}`
	soon := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	sent = strings.Replace(sent, "SOON", soon.Format(time.RFC3339), 1)
	// The same meaning: other order, white space, escapes, long forms, domain case and time zone.
	again := ` {"text":"t", "metadata":{"b":"2","a":"1"}, "subject":"\u00e9", "cc":[],
		"to":[{"email":"ann@EXAMPLE.org"}], "from":{"name":"Shop","email":"shop@example.com"}, "stream":"transactional",
		"send_at":"` + soon.In(time.FixedZone("", 3600)).Format(time.RFC3339) + `"}`
	first, mark := idem(t, s, "row-29", sent, nil, 202, "")
	if mark != "" {
		t.Errorf("the first answer is marked as replayed: %q", mark)
	}
	second, mark := idem(t, s, "row-29", again, nil, 202, "")
	if second != first || mark != "true" {
		t.Errorf("replay = %s (%q), want %s (true)", second, mark, first)
	}
}

func mismatch(t *testing.T, s *inputServer) {
	idem(t, s, "row-30", sendJSON(), nil, 202, "")
	for name, body := range map[string]string{
		"subject":  sendJSON("subject", `"ho"`),
		"to":       sendJSON("to", `["bob@example.org"]`),
		"cc":       sendJSON("cc", `["bob@example.org"]`),
		"name":     sendJSON("to", `["Ann <ann@example.org>"]`),
		"send_at":  sendJSON("send_at", quoted(time.Now().Add(time.Hour).UTC().Format(time.RFC3339))),
		"metadata": sendJSON("metadata", `{"a":"b"}`),
		"tags":     sendJSON("tags", `["a"]`),
		"headers":  sendJSON("headers", `{"X-A":"b"}`),
		"policy":   sendJSON("on_ambiguous", `"never"`),
		"file":     sendJSON("attachments", `[{"filename":"a","content":"aGk="}]`),
	} {
		t.Run(name, func(t *testing.T) { idem(t, s, "row-30", body, nil, 422, "idempotency_mismatch") })
	}
}

func sixtyFour(t *testing.T, s *inputServer) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		ids   = map[string]int{}
		marks = map[string]int{}
	)
	for range 64 {
		wg.Go(func() {
			row := inputRow{body: sendJSON(), header: http.Header{"Idempotency-Key": {"row-31"}}}
			resp, err := row.request(t, s)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = resp.Body.Close() }()
			var out api.SendResult
			if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != http.StatusAccepted {
				t.Errorf("answer = %d, %v; want 202", resp.StatusCode, err)
			}
			mu.Lock()
			defer mu.Unlock()
			ids[out.ID]++
			marks[resp.Header.Get("Idempotent-Replayed")]++
		})
	}
	wg.Wait()
	if len(ids) != 1 || marks[""] != 1 || marks["true"] != 63 {
		t.Errorf("ids = %v, marks = %v; want one id, of which 63 answers are replays", ids, marks)
	}
}

func afterRefusal(t *testing.T, s *inputServer) {
	idem(t, s, "row-32", sendJSON("to", `["a@b"]`), nil, 422, "domain_not_fqdn")
	if _, mark := idem(t, s, "row-32", sendJSON(), nil, 202, ""); mark != "" {
		t.Errorf("a new message is marked as replayed: %q", mark)
	}
}

func otherTenant(t *testing.T, s *inputServer) {
	mine, _ := idem(t, s, "row-33", sendJSON(), nil, 202, "")
	theirs, mark := idem(t, s, "row-33", sendJSON("subject", `"another"`), func(k inputKeys) string { return k.other }, 202, "")
	if mine == theirs || mark != "" {
		t.Errorf("the other tenant got %s (%q), we %s", theirs, mark, mine)
	}
}

// toRow is a send to one address, given in the long form.
func toRow(n, address, code string) inputRow {
	return inputRow{
		n: n, name: fmt.Sprintf("%.40q", address), body: sendJSON("to", `[{"email":`+quoted(address)+`}]`), status: 422,
		code: code, field: "to[0].email",
	}
}

func addressRows() []inputRow {
	local := func(n int) string { return strings.Repeat("l", n) }
	domain192 := strings.Repeat(strings.Repeat("a", 62)+".", 3) + "com"
	return []inputRow{
		{n: "34", name: "to missing", body: sendJSON("to", ""), status: 422, code: "required", field: "to"},
		{n: "34", name: "to empty", body: sendJSON("to", "[]"), status: 422, code: "required", field: "to"},
		{n: "34", name: "to null", body: sendJSON("to", "null"), status: 422, code: "required", field: "to"},
		{n: "34", name: "to holds null", body: sendJSON("to", "[null]"), status: 422, code: "required", field: "to[0]"},
		{n: "35", name: "1,001 recipients", body: sendJSON("to", listOf(1001, func(i int) string { return fmt.Sprintf(`"r%d@example.org"`, i) })), status: 422, code: "too_many_recipients", field: "to"},
		{n: "35", name: "1,000 recipients are fine", body: sendJSON("to", listOf(1000, func(i int) string { return fmt.Sprintf(`"r%d@example.org"`, i) })), status: 202, stored: 1},
		{n: "36", name: "twice, domain in another case", body: sendJSON("to", `"ann@example.org"`, "cc", `["ann@EXAMPLE.org"]`), status: 202, stored: 1, answers: recipients("ann@example.org queued")},
		toRow("37", "a@b", "domain_not_fqdn"),
		toRow("38", "a@b..com", "invalid_domain"),
		toRow("38", "a@-b.com", "invalid_domain"),
		toRow("38", "a@b_c.com", "invalid_domain"),
		toRow("38", "a@b.com.", "invalid_domain"),
		toRow("39", `"foo@x> ORCPT=evil@y"@t.com`, "bare_address_expected"),
		{n: "39", name: "short form", body: sendJSON("to", quoted(`"foo@x> ORCPT=evil@y"@t.com`)), status: 422, field: "to[0]"},
		toRow("40", "a@b.com\r\nBcc: c@d.com", "control_char"),
		{n: "40", name: "short form", body: sendJSON("to", quoted("a@b.com\r\nBcc: c@d.com")), status: 422, code: "control_char", field: "to[0]"},
		toRow("41", "a@b.com,c@d.com", "single_address_expected"),
		{n: "41", name: "short form", body: sendJSON("to", `"a@b.com,c@d.com"`), status: 422, code: "single_address_expected", field: "to[0]"},
		toRow("42", "Name <a@b.com>", "bare_address_expected"),
		{n: "42", name: "short form is documented", body: sendJSON("to", `"Name <a@b.com>"`), status: 202, stored: 1, answers: recipients("a@b.com queued")},
		{n: "42", name: "short form twice", body: sendJSON("to", `"Name <N <a@b.com>>"`), status: 422, field: "to[0]"},
		toRow("43", "user@[127.0.0.1]", "domain_literal"),
		toRow("43", "user@[IPv6:::1]", "domain_literal"),
		toRow("44", "a@exam\u200bple.com", "invisible_char"),
		toRow("44", "a@exam\u202eple.com", "invisible_char"),
		{n: "44", name: "in the name", body: sendJSON("to", `[{"email":"a@b.com","name":"Ann\u202e"}]`), status: 422, code: "invisible_char", field: "to[0].name"},
		{n: "45", name: "no account carries it", body: sendJSON("to", `"jöhn@example.com"`), status: 422, code: "smtputf8_unsupported"},
		{n: "46", name: "U-label", body: sendJSON("to", `"a@exämple.com"`), status: 202, stored: 1, answers: recipients("a@xn--exmple-cua.com queued")},
		toRow("47", local(65)+"@example.com", "local_part_too_long"),
		toRow("47", local(62)+"@"+domain192, "address_too_long"),
		toRow("47", "a@"+local(64)+".com", "label_too_long"),
		toRow("48", strings.Repeat("a", 1<<20), "address_too_long"),
		toRow("48", strings.Repeat("(", 10_000)+"a@b.com", "address_too_long"),
		{n: "48", name: "phrase of 200,000 atoms", body: sendJSON("to", quoted(strings.Repeat("a ", 200_000)+"<a@b.com>")), status: 422, code: "address_too_long", field: "to[0]"},
		toRow("49", "=?utf-8?q?a=40b?=@host.com", "invalid_local_part"),
		toRow("50", "G: a@b.com;", "single_address_expected"),
		{n: "50", name: "short form", body: sendJSON("to", `"G: a@b.com;"`), status: 422, code: "single_address_expected", field: "to[0]"},
		senderRow("other domain", "shop@evil.com"), senderRow("subdomain", "shop@sub.example.com"),
		senderRow("suffix", "shop@notexample.com"), senderRow("homograph", "shop@ex\u0430mple.com"),
		{n: "51", name: "own domain in upper case is fine", body: sendJSON("from", `"shop@EXAMPLE.com"`), key: restricted, status: 202, stored: 1},
		{n: "52", name: "one of two is suppressed", do: suppressed(`,"ann@example.org"`, "queued"), stored: 1},
		{n: "52", name: "all are suppressed", do: suppressed("", "suppressed"), stored: 1},
	}
}

func restricted(k inputKeys) string { return k.restricted }

func senderRow(name, from string) inputRow {
	return inputRow{n: "51", name: name, body: sendJSON("from", quoted(from)), key: restricted, status: 403, code: "sender_not_allowed"}
}

// recipients checks "address status" of each recipient.
func recipients(want ...string) func(*testing.T, http.Header, []byte) {
	return func(t *testing.T, _ http.Header, body []byte) {
		t.Helper()
		var out api.SendResult
		if err := json.Unmarshal(body, &out); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, rc := range out.Recipients {
			got = append(got, rc.Email+" "+rc.Status)
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("recipients = %q, want %q", got, want)
		}
	}
}

func suppressed(more, status string) func(*testing.T, *inputServer) {
	return func(t *testing.T, s *inputServer) {
		row := inputRow{
			body: sendJSON("to", "["+quoted(s.gone)+more+"]"), status: 202,
			answers: func(t *testing.T, _ http.Header, body []byte) {
				var out api.SendResult
				if err := json.Unmarshal(body, &out); err != nil {
					t.Fatal(err)
				}
				if out.Status != status || out.Recipients[0].Status != "suppressed" {
					t.Errorf("answer = %s, want status %s and the first recipient suppressed", body, status)
				}
			},
		}
		row.check(t, s)
	}
}
