package esphttp

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"

	"github.com/sendgate/sendgate/internal/provider"
)

// post makes one tracked call and reads the answer to its end.
func post(t *testing.T, c *Client, url string, header http.Header) (*Trace, []byte, error) {
	t.Helper()
	ctx, tr := Track(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := c.HTTP().Do(req)
	if err != nil {
		return tr, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return tr, body, err
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	c := New(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

func TestTraceRecordsTheAnswer(t *testing.T) {
	t.Parallel()
	srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Message-Id", "id-1")
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write(bytes.Repeat([]byte("ab"), keptBody))
	})
	tr, body, err := post(t, newClient(t, Options{}), srv.URL, nil)
	if err != nil || len(body) != 2*keptBody {
		t.Fatalf("post = %d bytes, %v", len(body), err)
	}
	if !tr.Wrote() || tr.Requests() != 1 || tr.Status() != http.StatusAccepted || tr.Header().Get("X-Message-Id") != "id-1" {
		t.Errorf("trace: wrote %t, requests %d, status %d, header %v", tr.Wrote(), tr.Requests(), tr.Status(), tr.Header())
	}
	if !bytes.Equal(tr.Body(), body[:keptBody]) {
		t.Errorf("trace keeps %d bytes, want the first %d", len(tr.Body()), keptBody)
	}
}

func TestEmptyTraceAnswersNothing(t *testing.T) {
	t.Parallel()
	_, tr := Track(t.Context())
	if tr.Wrote() || tr.Requests() != 0 || tr.Status() != 0 || tr.Header() == nil || len(tr.Body()) != 0 {
		t.Error("a trace without requests is not empty")
	}
}

func TestBodyEndsAtTheCap(t *testing.T) {
	t.Parallel()
	srv := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 5000)) })
	_, body, err := post(t, newClient(t, Options{MaxResponse: 1000}), srv.URL, nil)
	if err != nil || len(body) != 1000 {
		t.Errorf("post = %d bytes, %v, want 1000", len(body), err)
	}
}

func TestReplayHeadersNeverLeave(t *testing.T) {
	t.Parallel()
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for k := range r.Header {
			if strings.Contains(strings.ToLower(k), "idempotency") {
				w.WriteHeader(http.StatusTeapot)
			}
		}
	})
	c := newClient(t, Options{})
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key", "idempotency-key"} {
		tr, _, err := post(t, c, srv.URL, http.Header{name: {"1"}})
		if err != nil || tr.Status() != http.StatusOK {
			t.Errorf("header %s: status %d, %v, want it gone", name, tr.Status(), err)
		}
	}
}

// Without our guards this makes two requests, because net/http takes the header as permission to send again.
func TestPostOnAUsedConnectionIsNeverReplayed(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) == 1 {
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	})
	c := newClient(t, Options{})
	if _, _, err := post(t, c, srv.URL, nil); err != nil {
		t.Fatal(err)
	}
	tr, _, err := post(t, c, srv.URL, http.Header{"Idempotency-Key": {"1"}})
	if err == nil || c.Fail(tr, err).Class != provider.Uncertain {
		t.Errorf("dropped call = %v, want uncertain", err)
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("requests = %d, want 2", n)
	}
}

func TestRedirectsAndCookiesAreNotFollowed(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.Header.Get("Cookie") != "" {
			t.Error("a cookie came back")
		}
		w.Header().Set("Set-Cookie", "a=b")
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	c := newClient(t, Options{})
	for range 2 {
		tr, _, err := post(t, c, srv.URL, nil)
		if err != nil || tr.Status() != http.StatusTemporaryRedirect {
			t.Errorf("post = status %d, %v", tr.Status(), err)
		}
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("requests = %d, want 2", n)
	}
}

func TestUntrustedCertificateIsMisconfigured(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c := newClient(t, Options{})
	tr, _, err := post(t, c, srv.URL, nil)
	if err == nil || tr.Wrote() {
		t.Fatalf("post = %v, wrote %t", err, tr.Wrote())
	}
	if got := c.Fail(tr, err).Class; got != provider.Misconfigured {
		t.Errorf("class = %s, want misconfigured", got)
	}
}

// refusingConn takes no byte. net/http has written the header to a buffer by then and says so.
type refusingConn struct{ net.Conn }

func (refusingConn) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestRequestThatDiedInTheBufferIsTransient(t *testing.T) {
	t.Parallel()
	srv := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") })
	base := newTransport(Options{Concurrency: 1})
	dial := base.DialContext
	base.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: refusingConn{conn}}, nil
	}
	c := newClient(t, Options{Transport: base})
	tr, _, err := post(t, c, srv.URL, nil)
	if err == nil || c.Fail(tr, err).Class != provider.Transient {
		t.Errorf("post = %v (wrote %t), want transient", err, tr.Wrote())
	}
}

// If the connections are not ours, WroteHeaders is the only sign.
func TestForeignTransportGoesByItsHooks(t *testing.T) {
	t.Parallel()
	srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	})
	foreign := &http.Transport{}
	c := newClient(t, Options{Transport: foreign})
	tr, _, err := post(t, c, srv.URL, nil)
	if err == nil || c.Fail(tr, err).Class != provider.Uncertain {
		t.Errorf("post = %v (wrote %t), want uncertain", err, tr.Wrote())
	}
}

func TestHTTP2StreamResets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(*http2.Framer, uint32) error
		want provider.Class
	}{
		{"refused stream", reset(http2.ErrCodeRefusedStream), provider.Transient},
		{"protocol error, which net/http replays", reset(http2.ErrCodeProtocol), provider.Uncertain},
		{"internal error", reset(http2.ErrCodeInternal), provider.Uncertain},
		{"graceful goaway below the stream", func(f *http2.Framer, _ uint32) error {
			return f.WriteGoAway(0, http2.ErrCodeNo, nil)
		}, provider.Transient},
		{"goaway with an error", func(f *http2.Framer, id uint32) error {
			return errors.Join(f.WriteGoAway(id, http2.ErrCodeInternal, nil), io.EOF)
		}, provider.Uncertain},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv, streams := http2Server(t, c.end)
			base := newTransport(Options{Concurrency: 1})
			base.TLSClientConfig.RootCAs = x509.NewCertPool()
			base.TLSClientConfig.RootCAs.AddCert(srv.Certificate())
			client := newClient(t, Options{Transport: base})
			tr, _, err := post(t, client, srv.URL, nil)
			if err == nil {
				t.Fatal("the call succeeded")
			}
			if got := client.Fail(tr, err).Class; got != c.want {
				t.Errorf("class = %s (%v), want %s", got, err, c.want)
			}
			if n := streams.Load(); n != 1 {
				t.Errorf("streams = %d, want 1: the request was replayed", n)
			}
		})
	}
}

func reset(code http2.ErrCode) func(*http2.Framer, uint32) error {
	return func(f *http2.Framer, id uint32) error { return f.WriteRSTStream(id, code) }
}

// http2Server answers each stream by end once the whole request is there, and counts the streams. It closes the
// connection when end returns an error.
func http2Server(t *testing.T, end func(*http2.Framer, uint32) error) (*httptest.Server, *atomic.Int32) {
	t.Helper()
	var streams atomic.Int32
	srv := httptest.NewUnstartedServer(nil)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.TLS = &tls.Config{NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
	srv.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		"h2": func(_ *http.Server, conn *tls.Conn, _ http.Handler) { speakHTTP2(conn, &streams, end) },
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv, &streams
}

func speakHTTP2(conn net.Conn, streams *atomic.Int32, end func(*http2.Framer, uint32) error) {
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(); err != nil {
		return
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch fr := frame.(type) {
		case *http2.HeadersFrame:
			streams.Add(1)
		case *http2.DataFrame:
			if fr.StreamEnded() && end(f, fr.StreamID) != nil {
				return
			}
		}
	}
}
