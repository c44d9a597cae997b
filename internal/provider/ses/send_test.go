package ses

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/mime"
	"github.com/sendgate/sendgate/internal/provider/providertest"
)

// counting answers every request with the status and counts them.
func counting(t *testing.T, status int) (url string, count *atomic.Int64) {
	t.Helper()
	count = &atomic.Int64{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		count.Add(1)
		w.WriteHeader(status)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, count
}

// The SDK takes retry settings from these variables when its client is made from aws.Config. Not parallel: it sets the
// environment.
func TestEnvironmentBringsNoRetries(t *testing.T) {
	t.Setenv("AWS_MAX_ATTEMPTS", "5")
	t.Setenv("AWS_RETRY_MODE", "adaptive")
	t.Setenv("AWS_NEW_RETRIES_2026", "true")
	t.Setenv("AWS_ENDPOINT_URL_SESV2", "http://127.0.0.1:1")
	t.Setenv("AWS_ACCESS_KEY_ID", testKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", testSecret)
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	for _, status := range []int{429, 500, 503} {
		url, count := counting(t, status)
		for name, config := range map[string]Config{
			"own keys": testConfig(url),
			"chain":    {Region: "eu-west-1", BaseURL: url, UseDefaultCredentials: true},
		} {
			count.Store(0)
			if _, err := newClient(t, config).Send(t.Context(), providertest.PlainSend()); err == nil {
				t.Errorf("%s: Send on status %d succeeded", name, status)
			}
			if n := count.Load(); n != 1 {
				t.Errorf("%s: requests on status %d = %d, want 1", name, status, n)
			}
		}
	}
}

// Not parallel: it sets the environment.
func TestExpiredTokenOfTheChainIsTransientAndFetchedAnew(t *testing.T) {
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	var fetched, calls atomic.Int64
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"AccessKeyId":"AKID%d","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}`, fetched.Add(1))
	}))
	t.Cleanup(issuer.Close)
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", issuer.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			w.Header().Set("X-Amzn-ErrorType", "ExpiredTokenException")
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if !strings.Contains(r.Header.Get("Authorization"), "AKID2/") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		accept(w, r)
	}))
	t.Cleanup(srv.Close)
	client := newClient(t, Config{Region: "eu-west-1", BaseURL: srv.URL, UseDefaultCredentials: true})

	_, err := client.Send(t.Context(), providertest.PlainSend())
	providertest.CheckClass(t, err, provider.Transient)
	if n := calls.Load(); n != 1 {
		t.Errorf("requests in one Send = %d, want 1", n)
	}
	_, err = client.Send(t.Context(), providertest.PlainSend())
	providertest.CheckClass(t, err, provider.Accepted)
}

// Not parallel: it sets the environment.
func TestMissingCredentialsAreTransientAndMakeNoCall(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "",
		"AWS_WEB_IDENTITY_TOKEN_FILE": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "",
		"AWS_CONFIG_FILE": filepath.Join(t.TempDir(), "none"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(t.TempDir(), "none"),
	} {
		t.Setenv(name, value)
	}
	url, count := counting(t, http.StatusOK)
	client := newClient(t, Config{Region: "eu-west-1", BaseURL: url, UseDefaultCredentials: true})
	_, err := client.Send(t.Context(), providertest.PlainSend())
	providertest.CheckClass(t, err, provider.Transient)
	if n := count.Load(); n != 0 {
		t.Errorf("requests without credentials = %d, want 0", n)
	}
}

func input(t *testing.T, m *mail.Message) wire {
	t.Helper()
	var got wire
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = readWire(body)
		accept(w, r)
	}))
	defer srv.Close()
	client := newClient(t, testConfig(srv.URL))
	if _, err := client.Send(t.Context(), &provider.Send{Message: m, To: m.To, Attempt: 1}); err != nil {
		t.Fatalf("Send: %v", err)
	}
	return got
}

func TestTagsCarryOurIDAndTheMetadataThatFits(t *testing.T) {
	t.Parallel()
	m := providertest.Plain()
	m.Metadata = map[string]string{
		"order_id": "42-a_B", "with space": "1", "colon:": "1", "umlaut": "ä", "empty": "", "long": strings.Repeat("x", 257),
		"just": strings.Repeat("x", 256), provider.MessageKey: "forged",
	}
	got := map[string]string{}
	for _, tag := range input(t, m).EmailTags {
		got[tag.Name] = tag.Value
	}
	want := map[string]string{provider.MessageKey: m.ID.String(), "just": strings.Repeat("x", 256), "order_id": "42-a_B"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
}

func TestTagsStopAtFifty(t *testing.T) {
	t.Parallel()
	m := providertest.Plain()
	m.Metadata = map[string]string{}
	for i := range 80 {
		m.Metadata[fmt.Sprintf("k%02d", i)] = "v"
	}
	tags := input(t, m).EmailTags
	if len(tags) != 50 || tags[0].Name != provider.MessageKey || tags[49].Name != "k48" {
		t.Errorf("tags = %d, first %s, last %s; want 50, %s, k48", len(tags), tags[0].Name, tags[len(tags)-1].Name, provider.MessageKey)
	}
}

func TestAddressesAreASCII(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"":              "a@example.org",
		"Ann":           `"Ann" <a@example.org>`,
		`A "B" \ <c>`:   `"A \"B\" \\ <c>" <a@example.org>`,
		"Änne, GmbH":    "=?utf-8?b?w4RubmUsIEdtYkg=?= <a@example.org>",
		"=?utf-8?q?x?=": "=?utf-8?b?PT91dGYtOD9xP3g/PQ==?= <a@example.org>",
	} {
		if got := address(mail.Address{Email: "a@example.org", Name: name}); got != want {
			t.Errorf("address(%q) = %s, want %s", name, got, want)
		}
	}
	if got := address(mail.Address{Email: "a@example.org", Name: strings.Repeat("ž", 300)}); strings.ContainsAny(got, "\r\n") {
		t.Error("a long name brings a line break into the address")
	}
}

func TestWhatSimpleCannotCarryGoesAsRaw(t *testing.T) {
	t.Parallel()
	headers := func(hs ...mail.Header) func(*mail.Message) {
		return func(m *mail.Message) { m.Headers = hs }
	}
	header := func(name, value int) func(*mail.Message) {
		return headers(mail.Header{Name: strings.Repeat("X", name), Value: strings.Repeat("v", value)})
	}
	many := func(n int) func(*mail.Message) {
		return func(m *mail.Message) {
			for i := range n {
				m.Headers = append(m.Headers, mail.Header{Name: fmt.Sprintf("X-%d", i), Value: "v"})
			}
		}
	}
	file := func(f mail.Attachment) func(*mail.Message) {
		return func(m *mail.Message) { m.Attachments = []mail.Attachment{f} }
	}
	for name, c := range map[string]struct {
		change func(*mail.Message)
		raw    bool
	}{
		"plain":               {func(*mail.Message) {}, false},
		"15 headers":          {many(15), false},
		"16 headers":          {many(16), true},
		"100 headers":         {many(100), true},
		"empty value":         {headers(mail.Header{Name: "X-Empty"}), true},
		"TAB":                 {headers(mail.Header{Name: "X-Tab", Value: "a\tb"}), true},
		"TAB in the subject":  {func(m *mail.Message) { m.Subject = "a\tb" }, true},
		"value at its cap":    {header(1, 995), false},
		"encoded value":       {headers(mail.Header{Name: "X", Value: strings.Repeat("ž", 300)}), true},
		"look-alike value":    {headers(mail.Header{Name: "X", Value: "=?utf-8?q?x?="}), false},
		"look-alike subject":  {func(m *mail.Message) { m.Subject = "=?utf-8?q?x?=" }, true},
		"file name":           {file(mail.Attachment{Filename: strings.Repeat("f", 256), Content: []byte("x")}), true},
		"look-alike name":     {file(mail.Attachment{Filename: "=?utf-8?q?x?=.txt"}), true},
		"content type":        {file(mail.Attachment{Filename: "f", ContentType: "text/" + strings.Repeat("x", 74)}), true},
		"content id":          {file(mail.Attachment{Filename: "f", ContentID: strings.Repeat("x", 79)}), true},
		"invitation":          {func(m *mail.Message) { m.Calendar = &mail.Calendar{Method: "REQUEST", Content: "x\r\n"} }, true},
		"long References":     {headers(mail.Header{Name: "References", Value: strings.Repeat("<id@mail.example.com> ", 100)}), true},
		"ordinary attachment": {file(mail.Attachment{Filename: "f.pdf", ContentType: "application/pdf", Content: []byte("x")}), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := providertest.Plain()
			c.change(m)
			w := input(t, m)
			if raw := len(w.Content.Raw.Data) > 0; raw != c.raw {
				t.Fatalf("raw = %t, want %t", raw, c.raw)
			}
			if !c.raw {
				return
			}
			want, err := mime.Build(m)
			if err != nil {
				t.Fatal(err)
			}
			if string(w.Content.Raw.Data) != string(want) {
				t.Errorf("Raw is not the message")
			}
			if diff := cmp.Diff([]string{"ann@example.org"}, w.Destination.ToAddresses); diff != "" {
				t.Errorf("destination (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHeaderValueOutsideASCIIIsEncoded(t *testing.T) {
	t.Parallel()
	m := providertest.Plain()
	m.Headers = []mail.Header{{Name: "X-Note", Value: "Grüße"}}
	got := input(t, m).Content.Simple.Headers
	if len(got) != 1 || got[0].Value != "=?utf-8?b?R3LDvMOfZQ==?=" {
		t.Errorf("headers = %v, want one encoded word", got)
	}
}

func TestClockOffsetIsLearntFromTheAnswer(t *testing.T) {
	t.Parallel()
	var dates []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		dates = append(dates, r.Header.Get("X-Amz-Date"))
		w.Header().Set("Date", "Fri, 02 Jan 2099 03:04:05 GMT")
		w.Header().Set("X-Amzn-ErrorType", "InvalidSignatureException")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"message":"Signature expired: it is now 2099"}`))
	}))
	t.Cleanup(srv.Close)
	client := newClient(t, testConfig(srv.URL))
	for range 2 {
		_, err := client.Send(context.Background(), providertest.PlainSend())
		providertest.CheckClass(t, err, provider.Transient)
	}
	if len(dates) != 2 || !strings.HasPrefix(dates[1], "20990102T") {
		t.Errorf("dates of two calls = %v, want one each, the second by the server's clock", dates)
	}
}
