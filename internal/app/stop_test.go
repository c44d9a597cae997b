package app

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/config"
	"github.com/sendgate/sendgate/internal/deliver"
	"github.com/sendgate/sendgate/internal/httpapi"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/postgres"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/catalog"
	"github.com/sendgate/sendgate/internal/telemetry"
)

// mustStop stops a service and fails the test when that hangs.
func mustStop(t *testing.T, a *App) {
	t.Helper()
	stopped := make(chan error, 1)
	go func() { stopped <- a.Stop() }()
	select {
	case err := <-stopped:
		if err != nil {
			t.Fatalf("Stop = %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Stop hangs")
	}
}

// ownAddress returns an address of this machine, with any port, that no other test listens on: what is closed there stays closed.
// Only on Linux does the loopback interface have more than one.
func ownAddress() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1:0"
	}
	return fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

// wantClosed checks that nothing listens any more.
func wantClosed(t *testing.T, addr string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		_ = conn.Close()
		t.Fatalf("%s is open after Stop", addr)
	}
}

// A listener is open before its server has begun to serve, and the server closes only what it knows.
func TestListenersStopRightAfterTheirStart(t *testing.T) {
	t.Parallel()
	cert, key := keyPair(t)
	missing := filepath.Join(t.TempDir(), "none.pem")
	for name, cfg := range map[string]config.Config{
		"plain": {}, "TLS": {TLSCertFile: cert, TLSKeyFile: key}, "TLS without its files": {TLSCertFile: missing, TLSKeyFile: missing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i := range 200 {
				a := &App{cfg: cfg, log: quiet(), failed: make(chan error, 4), certificate: &keyPairFiles{certFile: cfg.TLSCertFile, keyFile: cfg.TLSKeyFile}}
				addr, err := a.listen(t.Context(), "api", ownAddress(), httpapi.HTTPServer(http.NotFoundHandler()), cfg.TLS())
				if err != nil {
					t.Fatal(err)
				}
				if i%2 == 1 { // with a request in progress
					go func() {
						if resp, err := http.Get("http://" + addr); err == nil {
							_ = resp.Body.Close()
						}
					}()
				}
				mustStop(t, a)
				wantClosed(t, addr)
			}
		})
	}
}

// keyPair writes a certificate and its key.
func keyPair(t *testing.T) (cert, key string) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pair := s.TLS.Certificates[0]
	raw, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), "x.pem")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("CERTIFICATE", pair.Certificate[0]), write("PRIVATE KEY", raw)
}

// The whole service: API, operations, LMTP, engine and deliveries.
func TestServiceStopsRightAfterItsStart(t *testing.T) {
	t.Parallel()
	b := newBench(t, benchOptions{})
	for range 2 {
		a, err := New(b.config(t, "SENDGATE_LISTEN="+ownAddress(), "SENDGATE_OPS_LISTEN="+ownAddress(), "SENDGATE_LMTP_LISTEN="+ownAddress()), quiet())
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustStop(t, a)
		for _, addr := range []string{strings.TrimPrefix(a.URL, "http://"), strings.TrimPrefix(a.OpsURL, "http://"), a.LMTPAddr} {
			wantClosed(t, addr)
		}
	}
}

// The listener for bounces may be reached before the accounts were read. Mail that comes then gets a temporary error.
func TestABounceThatComesBeforeTheAccountsAreReadComesAgain(t *testing.T) {
	t.Parallel()
	engine, err := deliver.New(deliver.Options{
		Store: (*postgres.DB)(nil), Build: catalog.New, Log: quiet(), Metrics: telemetry.New(telemetry.NewRegistry()),
	})
	if err != nil {
		t.Fatal(err)
	}
	a := &App{engine: engine, log: quiet(), clock: mail.NewClock(nil, nil)}
	if !a.knowsBounce("b+x@bounces.example.com") {
		t.Error("the address is unknown before it can be known")
	}
	refusal, is := errors.AsType[*provider.HookError](a.receiveBounce(t.Context(), "", "b+x@bounces.example.com", nil))
	if is {
		t.Errorf("the bounce is refused for good: %v", refusal)
	}
}
