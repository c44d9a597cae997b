package smtp

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// The words of a host that is not a relay are not quoted: every key that may read messages would see them.
func TestAHostThatIsNotARelayIsNotQuoted(t *testing.T) {
	t.Parallel()
	r := startRelay(t, nil)
	for _, says := range []string{
		"SSH-2.0-canary\r\n", "canary\r\n", "canary", "HTTP/1.1 400 canary\r\nServer: canary\r\n\r\ncanary", "-ERR canary\r\n", "* OK canary\r\n",
		"+OK canary\r\n", "{\"canary\":1}\n", "22 canary\r\n", "2200 canary\r\n", "999 canary\r\n", "000 canary\r\n", "220-canary\r\ncanary\r\n", "\x00\x00canary\r\n",
		"220 relay\r\n|canary\r\n", "220 relay\r\n|250-relay\r\ncanary\r\n", strings.Repeat("canary", 2000) + "\r\n",
	} {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close() //nolint:errcheck // a test
			for i, part := range strings.Split(says, "|") {
				if i > 0 {
					_, _ = conn.Read(make([]byte, 100))
				}
				_, _ = io.WriteString(conn, part)
			}
			_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			_, _ = conn.Read(make([]byte, 100))
		}()
		cfg := r.config(nil, nil)
		cfg.Port = portOf(t, l)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		_, perr := send(ctx, t, r.clientWith(cfg), message("ann@example.org"))
		cancel()
		if perr == nil {
			t.Errorf("%.40q takes mail", says)
			continue
		}
		if text := perr.Error() + perr.Detail + perr.Code; strings.Contains(text, "canary") {
			t.Errorf("%.40q is quoted: %s", says, text)
		}
	}
}
