package lmtp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/provider"
)

// taken is one call of Receive.
type taken struct {
	From, To string
	Body     string
}

// inbox receives mail, and answers with the reply that is set for the recipient.
type inbox struct {
	mu     sync.Mutex
	took   []taken
	answer map[string]error
}

func (i *inbox) receive(_ context.Context, from, to string, body []byte) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.answer[to]; err != nil {
		return err
	}
	i.took = append(i.took, taken{from, to, string(body)})
	return nil
}

func (i *inbox) all() []taken {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]taken(nil), i.took...)
}

func start(t *testing.T, opt Options) *Server {
	t.Helper()
	if opt.Listen == "" {
		opt.Listen = "127.0.0.1:0"
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Errorf("Stop = %v", err)
		}
	})
	return s
}

// client talks LMTP line by line.
type client struct {
	t    *testing.T
	conn net.Conn
	text *textproto.Conn
}

func dial(t *testing.T, s *Server) *client {
	t.Helper()
	conn, err := net.Dial(s.Addr().Network(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c := &client{t, conn, textproto.NewConn(conn)}
	t.Cleanup(func() { _ = conn.Close() })
	c.expect("220")
	c.say("LHLO relay.test", "250")
	return c
}

// expect reads a reply and wants it to begin so.
func (c *client) expect(want string) {
	c.t.Helper()
	code, text, err := c.text.ReadResponse(0)
	got := fmt.Sprintf("%d %s", code, text)
	if code == 0 {
		got = fmt.Sprint(err)
	}
	if !strings.HasPrefix(got, want) {
		c.t.Errorf("answer %q, want %q", got, want)
	}
}

func (c *client) say(line, want string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, line+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
	c.expect(want)
}

func TestEachRecipientIsAnsweredByItsOutcome(t *testing.T) {
	t.Parallel()
	refused := func(status int, reason string) error {
		return fmt.Errorf("wrapped: %w", &provider.HookError{Status: status, Reason: reason, Err: errors.New("secret of the server")})
	}
	in := &inbox{answer: map[string]error{
		"forged@x.test": refused(403, "signature"), "large@x.test": refused(413, "too_large"), "later@x.test": refused(503, "database"),
		"busy@x.test": refused(429, "rate"), "broken@x.test": errors.New("secret of the server"),
	}}
	c := dial(t, start(t, Options{Receive: in.receive}))
	c.say("MAIL FROM:<>", "250")
	answers := [][2]string{
		{"ann@x.test", "250 2.0.0"},
		{"forged@x.test", "550 5.7.1 <forged@x.test> Refused: signature"},
		{"large@x.test", "552 5.3.4"},
		{"later@x.test", "451 4.3.0 <later@x.test> Not stored, try again later"},
		{"busy@x.test", "451 4.3.0"},
		{"broken@x.test", "451 4.3.0 <broken@x.test> Not stored, try again later"},
		{"ann@x.test", "250 2.0.0"},
	}
	for _, a := range answers {
		c.say("RCPT TO:<"+a[0]+">", "250")
	}
	c.say("DATA", "354")
	_, err := io.WriteString(c.conn, "Subject: hello\r\n\r\n..dot\r\nžluťoučký\r\n.\r\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range answers {
		c.expect(a[1])
	}
	c.say("MAIL FROM:<bob@y.test>", "250")
	c.say("RCPT TO:<ann@x.test>", "250")
	c.say("BDAT 3 LAST\r\na", "250")
	c.say("QUIT", "221")
	body := "Subject: hello\r\n\r\n.dot\r\nžluťoučký\r\n"
	want := []taken{{"", "ann@x.test", body}, {"", "ann@x.test", body}, {"bob@y.test", "ann@x.test", "a\r\n"}}
	if diff := cmp.Diff(want, in.all()); diff != "" {
		t.Errorf("received (-want +got):\n%s", diff)
	}
}

func TestUnknownRecipientsAreRefusedBeforeTheBody(t *testing.T) {
	t.Parallel()
	in := &inbox{}
	c := dial(t, start(t, Options{Receive: in.receive, Knows: func(to string) bool { return to == "ann@x.test" }}))
	c.say("MAIL FROM:<>", "250")
	c.say("RCPT TO:<bob@x.test>", "550 5.1.1")
	c.say("RCPT TO:<ann@x.test>", "250")
	c.say("DATA", "354")
	c.say("hello\r\n.", "250")
	if diff := cmp.Diff([]taken{{"", "ann@x.test", "hello\r\n"}}, in.all()); diff != "" {
		t.Errorf("received (-want +got):\n%s", diff)
	}
}

func TestLargeMessagesAreCutAndTooLargeOnesRefused(t *testing.T) {
	t.Parallel()
	in := &inbox{}
	c := dial(t, start(t, Options{Receive: in.receive, MaxBytes: 3 << 20}))
	line := strings.Repeat("x", 998) + "\r\n"
	c.say("MAIL FROM:<> SIZE=4000000", "552")
	for count, want := range map[int]string{2 << 10: "250", 4 << 10: "552 5.3.4"} {
		c.say("MAIL FROM:<>", "250")
		c.say("RCPT TO:<ann@x.test>", "250")
		c.say("DATA", "354")
		c.say(strings.Repeat(line, count)+".", want)
	}
	got := in.all()
	if len(got) != 1 || len(got[0].Body) != provider.MaxHook || !strings.HasPrefix(got[0].Body, line) {
		t.Fatalf("received %d messages, want one of %d bytes", len(got), provider.MaxHook)
	}
}

func TestCaps(t *testing.T) {
	t.Parallel()
	in := &inbox{}
	s := start(t, Options{Receive: in.receive})
	c := dial(t, s)
	c.say("MAIL FROM:<>", "250")
	for i := range maxRecipients {
		c.say(fmt.Sprintf("RCPT TO:<a%d@x.test>", i), "250")
	}
	c.say("RCPT TO:<one-more@x.test>", "452")
	c = dial(t, s)
	c.say("MAIL FROM:<>", "250")
	c.say("RCPT TO:<ann@x.test>", "250")
	c.say("DATA", "354")
	c.say(strings.Repeat("x", 2*maxLine), "550 5.6.0")
	c = dial(t, s)
	c.say("NOOP "+strings.Repeat("x", 2*maxLine), "500")
	if got := in.all(); len(got) > 0 {
		t.Errorf("received %v, want nothing", got)
	}
}

// TestHalfAMessageIsNone checks that a connection that ends in the body leaves nothing behind.
func TestHalfAMessageIsNone(t *testing.T) {
	t.Parallel()
	in := &inbox{}
	s := start(t, Options{Receive: in.receive})
	for _, body := range []string{"DATA\r\nhalf a mess", "DATA\r\nno final dot\r\n", "BDAT 5\r\nhello", "BDAT 5\r\nhelloRSET\r\n"} {
		c := dial(t, s)
		c.say("MAIL FROM:<>", "250")
		c.say("RCPT TO:<ann@x.test>", "250")
		if _, err := io.WriteString(c.conn, body); err != nil {
			t.Fatal(err)
		}
		if tcp, ok := c.conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, c.conn) // until the server is through with it
	}
	if got := in.all(); len(got) > 0 {
		t.Errorf("received %v, want nothing", got)
	}
}

func TestStopWaitsForWhatIsBeingReceived(t *testing.T) {
	t.Parallel()
	entered, release, stored := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s, err := New(Options{Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler), Receive: func(context.Context, string, string, []byte) error {
		close(entered)
		<-release
		close(stored)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	c := dial(t, s)
	c.say("MAIL FROM:<>", "250")
	c.say("RCPT TO:<ann@x.test>", "250")
	c.say("DATA", "354")
	if _, err := io.WriteString(c.conn, "hello\r\n.\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	idle := dial(t, s)
	idle.say("MAIL FROM:<>", "250")
	idle.say("RCPT TO:<ann@x.test>", "250")
	idle.say("DATA", "354")
	stopped := make(chan error)
	go func() { stopped <- s.Stop(context.Background()) }()
	for s.begin() { // until Stop has begun
		s.busy.Done()
	}
	idle.say("late\r\n.", "451 4.3.2")
	select {
	case <-stopped:
		t.Error("Stop did not wait")
	default:
	}
	close(release)
	if err := <-stopped; err != nil {
		t.Errorf("Stop = %v", err)
	}
	<-stored
	if err := s.Stop(context.Background()); err != nil {
		t.Errorf("second Stop = %v", err)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("still listening")
	}
}

func TestStopGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	entered, left := make(chan struct{}), make(chan struct{})
	s, err := New(Options{Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler), Receive: func(ctx context.Context, _, _ string, _ []byte) error {
		defer close(left)
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	c := dial(t, s)
	c.say("MAIL FROM:<>", "250")
	c.say("RCPT TO:<ann@x.test>", "250")
	c.say("DATA", "354")
	if _, err := io.WriteString(c.conn, "hello\r\n.\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Stop = %v, want that it gave up", err)
	}
	<-left
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	in := &inbox{}
	path := filepath.Join(t.TempDir(), "lmtp")
	s := start(t, Options{Listen: "unix:" + path, Receive: in.receive})
	c := dial(t, s)
	c.say("MAIL FROM:<>", "250")
	second, err := New(Options{Listen: "unix:" + path, Receive: in.receive, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("Start on a socket in use = %v", err)
	}
	if err := s.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	_ = left.Close()
	dial(t, start(t, Options{Listen: "unix:" + path, Receive: in.receive})).say("QUIT", "221")

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	third, err := New(Options{Listen: "unix:" + file, Receive: in.receive, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Start(); err == nil {
		t.Error("a file was taken for a socket")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	receive := (&inbox{}).receive
	log := slog.New(slog.DiscardHandler)
	for name, tc := range map[string]struct {
		opt Options
		ok  bool
	}{
		"loopback":      {Options{Listen: "127.0.0.1:2424", Receive: receive, Log: log}, true},
		"loopback 6":    {Options{Listen: "[::1]:2424", Receive: receive, Log: log}, true},
		"localhost":     {Options{Listen: "localhost:2424", Receive: receive, Log: log}, true},
		"unix":          {Options{Listen: "unix:/run/x", Receive: receive, Log: log}, true},
		"everywhere":    {Options{Listen: ":2424", Receive: receive, Log: log}, false},
		"remote":        {Options{Listen: "192.0.2.1:2424", Receive: receive, Log: log}, false},
		"allowed":       {Options{Listen: "192.0.2.1:2424", Receive: receive, Log: log, AllowRemote: true}, true},
		"name":          {Options{Listen: "mail.example.com:2424", Receive: receive, Log: log}, false},
		"no port":       {Options{Listen: "127.0.0.1", Receive: receive, Log: log}, false},
		"nothing":       {Options{Receive: receive, Log: log}, false},
		"no socket":     {Options{Listen: "unix:", Receive: receive, Log: log}, false},
		"nobody":        {Options{Listen: "127.0.0.1:0", Log: log}, false},
		"no log":        {Options{Listen: "127.0.0.1:0", Receive: receive}, false},
		"negative size": {Options{Listen: "127.0.0.1:0", Receive: receive, Log: log, MaxBytes: -1}, false},
	} {
		if _, err := New(tc.opt); (err == nil) != tc.ok {
			t.Errorf("%s: err = %v, want ok %v", name, err, tc.ok)
		}
	}
}

// TestLogsNameNoAddress checks that the log of a message that was not stored has only the recipient's domain.
func TestLogsNameNoAddress(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	c := dial(t, start(t, Options{
		Log:     slog.New(slog.NewTextHandler(&log, nil)),
		Receive: func(context.Context, string, string, []byte) error { return errors.New("no room") },
	}))
	c.say("MAIL FROM:<bob@y.test>", "250")
	c.say("RCPT TO:<ann@x.test>", "250")
	c.say("DATA", "354")
	c.say("hello\r\n.", "451")
	if got := log.String(); !strings.Contains(got, "no room") || !strings.Contains(got, "domain=x.test") || strings.Contains(got, "ann") || strings.Contains(got, "bob") {
		t.Errorf("log = %s", got)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
