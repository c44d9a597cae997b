package esphttp

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/provider"
)

// The check of a setting sees only a name. Its address is checked when it is called. Here two literal addresses replace the
// answers of a name server.
func TestAddressesAreHeldToTheBaseURL(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(srv.Close)
	for name, c := range map[string]struct {
		o  Options
		ok bool
	}{
		"no base URL: the provider's own name":       {Options{}, true},
		"a public name that leads to this machine":   {Options{BaseURL: "https://api.example.com"}, false},
		"a private network is meant":                 {Options{BaseURL: "https://api.example.com", Reach: Reach{AllowPrivate: true}}, true},
		"this machine":                               {Options{BaseURL: srv.URL}, true},
		"this machine, at another port than is said": {Options{BaseURL: "http://127.0.0.1:1"}, false},
	} {
		client := New(c.o)
		ctx, tr := Track(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.HTTP().Do(req)
		if c.ok {
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			_ = resp.Body.Close()
		} else if perr := client.Fail(tr, err); !errors.Is(err, jail.ErrForbidden) || perr.Class != provider.Misconfigured || !strings.Contains(perr.Detail, "allow_private") {
			t.Errorf("%s: %v, which says %v", name, err, perr)
		}
		_ = client.Close()
	}
}

// net/http quotes an answer that is not HTTP in its error. Everybody who may read messages would see it.
func TestForeignAnswersAreNotTold(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{
		"SSH-2.0-canary\r\n", "canary\r\n\r\n", "HTTP/1.1 canary OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncanary\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: canary\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: canary\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ncanary\r\n",
	} {
		client := New(Options{})
		ctx, tr := Track(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+speaks(t, answer), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.HTTP().Do(req)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		if err == nil {
			t.Errorf("%q is no error", answer)
			continue
		}
		if perr := client.Fail(tr, err); strings.Contains(perr.Error()+perr.Err.Error(), "canary") {
			t.Errorf("%q is told: %v", answer, perr)
		}
		_ = client.Close()
	}
}

// speaks serves connections with a protocol that is not HTTP, and returns its address.
func speaks(t *testing.T, answer string) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(conn).ReadString('\n')
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}
