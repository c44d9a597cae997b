package smtp

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/lmtp"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// composePostfix starts a Postfix with the relay's main.cf of docker-compose.yml, in its own folders. It delivers bounces to
// the socket and all other mail to the next host, because there is no Internet here.
func composePostfix(t *testing.T, owner *user.User, socket string, next int) *postfix {
	t.Helper()
	p := &postfix{dir: postfixFolder(t, owner), port: freePort(t), log: &lockedBuffer{}}
	daemons, err := exec.Command("/usr/sbin/postconf", "-d", "-h", "daemon_directory").Output()
	if err != nil {
		t.Fatalf("ask postconf for the daemons: %v", err)
	}
	cf := mustRead(t, "../../../docker/relay.cf")
	for from, to := range map[string]string{
		"lmtp:unix:/srv/lmtp/lmtp }": "lmtp:unix:" + socket + " }",
		"\ninet_interfaces = all\n":  "\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n",
	} {
		if !strings.Contains(cf, from) {
			t.Fatalf("docker/relay.cf has no %q", from)
		}
		cf = strings.Replace(cf, from, to, 1)
	}
	p.write(t, "etc/main.cf", cf+fmt.Sprintf(`
queue_directory = %[1]s/queue
data_directory = %[1]s/data
daemon_directory = %[2]s
command_directory = /usr/sbin
myhostname = relay.invalid
relayhost = [127.0.0.1]:%[3]d
sendgate_bounce_domain = relay.invalid
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 1s
`, p.dir, strings.TrimSpace(string(daemons)), next))
	p.write(t, "etc/master.cf", fmt.Sprintf(postfixMaster, p.port)+"tlsmgr unix - - n 1000? 1 tlsmgr\n")
	p.run(t, "/usr/sbin/postfix")
	return p
}

// TestPostfixOfComposeBringsBouncesBack runs a real Postfix with the relay's configuration of docker-compose.yml, and sendgate's
// listener at the socket in a folder of another user, as both containers have it.
func TestPostfixOfComposeBringsBouncesBack(t *testing.T) {
	t.Parallel()
	_, perr := exec.LookPath("/usr/sbin/postfix")
	owner, err := user.Lookup("postfix")
	if perr != nil || err != nil || os.Geteuid() != 0 {
		t.Skip("needs Postfix installed and root to start it")
	}
	shared, err := os.MkdirTemp("", "sendgate-lmtp-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(shared) })
	if err := os.Chmod(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(shared, 65532, 65532); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(shared, "lmtp")
	raw, secrets, err := ParseURL("smtp://127.0.0.1:25?tls=none&bounce_domain=relay.invalid")
	if err != nil {
		t.Fatal(err)
	}
	f := &feedback{}
	f.next = startRelay(t, func(r *relay) {
		r.reply = on("RCPT TO:<gone@remote.example>", "550 5.1.1 <gone@remote.example>: Recipient address rejected: User unknown")
	})
	p := composePostfix(t, owner, socket, portOf(t, f.next.ln))
	cfg, err := ParseConfig(raw, secrets)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Port = p.port
	if f.reader, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.reader.Close() })
	f.lmtp, err = lmtp.New(lmtp.Options{Listen: "unix:" + socket, Receive: f.receive, Knows: f.reader.Knows, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.lmtp.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.lmtp.Stop(context.Background()) })

	m := message("gone@remote.example")
	_, serr := send(deadline(t), t, f.reader, m)
	wantClass(t, "send", serr, provider.Accepted)
	got := f.of(t, p, m.ID, mail.EventBounced)
	if got.Recipient != "gone@remote.example" || got.Bounce == nil || got.Bounce.Class != mail.Hard || got.Bounce.Code != "550" {
		t.Errorf("the event is %+v, bounce %+v", got, got.Bounce)
	}
	if log := p.log.String(); strings.Contains(log, "warning:") || strings.Contains(log, "fatal:") {
		t.Errorf("Postfix warns:\n%s", log)
	}
}
