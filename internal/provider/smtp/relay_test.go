package smtp

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/seal"
)

// Replies of a relay that are not lines.
const (
	hangUp = "\x00close"
	silent = "\x00silent" // no answer until the test ends
)

// relay is a scripted SMTP server that records everything that it gets, byte for byte.
type relay struct {
	t    *testing.T
	ln   net.Listener
	ehlo []string

	// reply overrides the answer to a line of the nth connection (from 1); "." stands for the final dot, "" for the
	// greeting. It reports false to leave it to the default.
	reply    func(conn int, line string) (string, bool)
	stopRead bool // after 354, read nothing
	tls      *tls.Config

	done chan struct{}
	wg   sync.WaitGroup

	mu     sync.Mutex
	conns  int
	open   int
	peak   int
	lines  []string
	bodies []string // as on the wire, dots still doubled, without the final dot
	wire   strings.Builder
}

func startRelay(t *testing.T, set func(*relay)) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, ln: ln, done: make(chan struct{}), ehlo: []string{"relay.test", "SIZE 10240000", "8BITMIME", "DSN", "SMTPUTF8"}}
	if set != nil {
		set(r)
	}
	r.wg.Go(r.serve)
	t.Cleanup(func() {
		close(r.done)
		_ = ln.Close()
		r.wg.Wait()
	})
	return r
}

func (r *relay) serve() {
	for {
		conn, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.conns++
		r.open++
		r.peak = max(r.peak, r.open)
		n := r.conns
		r.mu.Unlock()
		r.wg.Go(func() {
			gone := make(chan struct{})
			r.wg.Go(func() {
				select {
				case <-r.done:
				case <-gone:
				}
				_ = conn.Close()
			})
			r.talk(n, conn)
			close(gone)
			r.mu.Lock()
			r.open--
			r.mu.Unlock()
		})
	}
}

// answer returns what to say to the line, and whether to go on.
func (r *relay) answer(n int, line, fallback string, w io.Writer) bool {
	text := fallback
	if r.reply != nil {
		if s, ok := r.reply(n, line); ok {
			text = s
		}
	}
	switch text {
	case hangUp:
		return false
	case silent:
		<-r.done
		return false
	}
	_, err := io.WriteString(w, text+"\r\n")
	return err == nil
}

func (r *relay) talk(n int, conn net.Conn) {
	br := bufio.NewReader(io.TeeReader(conn, r))
	if !r.answer(n, "", "220 relay.test ESMTP", conn) {
		return
	}
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		r.mu.Lock()
		r.lines = append(r.lines, line)
		r.mu.Unlock()
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch verb {
		case "EHLO":
			if !r.answer(n, line, "250-"+strings.Join(r.ehlo[:len(r.ehlo)-1], "\r\n250-")+"\r\n250 "+r.ehlo[len(r.ehlo)-1], conn) {
				return
			}
		case "STARTTLS":
			if !r.answer(n, line, "220 2.0.0 Ready", conn) {
				return
			}
			tc := tls.Server(conn, r.tls)
			if tc.Handshake() != nil {
				return
			}
			conn, br = tc, bufio.NewReader(io.TeeReader(tc, r))
		case "DATA":
			if !r.answer(n, line, "354 go on", conn) {
				return
			}
			if !r.data(n, br, conn) {
				return
			}
		case "QUIT":
			r.answer(n, line, "221 bye", conn)
			return
		default:
			if !r.answer(n, line, "250 2.1.0 Ok", conn) {
				return
			}
		}
	}
}

// data reads up to CRLF . CRLF, the only end that RFC 5321 knows.
func (r *relay) data(n int, br *bufio.Reader, conn net.Conn) bool {
	if r.stopRead {
		<-r.done
		return false
	}
	var body strings.Builder
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" && (body.Len() == 0 || strings.HasSuffix(body.String(), "\r\n")) {
			break
		}
		body.WriteString(line)
	}
	r.mu.Lock()
	r.bodies = append(r.bodies, body.String())
	id := len(r.bodies)
	r.mu.Unlock()
	return r.answer(n, ".", fmt.Sprintf("250 2.0.0 Ok: queued as 4QX%d", id), conn)
}

// Write implements io.Writer for the capture.
func (r *relay) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wire.Write(p)
}

func (r *relay) count() (conns, bodies int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns, len(r.bodies)
}

func (r *relay) said(prefix string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, l := range r.lines {
		if strings.HasPrefix(l, prefix) {
			out = append(out, l)
		}
	}
	return out
}

// on answers each line that begins with a prefix.
func on(pairs ...string) func(int, string) (string, bool) {
	return func(_ int, line string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if line == pairs[i] || pairs[i] != "" && strings.HasPrefix(line, pairs[i]) {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

// config is the account for a relay, changed by the given settings.
func (r *relay) config(secrets map[string]seal.Secret, extra map[string]any) Config {
	r.t.Helper()
	s := map[string]any{"host": "127.0.0.1", "port": portOf(r.t, r.ln), "helo": "gate.example.com"}
	for k, v := range extra {
		s[k] = v
	}
	raw, err := json.Marshal(s)
	if err != nil {
		r.t.Fatal(err)
	}
	cfg, err := ParseConfig(raw, secrets)
	if err != nil {
		r.t.Fatal(err)
	}
	return cfg
}

func (r *relay) client(extra map[string]any) *Client {
	r.t.Helper()
	return r.clientWith(r.config(nil, extra))
}

func (r *relay) clientWith(cfg Config) *Client {
	r.t.Helper()
	c, err := New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func portOf(t *testing.T, ln net.Listener) int {
	t.Helper()
	addr, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("listener has a %T", ln.Addr())
	}
	return addr.Port
}

func message(to ...string) *mail.Message {
	m := &mail.Message{
		ID: mail.NewID(), CreatedAt: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC),
		From: mail.Address{Email: "shop@example.com", Name: "Shop"}, Subject: "Your order", Text: "hello\n",
	}
	for _, a := range to {
		m.To = append(m.To, mail.Address{Email: a})
	}
	return m
}

func sendOf(m *mail.Message) *provider.Send {
	return &provider.Send{Message: m, To: m.To, Cc: m.Cc, Bcc: m.Bcc, Attempt: 1}
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// sendTo sends a plain message and returns its outcome.
func sendTo(t *testing.T, c *Client, to ...string) (provider.Receipt, *provider.Error) {
	t.Helper()
	return send(deadline(t), t, c, message(to...))
}

func send(ctx context.Context, t *testing.T, c *Client, m *mail.Message) (provider.Receipt, *provider.Error) {
	t.Helper()
	receipt, err := c.Send(ctx, sendOf(m))
	if err == nil {
		return receipt, nil
	}
	perr, ok := errors.AsType[*provider.Error](err)
	if !ok {
		t.Fatalf("Send returned %T, want *provider.Error", err)
	}
	return receipt, perr
}

func wantClass(t *testing.T, what string, perr *provider.Error, want provider.Class) {
	t.Helper()
	got := provider.Accepted
	if perr != nil {
		got = perr.Class
	}
	if got != want {
		t.Errorf("%s: class = %s, want %s (%v)", what, got, want, perr)
	}
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(45 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// selfSigned makes a certificate for 127.0.0.1 that is its own authority.
func selfSigned(t *testing.T) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "relay.test"}, DNSNames: []string{"relay.test"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
