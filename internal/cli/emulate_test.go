package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEmulateSetsHooks(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	var errs bytes.Buffer
	code := make(chan int, 1)
	go func() {
		defer in.Close()
		code <- Main(ctx, []string{
			"emulate", "--listen", "127.0.0.1:0", "--smtp-listen", "127.0.0.1:0", "--hook", "sendgrid=http://127.0.0.1:1/hooks/a?x=1;y=2",
			"--hook=smtp=lmtp://127.0.0.1:2", "--event-pace", "1ms", "--defer-for", "1s",
		}, Streams{Out: in, Err: &errs, Dir: t.TempDir()})
	}()
	var hooks []string
	base := ""
	for lines := bufio.NewScanner(out); base == "" && lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "events of "); ok {
			hooks = append(hooks, rest)
		}
		base = strings.TrimSuffix(strings.TrimPrefix(lines.Text(), "ready: curl "), "/_ledger")
		if !strings.HasPrefix(base, "http") || base == lines.Text() {
			base = ""
		}
	}
	if base == "" {
		t.Fatalf("no ready line; code %d, stderr %s", <-code, errs.String())
	}
	want := []string{"sendgrid go to http://127.0.0.1:1/hooks/a?x=1;y=2", "smtp go to lmtp://127.0.0.1:2"}
	if diff := cmp.Diff(want, hooks); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/_hooks", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	var view struct {
		Hooks map[string]struct{ URL string }
	}
	err = json.NewDecoder(resp.Body).Decode(&view)
	resp.Body.Close()
	if err != nil || view.Hooks["smtp"].URL != "lmtp://127.0.0.1:2" || len(view.Hooks) != 2 {
		t.Errorf("hooks = %v, %v", view, err)
	}
	cancel()
	if got := <-code; got != 0 {
		t.Errorf("code %d, stderr %s", got, errs.String())
	}
}

func TestEmulateRefusesHooksOfOtherMachines(t *testing.T) {
	t.Parallel()
	args := []string{"emulate", "--listen", "127.0.0.1:0", "--smtp-listen", "127.0.0.1:0", "--hook"}
	(&world{t: t}).run(append(args, "ses=https://gw.example.org/hooks/ses")...).want(t, 1, "", "loopback")
	(&world{t: t}).run(append(args, "acme=http://127.0.0.1/")...).want(t, 1, "", "provider")
}
