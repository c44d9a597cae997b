package emulator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/emulator/catalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a running emulator with a client of its own.
type server struct {
	*emulator.Emulator
	http *http.Client
}

func start(t *testing.T, opt emulator.Options) *server {
	t.Helper()
	e, err := catalog.New(opt)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	if err := e.Start(t.Context()); err != nil {
		t.Fatalf("Start: %v", err)
	}
	b := &server{e, newClient(t)}
	t.Cleanup(func() {
		if err := e.Stop(context.Background()); err != nil {
			t.Errorf("Stop: %v", err)
		}
	})
	return b
}

// newClient has connections of its own, which end with the test.
func newClient(t testing.TB) *http.Client {
	t.Helper()
	tr := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

// answer is a response with its body read.
type answer struct {
	status int
	header http.Header
	body   string
}

func (b *server) do(t *testing.T, method, path, body string, header map[string]string) answer {
	t.Helper()
	a, err := b.try(method, path, body, header)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// filler is 53 MiB for bodies and texts that are too large, for all tests: more than any provider takes.
var filler = sync.OnceValue(func() string { return strings.Repeat("t", 53<<20) })

func (b *server) try(method, path, body string, header map[string]string) (answer, error) {
	req, err := http.NewRequest(method, b.URL()+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := b.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(raw)}, err
}

// faults puts a script.
func (b *server) faults(t *testing.T, script string) {
	t.Helper()
	if a := b.do(t, "PUT", "/_faults", script, nil); a.status != http.StatusOK {
		t.Fatalf("PUT /_faults = %d %s", a.status, a.body)
	}
}

// wantLedger compares all entries except the fields that differ from run to run.
func (b *server) wantLedger(t *testing.T, want ...emulator.Entry) {
	t.Helper()
	ignore := cmpopts.IgnoreFields(emulator.Entry{}, "At", "ProviderMessageID")
	if diff := cmp.Diff(want, b.Ledger(), ignore, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("ledger (-want +got):\n%s", diff)
	}
}

// wantStats compares one provider's counters.
func (b *server) wantStats(t *testing.T, kind string, want emulator.Stats) {
	t.Helper()
	if diff := cmp.Diff(want, b.Stats()[kind], cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("stats of %s (-want +got):\n%s", kind, diff)
	}
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		t.Fatalf("encode %T: %v", v, err)
	}
	return b.String()
}

func fromJSON(t *testing.T, s string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(s), v); err != nil {
		t.Fatalf("decode %q: %v", s, err)
	}
}

// eventually waits until ok, for what another goroutine of the emulator does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%s did not come about", what)
}

// key is a credential that lets callers in.
func key(kind, name string) string {
	for _, k := range catalog.Kinds() {
		if k.Name == kind {
			return k.Credentials[name]
		}
	}
	return ""
}

// kindNames are the providers of the catalog.
func kindNames() []string {
	var names []string
	for _, k := range catalog.Kinds() {
		names = append(names, k.Name)
	}
	return names
}

// everyKind returns a table of a test. It fails the test for each kind that the table lacks: otherwise a new kind would go
// untested.
func everyKind[E any](t *testing.T, name string, table map[string]E) map[string]E {
	t.Helper()
	for _, kind := range kindNames() {
		if _, ok := table[kind]; !ok {
			t.Errorf("the table %s has no entry for the kind %s: add one", name, kind)
		}
	}
	return table
}
