//go:build drill

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/sendgate/sendgate/api"
)

// program is a block that is a whole program.
type program struct {
	block
	file string // as its first line says: send.*, or receive.*
}

var firstLine = regexp.MustCompile(`^(?:<\?php )?(?://|#) ([A-Za-z]+\.[a-z]+)`)

// programs returns the blocks that are programs. For each language there is one that sends and one that receives.
func programs(t *testing.T) []program {
	t.Helper()
	var all []program
	kinds := map[string]int{}
	for _, b := range blocks(t) {
		if _, ok := languages[b.language]; !ok {
			continue
		}
		m := firstLine.FindStringSubmatch(b.text)
		if m == nil {
			t.Fatalf("%s:%d: the first line of the %s block names no file", b.page, b.line, b.language)
		}
		kind, _, _ := strings.Cut(strings.ToLower(m[1]), ".")
		kinds[b.language+" "+kind]++
		all = append(all, program{b, m[1]})
	}
	for name := range languages {
		if kinds[name+" send"] != 1 || kinds[name+" receive"] != 1 {
			t.Errorf("the documents have %d programs in %s that send and %d that receive, want one of each", kinds[name+" send"], name, kinds[name+" receive"])
		}
	}
	return all
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// program runs a program against the dev service.
func (s *stage) program(t *testing.T, p program) {
	args := languages[p.language]
	if p.language != "go" {
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Skipf("%s is not installed: its examples are not run", args[0])
		}
	}
	dir := t.TempDir()
	receives := strings.HasPrefix(strings.ToLower(p.file), "receive.")
	port := 0
	if receives {
		port, s.ports = s.ports[0], s.ports[1:]
		if !strings.Contains(p.text, "8080") {
			t.Fatalf("%s does not listen on port 8080", p.file)
		}
	}
	file := filepath.Join(dir, p.file)
	s.write(t, dir, p.file, strings.ReplaceAll(p.text, "8080", strconv.Itoa(port)))
	if p.language == "go" {
		build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "program"), file) //nolint:gosec // a document of ours
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if p.language == "php" && !receives {
		args = []string{"php", "{file}"}
	}
	var words []string
	for _, a := range args {
		words = append(words, strings.NewReplacer("{dir}", dir, "{file}", file, "{port}", strconv.Itoa(port)).Replace(a))
	}
	if receives {
		s.receives(t, words, port)
	} else {
		s.sends(t, words)
	}
}

var uuid = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)

// sends runs a program that sends a mail, twice: its idempotency key makes both runs one message. The first run gets a 503, and
// then no answer to a request that was accepted.
func (s *stage) sends(t *testing.T, words []string) {
	t.Helper()
	env := readEnv(t, filepath.Join(s.dev, ".sendgate", "dev.env"))
	var ids []string
	for _, base := range []string{s.troubled(t), s.url} {
		cmd := exec.CommandContext(t.Context(), words[0], words[1:]...) //nolint:gosec // a document of ours
		cmd.Env = append(s.environ(), "SENDGATE_URL="+base, "SENDGATE_API_KEY="+env["SENDGATE_API_KEY"])
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		ids = append(ids, uuid.FindString(string(out)))
		if !regexp.MustCompile(`queued|sending|sent|delivered`).Match(out) {
			t.Errorf("it does not print the status of its message: %s", out)
		}
	}
	m, err := s.mail.Message(t.Context(), ids[0])
	if err != nil || ids[1] != ids[0] || m.Subject != "Your order" || len(m.Recipients) != 1 || m.Recipients[0].Email != "ann@example.org" {
		t.Errorf("two runs made the messages %s: %+v, %v", ids, m, err)
	}
}

// troubled is an address at which the first send is refused with a 503, and the second is accepted but not answered.
func (s *stage) troubled(t *testing.T) string {
	t.Helper()
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	var sends atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			proxy.ServeHTTP(w, r)
			return
		}
		switch sends.Add(1) {
		case 1:
			w.Header().Set("Retry-After", "1")
			http.Error(w, `{"code":"draining"}`, http.StatusServiceUnavailable)
		case 2:
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		srv.Close()
		if n := sends.Load(); n != 3 {
			t.Errorf("it sent %d requests, want one that is refused, one without an answer, and one that is answered", n)
		}
	})
	return srv.URL
}

// receives runs a program that takes webhooks, and sends it a true one and forged ones.
func (s *stage) receives(t *testing.T, words []string, port int) {
	t.Helper()
	hook := fmt.Sprintf("http://127.0.0.1:%d/", port)
	var endpoint api.WebhookEndpoint
	if err := json.Unmarshal([]byte(s.sh(t, s.dev, nil, "sendgate webhooks add "+hook+" --type bounced --json")), &endpoint); err != nil {
		t.Fatal(err)
	}
	out := &output{}
	cmd := exec.CommandContext(t.Context(), words[0], words[1:]...) //nolint:gosec // a document of ours
	cmd.Env, cmd.Stdout, cmd.Stderr = append(s.environ(), "WEBHOOK_SECRET="+endpoint.Secret), out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { //nolint:forbidigo // it waits for another program
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it does not listen: %v\n%s", err, out.text())
		}
	}

	s.sh(t, s.dev, nil, "sendgate webhooks test "+endpoint.ID)
	out.await(t, `"type":"message.`)

	body := []byte(`{"type":"message.forged"}`)
	sign := func(secret string, at time.Time) string {
		library, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := library.Sign("msg_1", at, body)
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
	now := time.Now()
	other := "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	for name, c := range map[string]struct {
		at        time.Time
		signature string
		want      int
	}{
		"one of two":     {now, sign(other, now) + " " + sign(endpoint.Secret, now), http.StatusNoContent},
		"another secret": {now, sign(other, now), http.StatusBadRequest},
		"old":            {now.Add(-time.Hour), sign(endpoint.Secret, now.Add(-time.Hour)), http.StatusBadRequest},
		"another time":   {now.Add(time.Minute), sign(endpoint.Secret, now), http.StatusBadRequest},
		"none":           {now, "", http.StatusBadRequest},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, hook, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("webhook-id", "msg_1")
		req.Header.Set("webhook-timestamp", strconv.FormatInt(c.at.Unix(), 10))
		if c.signature != "" {
			req.Header.Set("webhook-signature", c.signature)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out.text())
		}
		_ = resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s: answered %d, want %d\n%s", name, resp.StatusCode, c.want, out.text())
		}
	}
	out.await(t, "message.forged")
	if n := strings.Count(out.text(), "message.forged"); n != 1 {
		t.Errorf("it took %d of the requests, want the one with a good signature\n%s", n, out.text())
	}
}

// output is what a program printed so far.
type output struct {
	mu   sync.Mutex
	seen []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, p...)
	return len(p), nil
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.seen)
}

// await waits until the program has printed a text: it may answer a request first.
func (o *output) await(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !strings.Contains(o.text(), text); time.Sleep(20 * time.Millisecond) { //nolint:forbidigo // it waits for another program
		if time.Now().After(end) {
			t.Errorf("it does not print %s:\n%s", text, o.text())
			return
		}
	}
}
