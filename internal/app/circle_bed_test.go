package app

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/emulator"
)

// newCircle is a bench whose events come back. The service listens on fixed addresses, which the hooks of the emulators name
// and which a restarted process uses again.
func newCircle(t *testing.T) (b *bench, settings []string) {
	t.Helper()
	b = newBench(t, benchOptions{emu: emulator.Options{
		EventPace: 50 * time.Millisecond, DeferFor: 200 * time.Millisecond, RetryPace: 300 * time.Millisecond,
	}})
	listen, lmtp := fixedAddr(t), fixedAddr(t)
	hooks := everyAccount(emulator.Hook{"url": "lmtp://" + lmtp})
	for _, kind := range hookKinds() {
		hooks[kind] = emulator.Hook{"url": "http://" + listen + "/hooks/" + kind}
	}
	if err := b.emu.SetHooks(hooks); err != nil {
		t.Fatal(err)
	}
	return b, []string{"SENDGATE_LISTEN=" + listen, "SENDGATE_LMTP_LISTEN=" + lmtp, "SENDGATE_PUBLIC_URL=http://" + listen}
}

// nextPort counts the ports that tests fixed.
var nextPort atomic.Int32

// fixedAddr is a free address of this machine that stays free: its port is below those that systems choose. The first port
// differs from run to run.
func fixedAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20_000+(37*os.Getpid()+int(nextPort.Add(1)))%10_000)
		if l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// letterTo goes by one account to one address.
func letterTo(account, email string) api.SendRequest {
	m := pinned(account)
	m.To[0].Email = email
	return m
}

// refusals counts the requests of a provider that were refused with the status.
func (b *bench) refusals(kind string, status int) int64 {
	return b.emu.Stats()[kind].Hooks.Refused[status]
}
