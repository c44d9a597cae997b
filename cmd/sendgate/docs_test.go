//go:build drill

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/cli"
	"github.com/sendgate/sendgate/internal/postgres/pgtest"
)

// asProgram makes the test's own program behave as sendgate, so that nothing has to be built.
const asProgram = "TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	switch os.Getenv(asProgram) {
	case "service":
		os.Exit(run())
	case "1":
		os.Exit(asReader(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// asReader runs one command as a reader of the documents does. A command that runs until it is stopped is stopped once it has
// printed what it is for. A command whose result depends on an event is repeated until the result is there.
func asReader(args []string) int {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	s := cli.Stdio()
	line := strings.Join(args, " ")
	switch {
	case strings.HasPrefix(line, "emulate"):
		s.Out = &until{to: s.Out, sign: "ready", then: stop}
	case strings.HasPrefix(line, "serve"):
		s.Err = &until{to: s.Err, sign: `"msg":"ready"`, then: stop}
	case strings.HasPrefix(line, "events tail"):
		s.Out = &until{to: s.Out, sign: "bounced", then: stop}
	case line == "doctor":
		return asDoctor(ctx, s)
	case strings.HasPrefix(line, "suppressions check"):
		for ctx.Err() == nil {
			if cli.Main(ctx, args, s) == 0 {
				return 0
			}
			time.Sleep(50 * time.Millisecond) //nolint:forbidigo // it tries again, as people do
		}
	}
	return cli.Main(ctx, args, s)
}

// asDoctor ignores the settings of the tests' own server that make it lose data in a crash.
func asDoctor(ctx context.Context, s cli.Streams) int {
	var report bytes.Buffer
	s.Out = io.MultiWriter(s.Out, &report)
	code := cli.Main(ctx, []string{"doctor"}, s)
	for line := range strings.Lines(report.String()) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "FAILED" &&
			!slices.Contains([]string{"fsync", "full_page_writes", "synchronous_commit"}, words[1]) {
			return code
		}
	}
	if !strings.Contains(report.String(), "ok ") {
		return code
	}
	return 0
}

// until calls then once a text (sign) was written.
type until struct {
	mu   sync.Mutex
	to   io.Writer
	seen []byte
	sign string
	then func()
}

func (u *until) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.seen = append(u.seen, p...); bytes.Contains(u.seen, []byte(u.sign)) {
		u.then()
	}
	return u.to.Write(p)
}

// stage is where the blocks run: a dev service, and an installation without accounts for blocks that add some.
type stage struct {
	bin   string // where sendgate is
	dev   string // the folder in which dev runs
	plain string // a folder beside an installation of one's own
	own   []string
	mail  *api.Client

	url      string // of dev
	receiver string // of webhooks
	ports    []int  // free ones, to which dev may send webhooks
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{bin: t.TempDir(), dev: t.TempDir(), plain: t.TempDir()}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	wrapper := fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s' \"$@\"\n", asProgram, program)
	if err := os.WriteFile(filepath.Join(s.bin, "sendgate"), []byte(wrapper), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(receiver.Close)
	s.receiver = receiver.URL
	allow := "SENDGATE_FORWARD_ALLOW=127.0.0.1/32:" + receiver.URL[strings.LastIndexByte(receiver.URL, ':')+1:]
	for range languages {
		port := freePort(t)
		s.ports = append(s.ports, port)
		allow += fmt.Sprintf(",127.0.0.1/32:%d", port)
	}
	s.start(t, s.dev, []string{"SENDGATE_DATABASE_URL=" + pgtest.NewURL(t), allow}, "ready", "dev", "--listen", "127.0.0.1:0", "--limits", "none")
	env := readEnv(t, filepath.Join(s.dev, ".sendgate", "dev.env"))
	s.url = env["SENDGATE_URL"]
	s.mail = api.NewWith(s.url, env["SENDGATE_API_KEY"], http.DefaultClient)

	admin := strings.TrimSpace(s.sh(t, s.plain, nil, "sendgate keys generate"))
	log := s.start(t, s.plain, append(installation(t), "SENDGATE_ADMIN_KEY="+admin), `"msg":"ready"`, "serve")
	url := regexp.MustCompile(`"msg":"ready","url":"([^"]+)"`).FindStringSubmatch(log)
	if url == nil {
		t.Fatalf("serve does not say where it listens: %s", log)
	}
	s.own = []string{"SENDGATE_URL=" + url[1], "SENDGATE_ADMIN_KEY=" + admin}
	return s
}

// installation is the environment of a service with its own database.
func installation(t *testing.T) []string {
	t.Helper()
	return []string{
		"SENDGATE_DATABASE_URL=" + pgtest.NewURL(t), "SENDGATE_SECRET_KEY=" + strings.Repeat("5e", 32),
		"SENDGATE_LISTEN=127.0.0.1:0", "SENDGATE_OPS_LISTEN=127.0.0.1:0", "SENDGATE_DATABASE_CONNECTIONS=8",
	}
}

// start runs a service until the test ends, and returns what it printed once it was ready.
func (s *stage) start(t *testing.T, dir string, env []string, sign string, args ...string) string {
	t.Helper()
	ready := make(chan struct{})
	var text bytes.Buffer
	out := &until{to: &text, sign: sign, then: sync.OnceFunc(func() { close(ready) })}
	cmd := exec.Command(os.Args[0]) //nolint:gosec // this program
	cmd.Args = append([]string{"sendgate"}, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.Env = append(s.environ(), append(env, asProgram+"=service")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("sendgate %s: %v\n%s", args[0], err, text.Bytes())
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("sendgate %s ended: %v\n%s", args[0], err, text.Bytes())
	case <-time.After(2 * time.Minute):
		t.Fatalf("sendgate %s is not ready", args[0])
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	return text.String()
}

func (s *stage) environ() []string {
	return []string{"PATH=" + s.bin + ":" + os.Getenv("PATH"), "HOME=" + s.plain, "TMPDIR=" + os.TempDir()}
}

// sh runs a script, and fails the test if one of its commands fails.
func (s *stage) sh(t *testing.T, dir string, env []string, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", script)
	cmd.Dir, cmd.Env = dir, append(s.environ(), append(env, "ASKED=key-0123456789abcdef0123456789abcdef", "GATEWAY_KEY=a-key-of-the-gateway")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v of\n%s\n%s", err, script, out)
	}
	return string(out)
}

func readEnv(t *testing.T, file string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		vars[name] = value
	}
	return vars
}

// TestEveryDocumentedCommandRuns runs each block of commands that a document shows, in the order of the page.
func TestEveryDocumentedCommandRuns(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"curl", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed, and the documents use it", tool)
		}
	}
	s := newStage(t)
	for _, b := range commandBlocks(t) {
		if b.reason() < 0 {
			t.Run(fmt.Sprintf("%s:%d", b.page, b.line), func(t *testing.T) { s.run(t, b) })
		}
	}
	for _, p := range programs(t) {
		t.Run(p.page+":"+p.file, func(t *testing.T) { s.program(t, p) })
	}
}

var addsOrChanges = regexp.MustCompile(`sendgate providers (?:add|change|limits) ([a-z-]+)`)

// run prepares the objects that a block names, and runs the block.
func (s *stage) run(t *testing.T, b block) {
	script := b.text
	for _, r := range rewrites {
		script = r.find.ReplaceAllString(script, r.with)
	}
	switch accounts := addsOrChanges.FindAllStringSubmatch(script, -1); {
	case strings.Contains(script, "sendgate serve"), strings.Contains(script, "sendgate migrate"), strings.Contains(script, "sendgate restore"):
		s.sh(t, s.plain, s.server(t, script), script)
	case accounts != nil:
		for _, m := range accounts {
			s.haveAccount(t, m[1], strings.Contains(m[0], "add"))
		}
		s.write(t, s.plain, "sendgrid.key", "SG.aaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n")
		s.write(t, s.plain, "resend.key", "re_aaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbb\n")
		s.write(t, s.plain, "resend.secret", "whsec_"+strings.Repeat("QUFB", 8)+"\n")
		s.write(t, s.plain, "relay.password", "a-password-of-the-relay\n")
		s.write(t, s.plain, "client.secret", "a-secret-of-the-client\n")
		s.write(t, s.plain, "refresh.token", "a-token-to-refresh-by\n")
		env := append([]string{"AWS_ACCESS_KEY_ID=AKIA0000000000000000", "AWS_SECRET_ACCESS_KEY=" + strings.Repeat("a", 40)}, s.own...)
		s.sh(t, s.plain, env, script)
	default:
		s.write(t, s.dev, "bounces.csv", "email,reason\nbob@example.org,hard_bounce\n")
		s.write(t, s.dev, "body.json", "{}\n")
		s.write(t, s.dev, "password", "a-password-of-the-endpoint\n")
		s.write(t, s.dev, "fitting.ics", fitting)
		defer s.busy(t, script)()
		s.sh(t, s.dev, s.fixtures(t, script), script)
	}
}

// fitting is an invitation, in the lines of RFC 5545.
const fitting = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//example.com//shop//EN\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nUID:fitting-1@example.com\r\n" +
	"DTSTAMP:20261130T080000Z\r\nDTSTART:20261207T090000Z\r\nDTEND:20261207T093000Z\r\nSUMMARY:Fitting\r\nORGANIZER:mailto:shop@example.com\r\n" +
	"ATTENDEE:mailto:ann@example.org\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"

func (s *stage) write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// server is the environment of a block that runs the service itself.
func (s *stage) server(t *testing.T, script string) []string {
	t.Helper()
	env := installation(t)
	s.write(t, s.plain, "secret", strings.Repeat("5e", 32)+"\n")
	env = append(env, "DATABASE="+strings.TrimPrefix(env[0], "SENDGATE_DATABASE_URL="), "SECRETFILE="+filepath.Join(s.plain, "secret"))
	if strings.Contains(script, "SECRETFILE") {
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, "SENDGATE_SECRET_KEY=") })
	}
	return env
}

// haveAccount makes sure that an account exists, so that it can be changed, or does not exist, so that it can be added.
func (s *stage) haveAccount(t *testing.T, name string, absent bool) {
	t.Helper()
	admin := api.NewWith(strings.TrimPrefix(s.own[0], "SENDGATE_URL="), strings.TrimPrefix(s.own[1], "SENDGATE_ADMIN_KEY="), http.DefaultClient)
	_, err := admin.Account(t.Context(), name)
	there := err == nil
	switch {
	case there && absent:
		if err := admin.DeleteAccount(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	case !there && !absent:
		accounts := map[string]string{
			"sendgrid": "--kind sendgrid --secret api_key=env:ASKED", "mailgun": "--kind mailgun --set domain=mg.example.com --secret api_key=env:ASKED",
			"postmark": "--kind postmark --secret server_token=env:ASKED", "resend": "--kind resend --secret api_key=env:ASKED",
			"relay":  "--kind smtp --set host=mail.internal --set port:=25",
			"ses-eu": "--kind ses --set region=eu-west-1 --set use_default_credentials:=true",
		}
		flags, ok := accounts[name]
		if !ok {
			t.Fatalf("the table accounts in docs_test.go has no flags for the account %s, which a document changes: add them", name)
		}
		s.sh(t, s.plain, s.own, "sendgate providers add "+name+" "+flags)
	}
}

// fixtures makes the objects that a block names, in the state that its commands need, and returns their ids as variables.
func (s *stage) fixtures(t *testing.T, script string) []string {
	t.Helper()
	var env []string
	send := func(name, flags string) {
		out := s.sh(t, s.dev, nil, "sendgate send --from shop@example.com --subject Hi --text Hi --json "+flags)
		var sent struct{ ID string }
		if err := json.Unmarshal([]byte(out), &sent); err != nil {
			t.Fatalf("send %s: %v: %s", flags, err, out)
		}
		env = append(env, name+"="+sent.ID)
		for name == "FAILED" {
			m, err := s.mail.Message(t.Context(), sent.ID)
			if err != nil {
				t.Fatal(err)
			}
			if m.Status == "failed" {
				break
			}
			time.Sleep(20 * time.Millisecond) //nolint:forbidigo // the test's deadline bounds it
		}
	}
	for _, f := range []struct{ name, flags string }{
		{"SENT", "--to carol@example.org"},
		{"SCHEDULED", "--to carol@example.org --send-at " + time.Now().Add(time.Hour).UTC().Format(time.RFC3339)},
		{"FAILED", "--to reject@example.org --account smtp"},
	} {
		if strings.Contains(script, "$"+f.name) {
			send(f.name, f.flags)
		}
	}
	if strings.Contains(script, "$ENDPOINT") {
		out := s.sh(t, s.dev, nil, "sendgate webhooks add "+s.receiver+" --json")
		var made api.WebhookEndpoint
		if err := json.Unmarshal([]byte(out), &made); err != nil {
			t.Fatalf("webhooks add: %v: %s", err, out)
		}
		env = append(env, "ENDPOINT="+made.ID)
	}
	if strings.Contains(script, "$KEYID") {
		out := s.sh(t, s.dev, nil, "sendgate keys create old --scope read --json")
		var made api.Key
		if err := json.Unmarshal([]byte(out), &made); err != nil {
			t.Fatalf("keys create: %v: %s", err, out)
		}
		env = append(env, "KEYID="+made.ID)
	}
	if strings.Contains(script, "suppressions check ann@") {
		s.sh(t, s.dev, nil, "sendgate suppressions add ann@example.org")
	}
	if strings.Contains(script, "$SENDGATE_URL") && !strings.Contains(script, "dev.env") {
		for name, value := range readEnv(t, filepath.Join(s.dev, ".sendgate", "dev.env")) {
			env = append(env, name+"="+value)
		}
	}
	return append(env, "HERE="+s.url, "RECEIVER="+s.receiver, "SECRET=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "ID=01939f3e-9c11-7d8a-b0c4-52f1c6a7e901", "TIMESTAMP=1790000017")
}

// busy sends mail that bounces while a block follows events.
func (s *stage) busy(t *testing.T, script string) (stop func()) {
	t.Helper()
	if !strings.Contains(script, "events tail") && !strings.Contains(script, "events/stream") {
		return func() {}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		account := "mailgun"
		for n := 0; ctx.Err() == nil; n++ {
			_, err := s.mail.Send(ctx, api.SendRequest{
				From: api.Address{Email: "shop@example.com"}, To: []api.Address{{Email: fmt.Sprintf("bounce+%d-%d@example.org", os.Getpid(), time.Now().UnixNano())}},
				Subject: "Hi", Text: "Hi", Account: &account,
			}, "")
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("send: %v", err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return func() { cancel(); <-done }
}
