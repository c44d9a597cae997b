package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/app"
)

func TestEmulatePrintsWhereItStandsAndStops(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	var errs bytes.Buffer
	dir := t.TempDir()
	code := make(chan int, 1)
	go func() {
		defer in.Close()
		code <- Main(ctx, []string{"emulate", "--listen", "127.0.0.1:0", "--smtp-listen", "127.0.0.1:0", "--ledger", "l.jsonl"}, Streams{Out: in, Err: &errs, Dir: dir})
	}()
	printed, base := map[string]string{}, ""
	lines := bufio.NewScanner(out)
	for base == "" && lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), " ")
		printed[name] = strings.Join(strings.Fields(rest), " ")
		if name == "ready:" {
			base = strings.TrimSuffix(strings.TrimPrefix(printed[name], "curl "), "/_ledger")
		}
	}
	if base == "" {
		t.Fatalf("no ready line; code %d, %v, stderr %s", <-code, printed, errs.String())
	}
	if want := base + "/postmark server_token "; !strings.HasPrefix(printed["postmark"], want) {
		t.Errorf("postmark line = %q, want it to begin with %q", printed["postmark"], want)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/_ledger", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	cancel()
	if got := <-code; got != 0 || resp.StatusCode != http.StatusOK {
		t.Errorf("code %d, ledger status %d, stderr %s; want 0, 200", got, resp.StatusCode, errs.String())
	}
	if again, err := client.Do(req.Clone(context.Background())); err == nil {
		_ = again.Body.Close()
		t.Error("the emulator still listens after it has stopped")
	}
}

func TestEmulateRefusesOtherMachines(t *testing.T) {
	t.Parallel()
	(&world{t: t}).run("emulate", "--listen", "0.0.0.0:0").want(t, 1, "", "loopback")
}

func TestDocumentedLimitsCoverEveryKind(t *testing.T) {
	t.Parallel()
	for kind, windows := range documentedLimits() {
		if len(windows) == 0 {
			t.Errorf("%s has no documented limit", kind)
		}
	}
}

func TestServeNamesEverythingThatIsWrongWithItsSettings(t *testing.T) {
	t.Parallel()
	w := &world{t: t, env: []string{"SENDGATE_LEASE=soon"}}
	o := w.run("serve")
	for _, name := range []string{"SENDGATE_DATABASE_URL", "SENDGATE_SECRET_KEY", "SENDGATE_LEASE"} {
		o.want(t, 1, "", name)
	}
}

func TestDevPassesItsEnvironmentOn(t *testing.T) {
	t.Parallel()
	s := &Streams{Dir: "/home/ann", Env: []string{
		"SENDGATE_DATABASE_URL=postgres://here", "SENDGATE_FORWARD_ALLOW=127.0.0.1/32:8080",
		"SENDGATE_LOOKUP_SCHEDULE=1s,2s", "SENDGATE_UNKNOWN_WAIT=3s", "SENDGATE_LEASE=1s",
	}}
	want := app.DevOptions{
		Listen: "127.0.0.1:1", Data: "/home/ann/.sendgate", Limits: "none", Program: "sendgate", Found: true,
		DatabaseURL: "postgres://here", ForwardAllow: "127.0.0.1/32:8080", LookupSchedule: "1s,2s", UnknownWait: "3s",
	}
	if diff := cmp.Diff(want, (&devCmd{Listen: "127.0.0.1:1", Data: ".sendgate", Limits: "none"}).options(s, s.getenv("SENDGATE_DATABASE_URL"))); diff != "" {
		t.Errorf("options (-want +got)\n%s", diff)
	}
	if (&devCmd{Data: "/tmp/try"}).options(s, "").Found {
		t.Error("a folder that client commands do not look into counts as found")
	}
}

func TestDevRefusesABrokenSettingBeforeItStartsAnything(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir(), env: []string{"SENDGATE_UNKNOWN_WAIT=soon"}}
	o := w.run("dev", "--listen", "127.0.0.1:0")
	o.want(t, 1, "", "SENDGATE_UNKNOWN_WAIT")
	if o.out != "" {
		t.Errorf("stdout = %q, want nothing", o.out)
	}
}

func TestDoctorFailsOnBrokenSettings(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir(), env: []string{"SENDGATE_LEASE=soon"}}
	o := w.run("doctor", "--json")
	var got api.List[app.Check]
	if err := json.Unmarshal([]byte(o.out), &got); err != nil || o.code != 1 || len(got.Data) < 3 || got.Data[0].OK || got.Data[0].Fix == "" {
		t.Errorf("code %d, %v, %+v; want 1 and a failed check for each problem", o.code, err, got)
	}
	w.run("doctor").want(t, 1, "FAILED", "")
}

func TestDoctorReadyAsksOnce(t *testing.T) {
	t.Parallel()
	for status, code := range map[int]int{200: 0, 503: 1} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/readyz" {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, "database does not answer\n")
			}
		}))
		w := &world{t: t, dir: t.TempDir(), env: []string{"SENDGATE_OPS_LISTEN=" + srv.Listener.Addr().String()}}
		says := ""
		if code == 1 {
			says = "database does not answer"
		}
		o := w.run("doctor", "--ready")
		o.want(t, code, "", says)
		if strings.Contains(o.err, "\ufffd") {
			t.Errorf("stderr = %q, want no broken characters", o.err)
		}
		_, port, _ := strings.Cut(srv.Listener.Addr().String(), ":")
		w.env = []string{"SENDGATE_OPS_LISTEN=0.0.0.0:" + port}
		w.run("doctor", "--ready").want(t, code, "", says)
		srv.Close()
	}
	w := &world{t: t, dir: t.TempDir(), env: []string{"SENDGATE_OPS_LISTEN=" + nobody}}
	w.run("doctor", "--ready").want(t, 1, "", "ask readiness")
}

func TestDoctorReadsWhatDevLeft(t *testing.T) {
	t.Parallel()
	s := &Streams{Env: []string{"SENDGATE_URL=http://elsewhere"}, Dir: t.TempDir()}
	writeDevEnv(t, s.Dir, "SENDGATE_URL=http://here\nSENDGATE_DATABASE_URL=postgres://dev\n")
	want := []string{"SENDGATE_URL=http://elsewhere", "SENDGATE_DATABASE_URL=postgres://dev"}
	if got, err := s.doctorEnv(); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("environment = %v, %v, want %v", got, err, want)
	}
	s.Env = []string{"SENDGATE_DATABASE_URL=postgres://real"}
	if got, err := s.doctorEnv(); err != nil || cmp.Diff(s.Env, got) != "" {
		t.Errorf("environment of a real server was changed: %v, %v", got, err)
	}
}

func TestMigrateNeedsADatabase(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	w.run("migrate", "up").want(t, 1, "", "SENDGATE_DATABASE_URL")
	s := &Streams{Dir: w.dir}
	writeDevEnv(t, w.dir, "SENDGATE_DATABASE_URL=postgres://dev\n")
	if got, err := s.databaseURL(); got != "postgres://dev" || err != nil {
		t.Errorf("databaseURL = %s, %v", got, err)
	}
}

func TestProblemsTakesJoinedErrorsApartAndLeavesWrappedOnesWhole(t *testing.T) {
	t.Parallel()
	a, b := errors.New("a"), errors.New("b")
	if diff := cmp.Diff([]string{"a", "b"}, problems(errors.Join(a, b))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a: b"}, problems(fmt.Errorf("%w: %w", a, b))); diff != "" {
		t.Error(diff)
	}
}

func TestSplitErrorsGivesALineEach(t *testing.T) {
	t.Parallel()
	err := errors.Join(errors.New("a"), errors.Join(errors.New("b"), errors.New("c")))
	if diff := cmp.Diff([]string{"a", "b", "c"}, splitErrors(err)); diff != "" {
		t.Error(diff)
	}
}
