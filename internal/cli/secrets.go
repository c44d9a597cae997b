package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

var secretName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// readSecrets reads the values of --secret: name=@FILE, name=env:VAR, or the bare name, which asks on the terminal. It refuses
// a value on the command line, since every user of the machine can see it there and the shell keeps it.
func readSecrets(ctx context.Context, s *Streams, specs []string) (map[string]string, error) {
	secrets := map[string]string{}
	for _, spec := range specs {
		name, source, given := strings.Cut(spec, "=")
		if !secretName.MatchString(name) {
			return nil, usagef("--secret wants name=@FILE, name=env:VAR or name (then it asks)")
		}
		value, err := readSecret(ctx, s, "--secret", name, source, given)
		if err != nil {
			return nil, err
		}
		if value = strings.TrimRight(value, "\r\n"); value == "" {
			return nil, fmt.Errorf("secret %s is empty", name)
		}
		secrets[name] = value
	}
	return secrets, nil
}

// readSecret reads one secret from a file, a variable or the terminal.
func readSecret(ctx context.Context, s *Streams, flag, name, source string, given bool) (string, error) {
	variable, fromEnv := strings.CutPrefix(source, "env:")
	file, fromFile := strings.CutPrefix(source, "@")
	switch {
	case !given:
		return askSecret(ctx, s, name)
	case fromEnv:
		v := s.getenv(variable)
		if v == "" {
			return "", fmt.Errorf("secret %s: variable %s is not set", name, variable)
		}
		return v, nil
	case fromFile:
		b, err := os.ReadFile(s.path(file))
		if err != nil {
			return "", fmt.Errorf("secret %s: %w", name, err)
		}
		return string(b), nil
	default:
		return "", usagef("secret %s: a value on the command line is visible to every user of this machine and stays in the shell's "+
			"history; use %[2]s %[1]s=@FILE, %[2]s %[1]s=env:VAR, or %[2]s %[1]s to be asked", name, flag)
	}
}

// askSecret prompts on the terminal with echo off (POSIX stty).
func askSecret(ctx context.Context, s *Streams, name string) (string, error) {
	in, ok := s.In.(*os.File)
	if !ok || !isTTY(in) {
		return "", usagef("secret %s: there is no terminal to ask on; use --secret %[1]s=@FILE or --secret %[1]s=env:VAR", name)
	}
	if err := stty(ctx, in, "-echo"); err != nil {
		return "", fmt.Errorf("secret %s: turn the terminal's echo off: %w; without a terminal use --secret %[1]s=@FILE or --secret %[1]s=env:VAR", name, err)
	}
	defer func() {
		_ = stty(context.WithoutCancel(ctx), in, "echo")
		fmt.Fprintln(s.Err)
	}()
	fmt.Fprintf(s.Err, "%s (not shown): ", name)
	type reply struct {
		line string
		err  error
	}
	answer := make(chan reply, 1)
	go func() { // a read of a terminal can't be cancelled; after an interrupt it ends with the process
		line, err := bufio.NewReader(in).ReadString('\n')
		if errors.Is(err, io.EOF) && line != "" {
			err = nil
		}
		answer <- reply{line, err}
	}()
	select {
	case r := <-answer:
		if r.err != nil {
			return "", fmt.Errorf("secret %s: read terminal: %w", name, r.err)
		}
		return r.line, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func stty(ctx context.Context, terminal *os.File, mode string) error {
	cmd := exec.CommandContext(ctx, "stty", mode) //nolint:gosec // mode is one of two constants
	cmd.Stdin = terminal
	return cmd.Run()
}
