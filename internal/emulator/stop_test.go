package emulator_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/emulator/catalog"
)

// Both listeners are open before their servers have begun to serve.
func TestStopRightAfterStart(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			for i := range 20 {
				stopAtOnce(t, i%2 == 1)
			}
		})
	}
	all.Wait()
}

// ports counts from a random one below those that systems hand out by themselves: whoever listens on such a port later is
// no stranger that was given it.
var (
	firstPort = rand.Uint32N(20_000)
	ports     atomic.Uint32
)

// startOnPortsOfOurOwn starts an emulator on ports that no other process gets later.
func startOnPortsOfOurOwn(ctx context.Context) (*emulator.Emulator, error) {
	for {
		e, err := catalog.New(emulator.Options{Listen: nextPort(), SMTPListen: nextPort()})
		if err == nil {
			err = e.Start(ctx)
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return e, err
		}
	}
}

func nextPort() string { return fmt.Sprintf("127.0.0.1:%d", 10_000+(firstPort+ports.Add(1))%20_000) }

// stopAtOnce starts an emulator and stops it, with or without open connections.
func stopAtOnce(t *testing.T, connected bool) {
	t.Helper()
	e, err := startOnPortsOfOurOwn(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	at := []string{strings.TrimPrefix(e.URL(), "http://"), e.SMTPAddr()}
	var held sync.WaitGroup
	for _, addr := range at {
		if !connected {
			break
		}
		held.Go(func() {
			if conn, err := net.Dial("tcp", addr); err == nil {
				_, _ = io.Copy(io.Discard, conn) // until Stop closes it
				_ = conn.Close()
			}
		})
	}
	ended := make(chan error, 1)
	go func() {
		err := e.Stop(context.Background())
		held.Wait()
		ended <- err
	}()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Stop = %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("Stop hangs, or leaves a connection open")
	}
	for _, addr := range at {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			t.Errorf("%s is open after Stop", addr)
		}
	}
}
