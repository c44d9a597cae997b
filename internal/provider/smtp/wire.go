package smtp

import (
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxReplies caps what a server may send between two of our writes, in bytes: go-smtp caps the length of a line, not the number.
const maxReplies = 1 << 20

var errTooMuch = errors.New("server sent more than 1 MiB without being asked")

// wire is the socket below TLS. It bounds each write, because go-smtp sets no deadline while it writes a body. It counts the
// bytes written, which decides between Transient and Uncertain. It also bounds what is read.
type wire struct {
	net.Conn
	writeTimeout time.Duration
	written      atomic.Int64
	read         atomic.Int64 // since the last write
}

// Write implements net.Conn.
func (w *wire) Write(p []byte) (int, error) {
	w.read.Store(0)
	if err := w.SetWriteDeadline(time.Now().Add(w.writeTimeout)); err != nil {
		return 0, err
	}
	n, err := w.Conn.Write(p)
	w.written.Add(int64(n))
	return n, err
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	if w.read.Load() > maxReplies {
		return 0, errTooMuch
	}
	n, err := w.Conn.Read(p)
	w.read.Add(int64(n))
	return n, err
}

// greeted is a connection whose greeting was read before TLS. go-smtp expects a greeting, so greeted gives it one again.
type greeted struct {
	net.Conn
	greeting *strings.Reader
}

// Read implements net.Conn.
func (g *greeted) Read(p []byte) (int, error) {
	if g.greeting.Len() > 0 {
		return g.greeting.Read(p)
	}
	return g.Conn.Read(p)
}

// wireSafe reports whether an address may stand between the angle brackets of MAIL FROM and RCPT TO. go-smtp refuses only CR
// and LF, so "a@b> NOTIFY=NEVER" would smuggle in a parameter. This is the last check, on the form that is sent.
func wireSafe(addr string) bool {
	if addr == "" || len(addr) > 320 || !utf8.ValidString(addr) {
		return false
	}
	return !strings.ContainsFunc(addr, func(r rune) bool {
		return r == '<' || r == '>' || unicode.IsSpace(r) || unicode.IsControl(r)
	})
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}
