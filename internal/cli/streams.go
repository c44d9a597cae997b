package cli

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
)

// Streams is a command's only access to the outside world.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Env      []string // in the form of os.Environ
	Dir      string   // where relative paths and .sendgate/dev.env are looked for; "" is the working directory
	Program  string   // how this program is called, for hints; "" is "sendgate"
}

// Stdio returns the streams of this process.
func Stdio() Streams {
	s := Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Environ()}
	if exe, err := os.Executable(); err == nil && strings.Contains(exe, "go-build") {
		s.Program = "go run ./cmd/sendgate"
	}
	return s
}

// program returns the first words of the commands in hints, so that users can copy them.
func (s *Streams) program() string {
	if s.Program == "" {
		return "sendgate"
	}
	return s.Program
}

// getenv returns a variable, "" when it is not set.
func (s *Streams) getenv(name string) string {
	for _, line := range s.Env {
		if v, ok := strings.CutPrefix(line, name+"="); ok {
			return v
		}
	}
	return ""
}

// path makes name relative to the directory of the streams.
func (s *Streams) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.Dir, name)
}

// quiet makes writes to a closed pipe ("sendgate messages list | head") succeed without effect, so that they neither print
// an error nor end a server half-way through its shutdown.
func (s Streams) quiet() Streams {
	s.Out, s.Err = quietPipe(s.Out), quietPipe(s.Err)
	return s
}

type pipeWriter struct {
	io.Writer
	gone *atomic.Bool // the pipe is closed: nobody reads any more
}

func quietPipe(w io.Writer) io.Writer {
	if _, done := w.(pipeWriter); done {
		return w
	}
	return pipeWriter{w, &atomic.Bool{}}
}

// Write implements io.Writer.
func (p pipeWriter) Write(b []byte) (int, error) {
	n, err := p.Writer.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		p.gone.Store(true)
		return len(b), nil
	}
	return n, err
}

// readerGone reports whether nobody reads the output any more. A command that prints without end then stops.
func (s *Streams) readerGone() bool {
	p, ok := s.Out.(pipeWriter)
	return ok && p.gone.Load()
}

// isTTY reports whether the stream is a terminal, by its file mode.
func isTTY(stream any) bool {
	f, ok := fileOf(stream)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}
