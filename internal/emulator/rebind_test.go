package emulator_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/emulator/catalog"
)

// A page in a browser on this machine can't read the keys or change anything, whether its name was pointed here or it calls
// across origins.
func TestPagesReachNoControl(t *testing.T) {
	t.Parallel()
	e, err := catalog.New(emulator.Options{AllowHosts: []string{"emulators.example"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer e.Stop(context.Background()) //nolint:errcheck // nothing depends on it
	for _, route := range []string{
		"GET /_hooks", "PUT /_hooks", "DELETE /_hooks", "DELETE /_hooks/held", "GET /_ledger", "DELETE /_ledger", "GET /_faults", "PUT /_faults",
		"DELETE /_faults", "GET /_stats", "POST /mailgun/v3/example.com/messages", "POST /sendgrid/v3/mail/send", "GET /ses/v2/email/account",
		"GET /nothing",
	} {
		for name, c := range map[string]struct {
			host, header, value string
			refused             bool
		}{
			"a program":                     {"", "", "", false},
			"localhost":                     {"localhost:1", "", "", false},
			"a name that was allowed":       {"emulators.example:1", "", "", false},
			"a name that was pointed here":  {"evil.example", "", "", true},
			"a name that begins as ours":    {"localhost.evil.example", "", "", true},
			"another machine's address":     {"192.0.2.1", "", "", true},
			"a page of another site":        {"", "Sec-Fetch-Site", "cross-site", true},
			"a page of another origin here": {"", "Origin", "http://127.0.0.1:3000", true},
			"a form without an origin":      {"", "Origin", "null", true},
		} {
			method, path, _ := strings.Cut(route, " ")
			req, err := http.NewRequestWithContext(t.Context(), method, e.URL()+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = c.host
			if c.header != "" {
				req.Header.Set(c.header, c.value)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if got := resp.StatusCode == http.StatusForbidden && strings.Contains(string(body), "--allow-host"); got != c.refused {
				t.Errorf("%s by %s = %d %.80q, want refused: %v", route, name, resp.StatusCode, body, c.refused)
			}
		}
	}
}
