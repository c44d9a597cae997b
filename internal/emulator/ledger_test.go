package emulator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/emulator/catalog"
)

// crashed copies a ledger file as a kill -9 would leave it: while the emulator runs.
func crashed(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(t.TempDir(), "ledger.jsonl")
	if err := os.WriteFile(left, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return left
}

func TestLedgerIsOnDiskBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	b := start(t, emulator.Options{LedgerPath: path})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			body := postmarkBody("Metadata", object{"gw_msg": fmt.Sprintf("m%d", i)})
			a, err := b.try("POST", "/postmark/email", toJSON(t, body), postmarkHeader(key("postmark", "server_token")))
			raw, readErr := os.ReadFile(path)
			if err != nil || readErr != nil || a.status != 200 || !strings.Contains(string(raw), fmt.Sprintf(`"message_id":"m%d"`, i)) {
				t.Errorf("message %d = %d (%v, %v), want it accepted and in the file at once", i, a.status, err, readErr)
			}
		})
	}
	wg.Wait()
	again := start(t, emulator.Options{LedgerPath: crashed(t, path)})
	if diff := cmp.Diff(b.Ledger(), again.Ledger()); diff != "" || len(again.Ledger()) != 50 {
		t.Errorf("ledger after the crash has %d entries (-before +after):\n%s", len(again.Ledger()), diff)
	}
}

func TestLedgerLineHasTheContractsNames(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	b := start(t, emulator.Options{LedgerPath: path})
	b.postmark(t, "/email", postmarkBody())
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var line map[string]any
	fromJSON(t, string(raw), &line)
	at, _ := line["at"].(string)
	if _, err := time.Parse("2006-01-02T15:04:05.000000Z", at); err != nil {
		t.Errorf("at: %v", err)
	}
	delete(line, "at")
	want := map[string]any{
		"provider": "postmark", "message_id": "m1", "provider_message_id": b.Ledger()[0].ProviderMessageID,
		"from": "shop@example.com", "to": []any{"ann@example.org"}, "subject": "Hello", "outcome": "delivered",
	}
	if diff := cmp.Diff(want, line); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v, want 0600", info.Mode(), err)
	}
}

func TestLedgerCutsATornEnd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	b := start(t, emulator.Options{LedgerPath: path})
	b.postmark(t, "/email", postmarkBody())
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, torn := range map[string]string{"half a line": string(whole[:40]), "zeros": "\x00\x00\x00\n", "no newline": string(whole[:len(whole)-1])} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			left := crashed(t, path)
			appendTo(t, left, torn)
			again := start(t, emulator.Options{LedgerPath: left})
			if n := len(again.Ledger()); n != 1 {
				t.Errorf("ledger has %d entries, want 1", n)
			}
			again.postmark(t, "/email", postmarkBody("To", "bob@example.org"))
			third := start(t, emulator.Options{LedgerPath: crashed(t, left)})
			if l := third.Ledger(); len(l) != 2 || l[1].To[0] != "bob@example.org" {
				t.Errorf("ledger after one more message = %+v", l)
			}
		})
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestLedgerDamagedInTheMiddleIsNotCut(t *testing.T) {
	t.Parallel()
	const line = `{"provider":"ses","at":"2026-01-01T00:00:00Z","message_id":"m1","to":["a@example.org"]}` + "\n"
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	if err := os.WriteFile(path, []byte(line+"damage\n"+line), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := catalog.New(emulator.Options{LedgerPath: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "line 2 is not an entry, but line 3 is") {
		t.Errorf("Start = %v", err)
	}
	if raw, err := os.ReadFile(path); err != nil || len(raw) != 2*len(line)+len("damage\n") {
		t.Errorf("file has %d bytes (%v), want it untouched", len(raw), err)
	}
}

func TestLedgerOutlivesARestartAndTakesMore(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	for i := range 3 {
		b := start(t, emulator.Options{LedgerPath: path})
		b.postmark(t, "/email", postmarkBody())
		if n := len(b.Ledger()); n != i+1 {
			t.Errorf("run %d: ledger has %d entries, want %d", i, n, i+1)
		}
		if err := b.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLedgerQueries(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	for i, to := range []string{"a@example.org", "b@example.org", "c@example.org"} {
		b.postmark(t, "/email", postmarkBody("To", to))
		if i == 1 {
			b.sendGrid(t, sendGridBody())
		}
	}
	since := "since=" + b.Ledger()[1].At.Format(time.RFC3339Nano)
	tests := []struct {
		query string
		want  string
	}{
		{"", "a b ann c"},
		{"provider=sendgrid", "ann"},
		{"provider=ses", ""},
		{"limit=2", "a b"},
		{since, "b ann c"},
		{since + "&provider=postmark&limit=1", "b"},
	}
	for _, tc := range tests {
		var entries []emulator.Entry
		a := b.do(t, "GET", "/_ledger?"+tc.query, "", nil)
		fromJSON(t, a.body, &entries)
		if got := recipients(entries); a.status != 200 || got != tc.want || !strings.HasPrefix(a.body, "[") {
			t.Errorf("GET /_ledger?%s = %d %q, want %q", tc.query, a.status, got, tc.want)
		}
		entries = nil
		lines := b.do(t, "GET", "/_ledger?"+tc.query, "", map[string]string{"Accept": "application/x-ndjson"})
		for line := range strings.Lines(lines.body) {
			var e emulator.Entry
			fromJSON(t, line, &e)
			entries = append(entries, e)
		}
		if got := recipients(entries); got != tc.want || lines.header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("ndjson of %s = %q, want %q", tc.query, got, tc.want)
		}
	}
	for _, bad := range []string{"provider=acme", "since=yesterday", "limit=0", "limit=x", "from=a"} {
		if a := b.do(t, "GET", "/_ledger?"+bad, "", nil); a.status != 400 || !json.Valid([]byte(a.body)) {
			t.Errorf("GET /_ledger?%s = %d %s, want 400", bad, a.status, a.body)
		}
	}
}

func recipients(entries []emulator.Entry) string {
	var all []string
	for _, e := range entries {
		local, _, _ := strings.Cut(e.To[0], "@")
		all = append(all, local)
	}
	return strings.Join(all, " ")
}

func TestLedgerDeleteEmptiesTheFileToo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	b := start(t, emulator.Options{LedgerPath: path})
	b.postmark(t, "/email", postmarkBody())
	if a := b.do(t, "DELETE", "/_ledger", "", nil); a.status != 204 {
		t.Errorf("DELETE = %d %s", a.status, a.body)
	}
	if raw, err := os.ReadFile(path); err != nil || len(raw) != 0 {
		t.Errorf("file has %d bytes (%v), want none", len(raw), err)
	}
	b.postmark(t, "/email", postmarkBody("To", "bob@example.org"))
	again := start(t, emulator.Options{LedgerPath: crashed(t, path)})
	if got := recipients(again.Ledger()); got != "bob" {
		t.Errorf("ledger after the crash = %q, want bob", got)
	}
	if a := b.do(t, "GET", "/_ledger?provider=ses", "", nil); a.body != "[]\n" {
		t.Errorf("empty ledger = %q, want []", a.body)
	}
}
