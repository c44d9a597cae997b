package emulator_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
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

// ownAddress returns an address of this machine, with any port, that no other test listens on: what is closed there stays closed.
// Only on Linux does the loopback interface have more than one.
func ownAddress() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1:0"
	}
	return fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

// stopAtOnce starts an emulator and stops it, with or without open connections.
func stopAtOnce(t *testing.T, connected bool) {
	t.Helper()
	e, err := catalog.New(emulator.Options{Listen: ownAddress(), SMTPListen: ownAddress()})
	if err == nil {
		err = e.Start(t.Context())
	}
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
