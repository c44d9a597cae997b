//go:build drill

package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/api"
)

// postfixMain comes before the main.cf of docs/postfix.md. All mail except bounces goes to the next host, and waiting mail is
// tried again at once.
const postfixMain = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
daemon_directory = %[2]s
command_directory = /usr/sbin
maillog_file = /dev/stdout
myhostname = relay.test
mydestination =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
fast_flush_domains =
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 1s
smtp_connection_cache_on_demand = no
lmtp_connection_cache_on_demand = no
relayhost = [127.0.0.1]:%[3]s
`

const postfixMaster = `%s inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

// needPostfix skips the test where a private Postfix can't be started, and returns the user that it runs as.
func needPostfix(t *testing.T) *user.User {
	t.Helper()
	_, err := exec.LookPath("/usr/sbin/postfix") // there, and a program
	owner, uerr := user.Lookup("postfix")
	if err != nil || uerr != nil || os.Geteuid() != 0 {
		t.Skip("needs /usr/sbin/postfix and root to start it")
	}
	return owner
}

// startPostfix starts a private Postfix on loopback, with folders of its own, and returns where it listens. It hands mail
// for the bounce domain to us at lmtp, as docs/postfix.md says, and all other mail to the next host.
func startPostfix(t *testing.T, owner *user.User, next, lmtp string) string {
	t.Helper()
	dir, listen := postfixFolder(t, owner), fixedAddr(t)
	daemons, err := exec.Command("/usr/sbin/postconf", "-d", "-h", "daemon_directory").Output()
	if err != nil {
		t.Fatalf("ask postconf for the daemons: %v", err)
	}
	for name, text := range map[string]string{
		"main.cf":   fmt.Sprintf(postfixMain, dir, strings.TrimSpace(string(daemons)), portOf(next)) + documentedMain(t, lmtp),
		"master.cf": fmt.Sprintf(postfixMaster, listen),
	} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	runPostfix(t, dir)
	eventually(t, settleTime, "Postfix answers", func() bool {
		conn, err := net.DialTimeout("tcp", listen, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return listen
}

// postfixFolder makes the folders. t.TempDir won't do: its parent is closed to the user that Postfix runs as.
func postfixFolder(t *testing.T, owner *user.User) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sendgate-postfix-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the folder: %v", err)
		}
	})
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etc", "queue", "data"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(filepath.Join(dir, "data"), uid, 0)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// documentedMain is the main.cf of docs/postfix.md with our port, and a second instead of four hours.
func documentedMain(t *testing.T, lmtp string) string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/postfix.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(doc), "\n## main.cf\n\n```\n")
	block, _, _ = strings.Cut(block, "```")
	for from, to := range map[string]string{
		" = lmtp:inet:127.0.0.1:2424 ": " = lmtp:inet:" + lmtp + " ",
		"\ndelay_warning_time = 4h\n":  "\ndelay_warning_time = 1s\n",
	} {
		if !strings.Contains(block, from) {
			t.Fatalf("docs/postfix.md has no %q under main.cf", from)
		}
		block = strings.Replace(block, from, to, 1)
	}
	return block
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// runPostfix runs it in the foreground until the test ends. Each of its processes holds the pipe of the log: when that
// is closed all are gone.
func runPostfix(t *testing.T, dir string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command("/usr/sbin/postfix", "-c", filepath.Join(dir, "etc"), "start-fg")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.WaitDelay = settleTime
	if err := cmd.Start(); err != nil {
		t.Fatalf("start Postfix: %v", err)
	}
	t.Cleanup(func() {
		if err := stopPostfix(dir); err != nil {
			t.Errorf("stop Postfix: %v", err)
		}
		if err := cmd.Wait(); errors.Is(err, exec.ErrWaitDelay) { // else it was told to end
			t.Errorf("a process of Postfix is left: %v", err)
		}
		if t.Failed() {
			t.Logf("Postfix said:\n%s", &log)
		}
	})
}

func stopPostfix(dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, "queue/pid/master.pid"))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid < 2 {
		return fmt.Errorf("master.pid holds %q", raw)
	}
	return syscall.Kill(pid, syscall.SIGTERM)
}

// addRelay makes an account of the relay, as docs/postfix.md says, and returns when messages may go by it.
func addRelay(t *testing.T, r *replica, relay string) {
	t.Helper()
	port, err := strconv.Atoi(portOf(relay))
	if err != nil {
		t.Fatal(err)
	}
	settings, err := json.Marshal(map[string]any{"host": "127.0.0.1", "port": port, "bounce_domain": bouncesAt, "notify_success": true})
	if err != nil {
		t.Fatal(err)
	}
	account := api.AccountRequest{Name: "relay", Kind: "smtp", Settings: settings, Secrets: map[string]string{"verp_key": strings.Repeat("7e", 32)}}
	if _, err := r.admin.CreateAccount(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	eventually(t, settleTime, "the account binds", func() bool {
		x, err := r.admin.Explain(t.Context(), pinned("relay"))
		return err == nil && x.Decision.Chosen == "relay"
	})
}
