package catalog

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/providertest"
	"github.com/sendgate/sendgate/internal/seal"
)

// calls notes where adapters call, and how they begin.
type calls chan string

func (c calls) note(format string, args ...any) { c <- fmt.Sprintf(format, args...) }

// take waits for the record of the call that has just ended, because the adapter may finish before the server does.
func (c calls) take() string {
	var seen []string
	select {
	case first := <-c:
		seen = append(seen, first)
	case <-time.After(5 * time.Second):
	}
	for {
		select {
		case next := <-c:
			seen = append(seen, next)
		default:
			return strings.Join(seen, ", ")
		}
	}
}

// proxied are the calls of HTTP adapters. A proxy of the environment sees only their destination; net/http reads the
// environment once in a process.
var proxied = make(calls, 100)

func TestMain(m *testing.M) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // for the whole process
	if err != nil {
		panic(err)
	}
	go serve(l, func(first string, conn net.Conn, _ *bufio.Reader) {
		proxied.note("%s", first)
		_, _ = io.WriteString(conn, "HTTP/1.1 502 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	})
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		_ = os.Setenv(name, "http://"+l.Addr().String())
	}
	_ = os.Unsetenv("NO_PROXY")
	_ = os.Unsetenv("no_proxy")
	os.Exit(m.Run())
}

// serve reads one line of each connection, unless answer wants none.
func serve(l net.Listener, answer func(first string, conn net.Conn, r *bufio.Reader)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close() //nolint:errcheck // a test
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			r := bufio.NewReader(conn)
			first := ""
			if _, isSMTP := l.(*relay); !isSMTP {
				first, _ = r.ReadString('\n')
			}
			answer(strings.TrimSpace(first), conn, r)
		}()
	}
}

// relay is a listener that greets.
type relay struct{ net.Listener }

// newRelay records the SMTP verbs that it gets, up to the one that would send a secret.
func newRelay(t *testing.T, to calls, host string, port string) (string, string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(host, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go serve(&relay{l}, func(_ string, conn net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(conn, "220 relay ESMTP\r\n")
		said := []string{l.Addr().String()}
		for {
			if b, err := r.Peek(1); err == nil && b[0] == 0x16 { // a handshake of TLS
				to.note("%s", strings.Join(append(said, "TLS"), " "))
				return
			}
			line, err := r.ReadString('\n')
			verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch {
			case err != nil && line == "":
				to.note("%s", strings.Join(said, " "))
				return
			case verb == "EHLO":
				said = append(said, verb)
				_, _ = io.WriteString(conn, "250-relay\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN CRAM-MD5 XOAUTH2\r\n")
			default:
				if verb == "AUTH" {
					mechanism, _, _ := strings.Cut(rest, " ")
					verb += " " + mechanism
				}
				to.note("%s", strings.Join(append(said, verb), " "))
				_, _ = io.WriteString(conn, "535 5.7.8 no\r\n")
				return
			}
		}
	})
	h, p, _ := net.SplitHostPort(l.Addr().String())
	return h, p
}

// Each setting gets another value. If that sends a call to another place, or makes it begin in another way, the setting has
// to say which secrets it directs.
func TestEverySettingOfADestinationIsDeclared(t *testing.T) {
	relayed := make(calls, 100)
	host, port := newRelay(t, relayed, "127.0.0.1", "0")
	other, _ := newRelay(t, relayed, "127.0.0.2", port)
	_, otherPort := newRelay(t, relayed, "127.0.0.1", "0")
	text := func(s string) json.RawMessage { b, _ := json.Marshal(s); return b }
	type destination struct {
		calls    calls
		settings map[string]json.RawMessage
		secrets  []string
		others   map[string]json.RawMessage
		leads    []string // elsewhere, surely
	}
	kinds := whole(t, "kinds in destination_test.go", map[provider.Kind]destination{
		"sendgrid": {proxied, nil, []string{"api_key"}, map[string]json.RawMessage{
			"base_url": text("https://elsewhere.example"), "region": text("eu"), "subuser": text("x"), "ip_pool": text("pool"), "sandbox": text(""),
		}, []string{"base_url", "region"}},
		"mailgun": {proxied, map[string]json.RawMessage{"domain": text("mg.example.com")}, []string{"api_key"}, map[string]json.RawMessage{
			"base_url": text("https://elsewhere.example"), "region": text("eu"), "domain": text("elsewhere.example"), "subaccount": text("x"),
		}, []string{"base_url", "region"}},
		"postmark": {proxied, nil, []string{"server_token"}, map[string]json.RawMessage{
			"base_url": text("https://elsewhere.example"), "message_stream": text("x"), "webhook_username": text("x"),
		}, []string{"base_url"}},
		"resend": {proxied, nil, []string{"api_key"}, map[string]json.RawMessage{
			"base_url": text("https://elsewhere.example"),
		}, []string{"base_url"}},
		"ses": {proxied, map[string]json.RawMessage{"region": text("eu-west-1")}, []string{"access_key_id", "secret_access_key"}, map[string]json.RawMessage{
			"base_url": text("https://elsewhere.example"), "region": text("eu-west-2"), "configuration_set": text("x"),
			"sns_base_url": text("https://elsewhere.example"),
		}, []string{"base_url", "region"}},
		"smtp": {relayed, map[string]json.RawMessage{"host": text(host), "port": json.RawMessage(port), "username": text("u")}, []string{"password"}, map[string]json.RawMessage{
			"host": text(other), "port": json.RawMessage(otherPort), "tls": text("implicit"), "auth": text("login"), "username": text("v"),
			"helo": text("h.example"), "envelope_from": text("b@example.com"), "server_name": text("s.example"),
		}, []string{"host", "port", "tls", "auth"}},
	})
	for kind, k := range kinds {
		spec, _ := Spec(kind)
		call := func(settings map[string]json.RawMessage) string {
			raw, _ := json.Marshal(settings)
			secrets := map[string]seal.Secret{}
			for _, name := range k.secrets {
				secrets[name] = seal.NewSecret("canary-value")
			}
			p, _, err := New(spec.Kind, raw, secrets)
			if err != nil {
				return ""
			}
			defer p.Close() //nolint:errcheck // a test
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, _ = p.Send(ctx, providertest.PlainSend())
			return k.calls.take()
		}
		base := maps.Clone(k.settings)
		if base == nil {
			base = map[string]json.RawMessage{}
		}
		home := call(base)
		if home == "" {
			t.Fatalf("%s made no call", spec.Kind)
		}
		for name, value := range k.others {
			changed := maps.Clone(base)
			changed[name] = value
			at := call(changed)
			if moved := at != "" && at != home; moved && len(spec.Settings[name]) == 0 {
				t.Errorf("%s: %s leads from %q to %q, and directs no secret", spec.Kind, name, home, at)
			} else if !moved && slices.Contains(k.leads, name) {
				t.Errorf("%s: %s leads nowhere else: %q", spec.Kind, name, at)
			}
		}
	}
}
