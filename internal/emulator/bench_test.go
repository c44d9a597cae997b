package emulator_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/emulator"
)

// BenchmarkSends has 64 clients send 5 KB messages over HTTP, with the ledger on disk.
func BenchmarkSends(b *testing.B) {
	e, err := emulator.New(emulator.Options{LedgerPath: filepath.Join(b.TempDir(), "ledger")})
	if err != nil {
		b.Fatal(err)
	}
	if err := e.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer e.Stop(b.Context()) //nolint:errcheck // the benchmark is over
	bd := &bed{Emulator: e, http: newClient(b), keys: emulator.DefaultCredentials()}
	body := `{"From":"a@example.com","To":"b@example.org","Subject":"s","TextBody":"` + strings.Repeat("x", 5000) + `","Metadata":{"gw_msg":"1"}}`
	head := postmarkHeader(bd.keys.PostmarkToken)
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
}
