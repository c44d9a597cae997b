package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/seal"
)

const postfixSizeLimit = 400_000

// postfix is a private Postfix on loopback with folders of its own, which delivers everything for example.org into one
// maildir. It takes mail for remote.example to another host, and its reports back to us as docs/postfix.md says.
type postfix struct {
	dir  string
	port int
	log  *lockedBuffer
	read sync.Map // what the maildir held so far: text by name
}

const postfixMain = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
daemon_directory = %[2]s
command_directory = %[3]s
maillog_file = /dev/stdout
myhostname = relay.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
message_size_limit = %[5]d
virtual_mailbox_limit = 0
virtual_mailbox_domains = example.org
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:%[4]d
virtual_gid_maps = static:%[4]d
smtpd_relay_restrictions = reject_unauth_destination
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 1s
smtp_connection_cache_on_demand = no
lmtp_connection_cache_on_demand = no
fast_flush_domains =
smtpd_recipient_restrictions = check_recipient_access inline:{ { later@example.org = 450 4.2.0 greylisted } { bad@example.org = 550 5.1.1 User unknown } }
`

const postfixMaster = `127.0.0.1:%d inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
virtual unix - n n - - virtual
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

// startPostfix starts it with more lines in main.cf. It skips the test if Postfix is not installed or may not be started.
func startPostfix(t *testing.T, more string) *postfix {
	t.Helper()
	command, err := exec.LookPath("postfix")
	if err != nil {
		command, err = exec.LookPath("/usr/sbin/postfix")
	}
	owner, uerr := user.Lookup("postfix")
	if err != nil || uerr != nil || os.Geteuid() != 0 {
		t.Skip("needs Postfix installed and root to start it")
	}
	p := &postfix{dir: postfixFolder(t, owner), port: freePort(t), log: &lockedBuffer{}}
	daemons, err := exec.Command("postconf", "-d", "-h", "daemon_directory").Output()
	if err != nil {
		t.Fatalf("ask postconf for the daemons: %v", err)
	}
	p.write(t, "etc/main.cf", fmt.Sprintf(postfixMain, p.dir, strings.TrimSpace(string(daemons)), filepath.Dir(command), nobody(t), postfixSizeLimit)+more)
	p.write(t, "etc/master.cf", fmt.Sprintf(postfixMaster, p.port))
	p.run(t, command)
	return p
}

// postfixFolder makes the folders. t.TempDir won't do: its parent is closed to the users that Postfix runs as.
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
	for name, uid := range map[string]int{"": 0, "etc": 0, "queue": 0, "data": uid, "mail": nobody(t)} {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(path, 0o755)
		if err == nil {
			err = os.Chmod(path, 0o755)
		}
		if err == nil {
			err = os.Chown(path, uid, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func nobody(t *testing.T) int {
	t.Helper()
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Fatal(err)
	}
	return uid
}

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return portOf(t, ln)
}

func (p *postfix) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run starts the master in the foreground and makes sure that no process of it is left after the test. Orphans become our
// children, so that we can wait for them on machines without an init process.
func (p *postfix) run(t *testing.T, command string) {
	t.Helper()
	const setChildSubreaper = 36 // prctl(2)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0); errno != 0 {
		t.Fatalf("become subreaper: %v", errno)
	}
	cmd := exec.Command(command, "-c", filepath.Join(p.dir, "etc"), "start-fg")
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("start postfix: %v", err)
	}
	t.Cleanup(func() {
		p.stop(t)
		_ = cmd.Wait() // it was told to end
		// Postfix is all that this package's tests start.
		eventually(t, "all of Postfix is gone", func() bool {
			var status syscall.WaitStatus
			for {
				pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
				if errors.Is(err, syscall.ECHILD) {
					return true
				}
				if pid <= 0 {
					return false
				}
			}
		})
		if t.Failed() {
			t.Logf("postfix said:\n%s", p.log.String())
		}
	})
	eventually(t, "Postfix answers", func() bool {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", p.port), time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

func (p *postfix) stop(t *testing.T) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(p.dir, "queue/pid/master.pid"))
	if err != nil {
		t.Errorf("find the master: %v", err)
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid < 2 {
		t.Errorf("master.pid holds %q", raw)
		return
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Errorf("stop the master: %v", err)
	}
}

func (p *postfix) client(t *testing.T, secrets map[string]seal.Secret, extra map[string]any) *Client {
	t.Helper()
	r := &relay{t: t, ln: addrOnly{port: p.port}}
	return r.clientWith(r.config(secrets, extra))
}

// addrOnly lets the relay helpers use the address of another server.
type addrOnly struct {
	net.Listener
	port int
}

// Addr implements net.Listener.
func (a addrOnly) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: a.port} }

// inbox returns the messages delivered so far. A file of a maildir never changes, so each is read once.
func (p *postfix) inbox(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(p.dir, "mail/box/new/*"))
	if err != nil {
		t.Fatal(err)
	}
	texts := make([]string, 0, len(files))
	for _, f := range files {
		text, ok := p.read.Load(f)
		if !ok {
			text = mustRead(t, f)
			p.read.Store(f, text)
		}
		texts = append(texts, text.(string)) //nolint:forcetypeassert // nothing else is stored
	}
	return texts
}

// delivered waits for the message in the maildir.
func (p *postfix) delivered(t *testing.T, m *mail.Message) string {
	t.Helper()
	var found string
	eventually(t, "the message is delivered", func() bool {
		for _, text := range p.inbox(t) {
			if strings.Contains(text, "\nMessage-ID: <"+m.MessageID()+">") {
				found = text
			}
		}
		return found != ""
	})
	return found
}

// count returns how many delivered messages hold all of the texts.
func (p *postfix) count(t *testing.T, texts ...string) int {
	t.Helper()
	n := 0
	for _, text := range p.inbox(t) {
		all := true
		for _, want := range texts {
			all = all && strings.Contains(text, want)
		}
		if all {
			n++
		}
	}
	return n
}

// logged waits until Postfix's own log names the queue id that we were given.
func (p *postfix) logged(t *testing.T, queueID string) {
	t.Helper()
	if queueID == "" {
		t.Error("no queue id")
		return
	}
	eventually(t, "the queue id is in Postfix's log", func() bool { return strings.Contains(p.log.String(), " "+queueID+": ") })
}

// lockedBuffer collects the log while tests read it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns what was written so far.
func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
