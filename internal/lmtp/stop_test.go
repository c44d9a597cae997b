package lmtp

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mustStop stops a server and fails the test when that hangs.
func mustStop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(ctx) }()
	select {
	case err := <-stopped:
		if err != nil {
			t.Fatalf("Stop = %v", err)
		}
	case <-time.After(40 * time.Second):
		t.Fatal("Stop hangs")
	}
}

// Start returns before go-smtp has begun to serve, and go-smtp closes only the listeners and connections that it knows.
func TestStopRightAfterStart(t *testing.T) {
	t.Parallel()
	for name, listen := range map[string]string{"tcp": "127.0.0.1:0", "unix": "unix:" + filepath.Join(t.TempDir(), "lmtp.sock")} {
		for _, dialled := range []bool{false, true} {
			for range 200 {
				s, err := New(Options{Listen: listen, Receive: new(inbox).receive, Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Start(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				var conn net.Conn
				if dialled {
					if conn, err = net.Dial(s.Addr().Network(), s.Addr().String()); err != nil {
						t.Fatal(err)
					}
				}
				mustStop(t, s)
				if err := s.ln.Close(); !errors.Is(err, net.ErrClosed) {
					t.Fatalf("%s: Stop left the listener open: closing it gives %v", name, err)
				}
				if dialled {
					wantHungUp(t, conn)
				}
			}
		}
	}
}

// wantHungUp fails the test unless the other side of a connection is closed.
func wantHungUp(t *testing.T, conn net.Conn) {
	t.Helper()
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, conn)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		t.Fatal("Stop left a connection open")
	}
}

func TestSecondStopWaitsForTheFirst(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	s := start(t, Options{Receive: func(ctx context.Context, _, _ string, _ []byte) error {
		close(entered)
		<-release
		return ctx.Err()
	}})
	c := dial(t, s)
	c.say("MAIL FROM:<>", "250")
	c.say("RCPT TO:<ann@x.test>", "250")
	c.say("DATA", "354")
	if _, err := io.WriteString(c.conn, "hello\r\n.\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	first := make(chan error, 1)
	go func() { first <- s.Stop(context.Background()) }()
	for s.begin() { // until Stop has begun
		s.busy.Done()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a second Stop = %v, want that it gave up its wait", err)
	}
	if s.ctx.Err() != nil {
		t.Error("a second Stop cut off what the first waits for")
	}
	close(release)
	if err := <-first; err != nil {
		t.Errorf("Stop = %v", err)
	}
}
