package emulator_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/emulator"
	"github.com/sendgate/sendgate/internal/emulator/catalog"
	"github.com/sendgate/sendgate/internal/limit"
)

func TestNewRefusesBadOptions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		opt  emulator.Options
		want string
	}{
		{emulator.Options{Listen: "0.0.0.0:0"}, "not a loopback address"},
		{emulator.Options{SMTPListen: ":2525"}, "not a loopback address"},
		{emulator.Options{Listen: "127.0.0.1"}, "missing port"},
		{emulator.Options{Limits: map[string][]limit.Window{"acme": nil}}, `provider "acme" is not one of`},
		{emulator.Options{Limits: map[string][]limit.Window{"ses": {{N: 0, Per: time.Second, Unit: limit.Requests}}}}, "count must be"},
	}
	for _, tc := range tests {
		if _, err := catalog.New(tc.opt); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("New(%+v) = %v, want ...%s...", tc.opt, err, tc.want)
		}
	}
	for _, opt := range []emulator.Options{{Listen: "0.0.0.0:0", AllowRemote: true}, {Listen: "localhost:0"}, {Listen: "[::1]:0"}} {
		if _, err := catalog.New(opt); err != nil {
			t.Errorf("New(%+v) = %v", opt, err)
		}
	}
}

func TestStopIsIdempotentAndFinal(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{Listen: ownAddress(), SMTPListen: ownAddress()})
	if err := b.Start(t.Context()); err == nil {
		t.Error("a second Start worked")
	}
	b.sendGrid(t, sendGridBody())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := b.Stop(context.Background()); err != nil {
				t.Errorf("Stop: %v", err)
			}
		})
	}
	wg.Wait()
	if _, err := b.try("GET", "/_ledger", "", nil); err == nil {
		t.Error("still answers after Stop")
	}
	if _, err := new(net.Dialer).DialContext(t.Context(), "tcp", b.SMTPAddr()); err == nil {
		t.Error("SMTP still listens after Stop")
	}
	if n := len(b.Ledger()); n != 1 {
		t.Errorf("ledger after Stop has %d entries, want 1", n)
	}
}

func TestStopBeforeStart(t *testing.T) {
	t.Parallel()
	e, err := catalog.New(emulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if e.URL() != "" || e.SMTPAddr() != "" {
		t.Errorf("addresses before Start = %q, %q", e.URL(), e.SMTPAddr())
	}
	if err := e.Stop(context.Background()); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if err := e.Start(t.Context()); err == nil {
		t.Error("Start after Stop worked")
	}
}

func TestStartOnATakenPortLeavesNothingOpen(t *testing.T) {
	t.Parallel()
	b := start(t, emulator.Options{})
	e, err := catalog.New(emulator.Options{SMTPListen: b.SMTPAddr(), LedgerPath: t.TempDir() + "/l"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err == nil {
		t.Error("Start on a taken port worked")
	}
	if err := e.Stop(context.Background()); err != nil {
		t.Errorf("Stop: %v", err)
	}
}

func TestProvidersTakeMailAtTheSameTime(t *testing.T) {
	t.Parallel()
	const each = 20
	b := start(t, emulator.Options{
		LedgerPath: t.TempDir() + "/ledger",
		Limits:     map[string][]limit.Window{"postmark": {{N: 1000, Per: time.Minute, Unit: limit.Recipients}}},
	})
	conns := make([]func(), 4)
	for i := range conns {
		c := b.login(t)
		conns[i] = func() {
			if _, err := deliver(c, mimeMessage, "ann@example.org"); err != nil {
				t.Errorf("smtp: %v", err)
			}
		}
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range each {
				conns[i]()
				if _, err := b.sesSDK().SendEmail(t.Context(), sesInput()); err != nil {
					t.Errorf("ses: %v", err)
				}
				for path, body := range map[string]any{"/sendgrid/v3/mail/send": sendGridBody(), "/postmark/email": postmarkBody()} {
					head := b.sendGridHeader()
					for k, v := range postmarkHeader(key("postmark", "server_token")) {
						head[k] = v
					}
					if a, err := b.try("POST", path, toJSON(t, body), head); err != nil || a.status >= 300 {
						t.Errorf("%s = %d, %v", path, a.status, err)
					}
				}
				b.Stats()
				b.do(t, "GET", "/_ledger?limit=5", "", nil)
			}
		})
	}
	wg.Wait()
	count, ids := map[string]int{}, map[string]bool{}
	for _, e := range b.Ledger() {
		count[e.Provider]++
		ids[e.ProviderMessageID] = true
	}
	for _, kind := range []string{"sendgrid", "postmark", "ses", "smtp"} {
		if count[kind] != 4*each {
			t.Errorf("ledger has %d of %s, want %d", count[kind], kind, 4*each)
		}
	}
	if len(ids) != 16*each {
		t.Errorf("%d distinct provider ids, want %d", len(ids), 16*each)
	}
	if got := b.Stats()["postmark"].Windows[0]; got.Peak != 4*each || got.Used != 4*each {
		t.Errorf("postmark window = %+v, want %d", got, 4*each)
	}
}
