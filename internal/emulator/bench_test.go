package emulator_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/emulator/catalog"
)

// BenchmarkSends has 64 clients send 5 KB messages over HTTP, with the ledger on disk.
func BenchmarkSends(b *testing.B) { benchmarkSends(b, emulator.Options{}) }

// BenchmarkSendsWithHooks also has a receiver for the events.
func BenchmarkSendsWithHooks(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer srv.Close()
	benchmarkSends(b, emulator.Options{Hooks: map[string]emulator.Hook{"postmark": {"url": srv.URL}}, EventPace: 10 * time.Millisecond})
}

func benchmarkSends(b *testing.B, opt emulator.Options) {
	opt.LedgerPath = filepath.Join(b.TempDir(), "ledger")
	e, err := catalog.New(opt)
	if err != nil {
		b.Fatal(err)
	}
	if err := e.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer e.Stop(b.Context()) //nolint:errcheck // the benchmark is over
	bd := &server{Emulator: e, http: newClient(b)}
	body := `{"From":"a@example.com","To":"b@example.org","Subject":"s","TextBody":"` + strings.Repeat("x", 5000) + `","Metadata":{"gw_msg":"1"}}`
	head := postmarkHeader(key("postmark", "server_token"))
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if a, err := bd.try("POST", "/postmark/email", body, head); err != nil || a.status != 200 {
				b.Errorf("send = %d, %v", a.status, err)
				return
			}
		}
	})
	s := e.Stats()["postmark"].Hooks
	b.ReportMetric(float64(s.Events)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(s.Pending), "pending")
}
