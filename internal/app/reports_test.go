//go:build drill

package app

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
)

// reportCase is a mail to the bounce address of a message, or to the address for complaints, and its expected effect.
type reportCase struct {
	Case       string
	Rcpt       string   // verp: of a message to ann; verp2: of one to ann and bob; fbl: the box, about a message to ann
	Want       []string // of each recipient: who, status, and where they matter class and reason
	Suppressed []string
	Ignored    bool   // nothing of it is kept
	Mail       string // with @VERP@ for the bounce address
}

func readReportCases(t *testing.T) []reportCase {
	t.Helper()
	raw, err := os.ReadFile("../provider/smtp/testdata/cases.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var all []reportCase
	for d := json.NewDecoder(bytes.NewReader(raw)); d.More(); {
		var c reportCase
		if err := d.Decode(&c); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// Each report comes to the LMTP server, as a relay delivers it.
func TestReportsActForTheirOwnRecipients(t *testing.T) {
	t.Parallel()
	b, settings := newCircle(t)
	r := b.start(t, settings...)
	const key, domain = "7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e", "bounces.reports.test"
	b.amend(t, r, "smtp", func(s map[string]any) { s["bounce_domain"] = domain }, map[string]string{"verp_key": key})
	cases := readReportCases(t)
	all := make([]api.SendRequest, len(cases))
	for i, c := range cases {
		all[i] = letterTo("smtp", "ann@example.org")
		if c.Rcpt == "verp2" {
			all[i].To = append(all[i].To, api.Address{Email: "bob@example.org"})
		}
	}
	ids := submit(t, r.api, all) // all of them before the first report: it may stop the mail of others
	b.settle(t, settleTime)
	relay := dialRelay(t, settings)
	for i, c := range cases {
		id, err := mail.ParseID(ids[i])
		if err != nil {
			t.Fatal(err)
		}
		// The return path, as documented in docs/postfix.md.
		h := hmac.New(sha256.New, []byte(key))
		h.Write([]byte("sendgate bounce address\x00"))
		h.Write(id[:])
		verp := "b+" + hex.EncodeToString(id[:]) + "." + strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)))[:10] + "@" + domain
		rcpt := map[string]string{"verp": verp, "verp2": verp, "fbl": "fbl@" + domain}[c.Rcpt]
		relay(rcpt, strings.ReplaceAll(c.Mail, "@VERP@", verp))
		got := message(t, r.api, ids[i])
		for j, want := range c.Want {
			if have := reportedFate(&got.Recipients[j]); !strings.HasPrefix(have+" ", want+" ") {
				t.Errorf("%s: recipient is %q, want %q", c.Case, have, want)
			}
		}
		kept := slices.ContainsFunc(got.Events, func(e api.Event) bool { return e.Source == "webhook" })
		if kept == c.Ignored {
			t.Errorf("%s: an event is kept: %v", c.Case, kept)
		}
		var suppressed []string
		for _, s := range suppressions(t, r.api) {
			suppressed = append(suppressed, strings.TrimSuffix(s.Email, "@example.org"))
		}
		if diff := cmp.Diff(c.Suppressed, append([]string{}, suppressed...)); diff != "" {
			t.Errorf("%s: suppressed (-want +got):\n%s", c.Case, diff)
		}
		if _, err := b.rows.Exec(t.Context(), `DELETE FROM suppression; DELETE FROM soft_bounce`); err != nil {
			t.Fatal(err)
		}
	}
}

// reportedFate describes the status of a recipient in a few words.
func reportedFate(r *api.Recipient) string {
	local, _, _ := strings.Cut(r.Email, "@")
	words := []string{local, r.Status}
	if r.Bounce != nil {
		words = append(words, r.Bounce.Class, r.Bounce.Reason)
	}
	return strings.Join(words, " ")
}

// dialRelay gives a function that delivers a mail by LMTP from the null address, and fails the test if it is refused.
func dialRelay(t *testing.T, settings []string) func(rcpt, body string) {
	t.Helper()
	var addr string
	for _, s := range settings {
		if value, ok := strings.CutPrefix(s, "SENDGATE_LMTP_LISTEN="); ok {
			addr = value
		}
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := smtp.NewClientLMTP(conn)
	t.Cleanup(func() { _ = c.Close() })
	return func(rcpt, body string) {
		t.Helper()
		if err := errors.Join(c.Mail("", nil), c.Rcpt(rcpt, nil)); err != nil {
			t.Fatal(err)
		}
		w, err := c.Data()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
		if _, err := w.CloseWithLMTPResponse(); err != nil {
			t.Errorf("%s: %v", rcpt, err)
		}
	}
}
