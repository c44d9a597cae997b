package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"sync/atomic"
)

// keyPairFiles is the certificate of the API's listeners. It can be read again while they serve.
type keyPairFiles struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

// read reads the certificate from the files. After an error the previous one stays.
func (c *keyPairFiles) read() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("read the certificate: %w", err)
	}
	c.current.Store(&pair)
	return nil
}

// config returns the TLS configuration of a server. Call read before the server serves.
func (c *keyPairFiles) config() *tls.Config {
	return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil }}
}

// reloadOn reads the certificate again at each signal, until ctx ends.
func (a *App) reloadOn(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-signals:
			a.reload()
		case <-ctx.Done():
			return
		}
	}
}

// reload reads the certificate again and logs the result.
func (a *App) reload() {
	c := a.certificate
	if c == nil {
		a.log.Info("SIGHUP ignored: SENDGATE_TLS_CERT_FILE is not set, so there is no certificate to read again")
		return
	}
	if err := c.read(); err != nil {
		a.log.Error("certificate not read again; the previous one stays in use", "error", err)
		return
	}
	a.log.Info("certificate read again", "not_after", c.current.Load().Leaf.NotAfter)
}
