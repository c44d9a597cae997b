// Command sendgate is one send API in front of many email service providers. "sendgate --help" lists what it does;
// package cli has the commands.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sendgate/sendgate/internal/cli"
)

func main() {
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once

	// With SIGPIPE taken, a write to a reader that went away returns EPIPE instead of killing a server half-way through
	// its work. It is not ignored, since children would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	return cli.Main(ctx, os.Args[1:], cli.Stdio())
}
