//go:build unix

package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/telemetry"
)

// writePair writes a certificate of the serial number, and its key.
func writePair(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// shown is the serial number of the certificate of a listener, or 0 without an answer.
func shown(ctx context.Context, addr string) int64 {
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", addr) //nolint:gosec // its serial number is looked at
	if err != nil {
		return 0
	}
	defer conn.Close() //nolint:errcheck // it was only to look
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// hangUp sends this process a SIGHUP, while Serve takes it.
func hangUp(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// serveHere runs the whole command until the test ends.
func (b *bench) serveHere(t *testing.T, settings ...string) *tail {
	t.Helper()
	log := &tail{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	cfg := b.config(t, settings...)
	go func() { done <- Serve(ctx, cfg, telemetry.NewLogger(log, slog.LevelInfo, "text")) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	eventually(t, settleTime, "the service is ready", func() bool { return strings.Contains(log.String(), "msg=ready") })
	return log
}

// Not parallel: a signal is for the whole process.
func TestSIGHUPReadsTheCertificateAgain(t *testing.T) {
	b := newBench(t, benchOptions{})
	dir := t.TempDir()
	cert, key, addr := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), fixedAddr(t)
	writePair(t, cert, key, 1)
	admin := fixedAddr(t)
	log := b.serveHere(t, "SENDGATE_LISTEN="+addr, "SENDGATE_ADMIN_LISTEN="+admin, "SENDGATE_TLS_CERT_FILE="+cert, "SENDGATE_TLS_KEY_FILE="+key)
	before := shown(t.Context(), addr)
	writePair(t, cert, key, 2)
	hangUp(t)
	eventually(t, settleTime, "the new certificate is shown", func() bool { return shown(t.Context(), addr) == 2 && shown(t.Context(), admin) == 2 })
	writePair(t, cert, filepath.Join(dir, "other.pem"), 3) // whose key is not the one of the setting
	hangUp(t)
	eventually(t, settleTime, "the mismatch is told", func() bool { return strings.Contains(log.String(), "the previous one stays in use") })
	if after := shown(t.Context(), addr); before != 1 || after != 2 {
		t.Errorf("shown at first %d, and %d after files that do not fit, want 1 and 2", before, after)
	}
}
