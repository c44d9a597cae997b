package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal makes a pseudo-terminal of 40 columns: what a program does with the second file, a person sees at the first.
func openTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { _ = person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	if err := unix.IoctlSetWinsize(int(program.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 40}); err != nil {
		t.Fatal(err)
	}
	return person, program
}

// However top ends, the terminal is as it was before.
func TestTopLeavesTheTerminalAsItWas(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		answer{200, nil, `{"ready":7,"data":[]}`}.write(rw)
	}))
	t.Cleanup(srv.Close)
	for name, end := range map[string]func(person *os.File, p *os.Process) error{
		"q":         func(person *os.File, _ *os.Process) error { _, err := person.WriteString("xq"); return err },
		"Ctrl-C":    func(person *os.File, _ *os.Process) error { _, err := person.WriteString("\x03"); return err },
		"a SIGTERM": func(_ *os.File, p *os.Process) error { return p.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			person, program := openTerminal(t)
			before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "top")
			cmd.Dir = t.TempDir()
			cmd.Env = []string{asProgram + "=1", "SENDGATE_URL=" + srv.URL, "SENDGATE_ADMIN_KEY=sg_admin"}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			said := make(chan []byte, 100)
			go func() { // a read of a terminal can't be cancelled
				for {
					b := make([]byte, 4096)
					n, err := person.Read(b)
					if err != nil {
						return
					}
					said <- b[:n]
				}
			}()
			seen := ""
			read := func(until string) {
				t.Helper()
				for !strings.Contains(seen, until) {
					select {
					case b := <-said:
						seen += string(b)
					case <-ctx.Done():
						t.Fatalf("no %q in %q", until, seen)
					}
				}
			}
			read("ready 7")
			read(clearRest)
			raw, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
			if err != nil || raw.Lflag&unix.ECHO != 0 {
				t.Errorf("while it runs, keys are echoed: %+v, %v", raw, err)
			}
			if err := end(person, cmd.Process); err != nil {
				t.Fatal(err)
			}
			read(screenOff)
			if err := cmd.Wait(); err != nil {
				t.Errorf("exit: %v", err)
			}
			after, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
			if err != nil || *after != *before {
				t.Errorf("terminal before %+v, after %+v, %v", before, after, err)
			}
			_ = program.Close() // which ends the read
			if !strings.HasPrefix(seen, screenOn) {
				t.Errorf("the screen is not another one: %q", seen)
			}
		})
	}
}
