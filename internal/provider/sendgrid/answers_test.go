package sendgrid

import (
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/seal"
)

func TestEveryCodeNamesItsSource(t *testing.T) {
	t.Parallel()
	for _, c := range codes() {
		if c.source == "" || !slices.Contains(provider.Classes(), c.class) {
			t.Errorf("row %d %q is incomplete", c.status, c.text)
		}
	}
}

func TestThrottleEndsAtTheReset(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_790_000_000, 0)
	for reset, want := range map[string]time.Duration{
		"1790000042":           42 * time.Second,
		" 1790000042 ":         42 * time.Second,
		"1790000000":           time.Second,
		"0":                    0,
		"-3":                   0,
		"soon":                 0,
		"9223372036854775807":  esphttp.MaxRetryAfter,
		"-9223372036854775808": 0,
	} {
		a := answer{Status: http.StatusTooManyRequests, Header: http.Header{"X-Ratelimit-Reset": {reset}}}
		_, perr := a.verdict(build(Config{}, providertest.PlainSend()), false, now)
		if perr.Class != provider.Throttled || perr.RetryAfter != want {
			t.Errorf("reset %q: %s after %s, want throttled after %s", reset, perr.Class, perr.RetryAfter, want)
		}
	}
}

func TestRegionChoosesTheHost(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]Config{
		"https://api.sendgrid.com":    {},
		"https://api.eu.sendgrid.com": {Region: "eu"},
		"http://127.0.0.1/sendgrid":   {BaseURL: "http://127.0.0.1/sendgrid/"},
	} {
		if got := cfg.host(); got != want {
			t.Errorf("host = %s, want %s", got, want)
		}
	}
}

// FuzzVerdict checks that no answer makes a panic, an acceptance out of a non-2xx, or a refusal of somebody we did not send
// to.
func FuzzVerdict(f *testing.F) {
	f.Add(202, "LRzX_m_A", "", "")
	f.Add(200, "", "", "<html>")
	f.Add(400, "", "", `{"errors":[{"message":"bad","field":"personalizations.0.to.0.email","help":null}]}`)
	f.Add(400, "", "", `{"errors":[{"message":"Bad Request","field":null}]}`)
	f.Add(403, "", "", `{"errors":[{"message":"The from address does not match a verified Sender Identity."}]}`)
	f.Add(429, "", "1790000000", `{"errors":[{"message":"too many requests"}]}`)
	c, err := New(Config{APIKey: seal.NewSecret("SG.x")})
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(1_790_000_000, 0)
	f.Fuzz(func(t *testing.T, status int, id, reset, body string) {
		s := providertest.Samples()[2].Send
		a := answer{Status: status, Header: http.Header{"X-Message-Id": {id}, "X-Ratelimit-Reset": {reset}}, Body: []byte(body)}
		r, err := c.judge(a, build(Config{}, s), now)
		if err == nil {
			if status < 200 || status > 299 || len(r.ProviderMessageID) > provider.MaxDetail {
				t.Fatalf("status %s was accepted as %q", strconv.Itoa(status), r.ProviderMessageID)
			}
			return
		}
		perr := providertest.AsError(t, err)
		if !slices.Contains(provider.Classes(), perr.Class) || perr.Class == provider.Accepted || perr.RetryAfter < 0 || len(perr.Detail) > provider.MaxDetail {
			t.Fatalf("verdict = %+v", perr)
		}
		if (perr.Class == provider.BadRecipient) != (len(perr.Refused) > 0) {
			t.Fatalf("class %s with %d refused", perr.Class, len(perr.Refused))
		}
		for _, refusal := range perr.Refused {
			if !slices.ContainsFunc(s.Envelope(), func(a mail.Address) bool { return a.Email == refusal.Email }) {
				t.Fatalf("refused somebody else: %q", refusal.Email)
			}
		}
	})
}
