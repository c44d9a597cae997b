// Command sendgate is one send API in front of many email service providers. "sendgate --help" lists the commands, which are
// in package cli.
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

	// With this handler for SIGPIPE, a write to a closed pipe returns EPIPE and does not kill a server half-way through its
	// work. The signal is not ignored, since child processes would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	return cli.Main(ctx, os.Args[1:], cli.Stdio())
}
