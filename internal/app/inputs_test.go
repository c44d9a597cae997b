package app

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/api"
)

// The table of all bad inputs is in package httpapi. This test checks that nothing is stored for them.
func TestRefusedInputsLeaveNoRow(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	r := b.start(t)
	if _, err := r.admin.CreateKey(t.Context(), api.KeyRequest{Name: "reads", Scopes: []string{"read"}}); err != nil {
		t.Fatal(err)
	}
	valid := `{"from":"shop@example.com","to":["ann@example.org"],"subject":"hi","text":"hello"}`
	swap := func(old, with string) string { return strings.Replace(valid, old, with, 1) }
	many := make([]string, 5000)
	for i := range many {
		many[i] = fmt.Sprintf("ann%d@example.org", i)
	}
	rows := []struct {
		name, body string
		header     map[string]string
		status     int
	}{
		{"no JSON", `{"from":`, nil, http.StatusBadRequest},
		{"a member twice", swap(`"subject":"hi"`, `"subject":"hi","subject":"ho"`), nil, http.StatusBadRequest},
		{"trailing data", valid + `{}`, nil, http.StatusBadRequest},
		{"an unknown member", swap(`"subject"`, `"subjct"`), nil, 0},
		{"no recipient", swap(`["ann@example.org"]`, `[]`), nil, http.StatusUnprocessableEntity},
		{"an address without a domain", swap(`ann@example.org`, `ann`), nil, http.StatusUnprocessableEntity},
		{"a line break in the subject", swap(`"hi"`, `"hi\r\nBcc: eve@example.net"`), nil, http.StatusUnprocessableEntity},
		{"a NUL in the text", swap(`"hello"`, `"hel\u0000lo"`), nil, 0},
		{"an account that is not there", swap(`"text"`, `"account":"nobody","text"`), nil, http.StatusUnprocessableEntity},
		{"an expiry in the past", swap(`"text"`, `"expires_at":"2020-01-01T00:00:00Z","text"`), nil, http.StatusUnprocessableEntity},
		{"no key", valid, map[string]string{"Authorization": ""}, http.StatusUnauthorized},
		{"a wrong key", valid, map[string]string{"Authorization": "Bearer sg_00000000_nonsense"}, http.StatusUnauthorized},
		{"an admin key", valid, map[string]string{"Authorization": "Bearer " + b.keys.admin}, http.StatusForbidden},
		{"a form", valid, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, http.StatusUnsupportedMediaType},
		{"an endless idempotency key", valid, map[string]string{"Idempotency-Key": strings.Repeat("k", 1000)}, 0},
		{"a control character in the text's neighbour", swap(`"hello"`, "\"hel\x01lo\""), nil, 0},
		{"too many recipients", swap(`["ann@example.org"]`, `["`+strings.Join(many, `","`)+`"]`), nil, 0},
	}
	for i, row := range rows {
		header := map[string]string{
			"Authorization": "Bearer " + b.keys.api, "Content-Type": "application/json", "Idempotency-Key": fmt.Sprintf("row-%d", i),
		}
		for name, value := range row.header {
			header[name] = value
		}
		status := post(t, b, r.url+"/v1/send", row.body, header)
		if status < 400 || status > 499 || row.status != 0 && status != row.status {
			t.Errorf("%s: status = %d, want %d", row.name, status, row.status)
		}
	}
	for _, table := range []string{"message", "body", "recipient", "idempotency", "ready", "inflight"} {
		if n := b.count(t.Context(), "SELECT count(*) FROM "+table); n != 0 {
			t.Errorf("rows in %s after refusals only = %d, want 0", table, n)
		}
	}

	mixed := fmt.Sprintf(`{"messages":[%s,%s,%s]}`, valid, swap(`ann@example.org`, `ann`), valid)
	if status := post(t, b, r.url+"/v1/send/batch", mixed, map[string]string{
		"Authorization": "Bearer " + b.keys.api, "Content-Type": "application/json",
	}); status != http.StatusAccepted {
		t.Errorf("a batch with one bad item: status = %d, want 202", status)
	}
	if n := b.count(t.Context(), "SELECT count(*) FROM message"); n != 2 {
		t.Errorf("messages of a batch with one bad item of three = %d, want 2", n)
	}
	b.settle(t, settleTime)
	if n := len(b.emu.Ledger()); n != 2 {
		t.Errorf("ledger entries = %d, want 2", n)
	}
}

func post(t *testing.T, b *bench, url, body string, header map[string]string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}
