package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"go.uber.org/goleak"
)

// asProgram makes the test's own program behave as sendgate, so that a shell or a terminal can run it.
const asProgram = "TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		code := Main(ctx, os.Args[1:], Stdio())
		stop()
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

// outcome is what a command line left behind.
type outcome struct {
	code     int
	out, err string
}

// world is the surroundings of a command line in a test: a directory, an environment and a server that records requests.
type world struct {
	t     *testing.T
	dir   string
	env   []string
	stdin string

	mu    sync.Mutex
	calls []recorded
}

type recorded struct {
	method, path, query, auth string
	header                    http.Header
	body                      string
}

// newWorld starts a server that answers by the routes: "METHOD /path" -> status and body.
func newWorld(t *testing.T, routes map[string]answer) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.mu.Lock()
		w.calls = append(w.calls, recorded{
			method: r.Method, path: r.URL.Path, query: r.URL.RawQuery, auth: r.Header.Get("Authorization"), header: r.Header, body: string(body),
		})
		w.mu.Unlock()
		a, ok := routes[r.Method+" "+r.URL.Path]
		if !ok {
			a = answer{status: 404, body: `{"title":"Not found","status":404,"code":"not_found","detail":"There is nothing at this path."}`}
		}
		a.write(rw)
	}))
	t.Cleanup(srv.Close)
	w.env = []string{"SENDGATE_URL=" + srv.URL, "SENDGATE_API_KEY=sg_api", "SENDGATE_ADMIN_KEY=sg_admin"}
	return w
}

type answer struct {
	status int
	header map[string]string
	body   string
}

func (a answer) write(w http.ResponseWriter) {
	kind := "application/json"
	if a.status >= 400 {
		kind = "application/problem+json"
	}
	w.Header().Set("Content-Type", kind)
	for k, v := range a.header {
		w.Header().Set(k, v)
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body)
}

func (w *world) run(args ...string) outcome {
	w.t.Helper()
	return w.runIn(w.t.Context(), args...)
}

func (w *world) runIn(ctx context.Context, args ...string) outcome {
	w.t.Helper()
	var out, errs bytes.Buffer
	code := Main(ctx, args, Streams{In: strings.NewReader(w.stdin), Out: &out, Err: &errs, Env: w.env, Dir: w.dir})
	return outcome{code, out.String(), errs.String()}
}

// last returns the newest call of that method and path.
func (w *world) last(method, path string) recorded {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.calls) - 1; i >= 0; i-- {
		if c := w.calls[i]; c.method == method && c.path == path {
			return c
		}
	}
	w.t.Fatalf("no call of %s %s among %d", method, path, len(w.calls))
	return recorded{}
}

func (w *world) file(name, content string) {
	w.t.Helper()
	if err := os.WriteFile(w.dir+"/"+name, []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// want fails unless the outcome has the code and both texts.
func (o outcome) want(t *testing.T, code int, out, errs string) {
	t.Helper()
	if o.code != code || !strings.Contains(o.out, out) || !strings.Contains(o.err, errs) {
		t.Errorf("got code %d\nstdout: %s\nstderr: %s\nwant code %d, stdout with %q, stderr with %q", o.code, o.out, o.err, code, out, errs)
	}
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	t.Parallel()
	s := Streams{Out: io.Discard, Err: io.Discard}
	parser, err := newParser(t.Context(), &s)
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range parser.Model.Leaves(false) {
		args := append(strings.Fields(leaf.Path()), "--help")
		args = dropPositionals(leaf, args)
		w := &world{t: t}
		o := w.run(args...)
		if o.code != 0 || !strings.Contains(o.out, "Example") || !strings.Contains(o.out, "sendgate "+strings.Join(args[:len(args)-1], " ")) {
			t.Errorf("%v: code %d, help without an example:\n%s%s", args, o.code, o.out, o.err)
		}
	}
}

func dropPositionals(_ *kong.Node, args []string) []string {
	var kept []string
	for _, a := range args {
		if !strings.ContainsAny(a, "<[") {
			kept = append(kept, a)
		}
	}
	return kept
}

func TestWrongUsageExitsWith2AndNamesTheHelp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"bogus"}, "sendgate --help"},
		{[]string{"messages"}, "sendgate messages --help"},
		{[]string{"messages", "show"}, "<id>"},
		{[]string{"send", "--nope"}, "sendgate send --help"},
		{[]string{"send"}, "--from and --to"},
		{[]string{"send", "--from", "a@example.com", "--to", "b@example.com", "--on-ambiguous", "maybe"}, "reconcile"},
		{[]string{"pools", "set", "default", "ses=lots"}, "ACCOUNT=WEIGHT"},
		{[]string{"pools", "set", "default", "ses=-1"}, "ACCOUNT=WEIGHT"},
		{[]string{"pools", "set", "default", "ses=NaN"}, "ACCOUNT=WEIGHT"},
		{[]string{"pools", "set", "default"}, "nothing to change"},
		{[]string{"providers", "limits", "ses", "--set", "14 per second"}, "N/PER/UNIT"},
		{[]string{"messages", "list", "--limit", "201"}, "1 to 200"},
	} {
		w := newWorld(t, nil)
		w.run(c.args...).want(t, 2, "", c.says)
		if len(w.calls) > 0 {
			t.Errorf("%v: called the server", c.args)
		}
	}
}

func TestNoArgumentsPrintHelp(t *testing.T) {
	t.Parallel()
	(&world{t: t}).run().want(t, 0, "Exit codes: 0 done, 1 failed, 2 wrong usage.", "")
}

func TestVersionGivesBuildInfo(t *testing.T) {
	t.Parallel()
	w := &world{t: t}
	var b build
	if err := json.Unmarshal([]byte(w.run("version", "--json").out), &b); err != nil || !strings.HasPrefix(b.Go, "go1.") || b.Platform == "" {
		t.Errorf("version --json = %+v, %v", b, err)
	}
}

// closedPipe is a reader that went away.
type closedPipe struct{ writes int }

func (p *closedPipe) Write([]byte) (int, error) {
	p.writes++
	return 0, &os.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}
}

func TestReaderThatWentAwayIsNoError(t *testing.T) {
	t.Parallel()
	var errs bytes.Buffer
	pipe := &closedPipe{}
	if code := Main(context.Background(), []string{"version"}, Streams{Out: pipe, Err: &errs}); code != 0 || errs.Len() > 0 || pipe.writes == 0 {
		t.Errorf("code %d, stderr %q, %d writes; want 0, nothing, some", code, errs.String(), pipe.writes)
	}
	broken := brokenWriter{}
	if code := Main(context.Background(), []string{"version"}, Streams{Out: broken, Err: &errs}); code != 1 || !strings.Contains(errs.String(), "disk full") {
		t.Errorf("full disk: code %d, stderr %q; want 1 and the cause", code, errs.String())
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestProblemIsPrintedWithItsFieldsAndAdvice(t *testing.T) {
	t.Parallel()
	send := []string{"send", "--from", "shop@example.com", "--to", "nobody", "--subject", "Hi", "--text", "Hi"}
	for _, c := range []struct {
		name   string
		answer answer
		says   []string
	}{
		{
			"fields",
			answer{422, nil, `{"title":"Invalid","status":422,"code":"invalid","detail":"Some fields can't be accepted.",` +
				`"errors":[{"field":"to[0].email","code":"invalid_address","message":"must be one email address\u001b[31m"}]}`},
			[]string{"Invalid: Some fields can't be accepted.", "to[0].email: must be one email address\ufffd[31m", "Correct to[0].email"},
		},
		{"key", answer{401, nil, `{"title":"Unauthorized","status":401,"code":"unauthorized"}`}, []string{"Unauthorized", "SENDGATE_API_KEY"}},
		{
			"later",
			answer{503, map[string]string{"Retry-After": "90"}, `{"title":"Queue full","status":503,"code":"queue_full"}`},
			[]string{"Queue full", "after 1m30s"},
		},
		{
			"broken",
			answer{500, map[string]string{"X-Request-Id": "r-1"}, `{"title":"Internal","status":500,"code":"internal"}`},
			[]string{"Internal", "r-1"},
		},
		{"proxy", answer{502, nil, `<html>`}, []string{"Bad Gateway"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[string]answer{"POST /v1/send": c.answer})
			o := w.run(send...)
			for _, says := range c.says {
				o.want(t, 1, "", says)
			}
		})
	}
}

// nobody is an address at which nobody listens. The port of a server that was closed may be another test's by now.
const nobody = "127.0.0.1:1"

func TestNobodyListeningGivesAHint(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.env[0] = "SENDGATE_URL=http://" + nobody
	w.run("queue").want(t, 1, "", "sendgate dev")
}

func TestAnErrorInSeveralLinesIsShownInOne(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir(), env: []string{"SENDGATE_DATABASE_URL=postgres://sendgate@127.0.0.1:1/sendgate"}}
	o := w.run("migrate", "up")
	o.want(t, 1, "", "connection refused")
	if strings.Contains(o.err, "\ufffd") || strings.Contains(o.err, "sendgate dev") {
		t.Errorf("stderr = %q, want no broken characters and no advice to start a server of ours", o.err)
	}
}

func TestAWrongTimeIsExplained(t *testing.T) {
	t.Parallel()
	w := &world{t: t}
	w.run("messages", "list", "--since", "yesterday").want(t, 2, "", "want a time such as 2026-01-31T12:00:00Z")
}

func TestTimesAreReadAsPeopleWriteThem(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2026-01-31T12:00:00Z": time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
		"2026-01-31":           time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC),
		"1h":                   now.Add(-time.Hour),
		"1h30m":                now.Add(-90 * time.Minute),
		"7d":                   now.AddDate(0, 0, -7),
		"0s":                   now,
	} {
		if got, err := readTime(text, false, now); err != nil || !got.Equal(want) {
			t.Errorf("%s = %s, %v, want %s", text, got, err, want)
		}
	}
	if got, err := readTime("2d", true, now); err != nil || !got.Equal(now.AddDate(0, 0, 2)) {
		t.Errorf("2d ahead = %s, %v", got, err)
	}
	for _, text := range []string{"", "yesterday", "-1h", "d", "1.5d", "99999999d", "2026-13-01", "2026-01-31 12:00", "12:00", "1"} {
		if got, err := readTime(text, false, now); err == nil {
			t.Errorf("%q is read as %s", text, got)
		}
	}
}
