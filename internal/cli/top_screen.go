package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// topView shows looks. After an error there is no look.
type topView interface {
	// begin returns a channel that is closed when the user wants to end; nil is never.
	begin() (quit <-chan struct{}, err error)
	show(look *topLook, err error, now time.Time) error
	end()
}

// view chooses how to show looks: as lines of JSON, on a terminal, or below each other.
func (c *topCmd) view(s *Streams) topView {
	width, _ := terminalSize(s.Out)
	switch {
	case c.JSON:
		return &topLines{s: s}
	case width > 0 && !c.Once:
		return &topScreen{s: s}
	default:
		return &topBlocks{s: s}
	}
}

// topLines prints a line of JSON for each look, and one for each error on standard error.
type topLines struct{ s *Streams }

func (*topLines) begin() (<-chan struct{}, error) { return nil, nil } //nolint:nilnil // nobody presses a key
func (*topLines) end()                            {}

func (v *topLines) show(look *topLook, err error, _ time.Time) error {
	if err != nil {
		failJSON(v.s.Err, err)
		return nil
	}
	return printLine(v.s.Out, look)
}

// topBlocks prints looks below each other.
type topBlocks struct {
	s     *Streams
	shown bool
}

func (*topBlocks) begin() (<-chan struct{}, error) { return nil, nil } //nolint:nilnil // nobody presses a key
func (*topBlocks) end()                            {}

func (v *topBlocks) show(look *topLook, err error, now time.Time) error {
	if err != nil {
		fmt.Fprintln(v.s.Err, away(err, now))
		return nil
	}
	if v.shown {
		fmt.Fprintln(v.s.Out)
	}
	v.shown = true
	return look.write(v.s.Out, v.s.width())
}

func away(err error, now time.Time) string {
	return stamp(now) + " no answer, asking again: " + oneLine(err.Error())
}

// topScreen draws looks over each other on a terminal.
type topScreen struct {
	s    *Streams
	last *topLook
	in   *os.File    // the terminal of the keys; nil if there is none
	was  *term.State // of in, before
}

// The sequences are those of ECMA-48 and of xterm, which all terminals of today know: another screen, no cursor, and no wrapping
// of long lines.
const (
	screenOn  = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	screenOff = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	toTop     = "\x1b[H"
	clearLine = "\x1b[K"
	clearRest = "\x1b[J"
)

// begin takes the screen, and the keys if standard input is a terminal. Keys come at once and are not shown; Ctrl-C is a key like
// others then.
func (v *topScreen) begin() (<-chan struct{}, error) {
	var quit chan struct{}
	if f, ok := fileOf(v.s.In); ok && isTTY(f) {
		was, err := term.MakeRaw(int(f.Fd()))
		if err != nil {
			return nil, fmt.Errorf("prepare the terminal: %w", err)
		}
		v.in, v.was, quit = f, was, make(chan struct{})
		go watchKeys(f, quit)
	}
	_, err := io.WriteString(v.s.Out, screenOn)
	return quit, err
}

// watchKeys closes quit at q, Ctrl-C and Ctrl-D, and at the end of input. A read of a terminal can't be cancelled: it ends with
// the process.
func watchKeys(in io.Reader, quit chan<- struct{}) {
	defer close(quit)
	key := make([]byte, 1)
	for {
		if n, err := in.Read(key); err != nil || n == 1 && strings.ContainsRune("qQ\x03\x04", rune(key[0])) {
			return
		}
	}
}

// end gives the terminal back as it was.
func (v *topScreen) end() {
	_, _ = io.WriteString(v.s.Out, screenOff)
	if v.was != nil {
		_ = term.Restore(int(v.in.Fd()), v.was)
	}
}

func (v *topScreen) show(look *topLook, err error, now time.Time) error {
	width, height := terminalSize(v.s.Out)
	if err == nil {
		v.last = look
	}
	_, failed := io.WriteString(v.s.Out, draw(v.last, err, now, width, height))
	return failed
}

// draw returns one screen. The terminal is raw, so lines end in CR LF. What does not fit is cut.
func draw(look *topLook, err error, now time.Time, width, height int) string {
	var text bytes.Buffer
	if err != nil {
		fmt.Fprintln(&text, away(err, now))
	}
	if look != nil {
		_ = look.write(&text, width) // to memory
	}
	lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	if height > 0 && len(lines) > height {
		lines = append(lines[:height-1], fmt.Sprintf("(%d more lines)", len(lines)-height+1))
	}
	var screen strings.Builder
	screen.WriteString(toTop)
	for i, line := range lines {
		if i > 0 {
			screen.WriteString("\r\n")
		}
		screen.WriteString(shorten(line, max(width, 1)) + clearLine)
	}
	screen.WriteString(clearRest)
	return screen.String()
}
