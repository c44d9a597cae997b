package smtp

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sendgate/sendgate/internal/provider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConnectionIsReusedWithoutNoopOrReset(t *testing.T) {
	t.Parallel()
	r := startRelay(t, nil)
	c := r.client(nil)
	for range 5 {
		_, perr := sendTo(t, c, "ann@example.org")
		wantClass(t, "send", perr, provider.Accepted)
	}
	if conns, bodies := r.count(); conns != 1 || bodies != 5 {
		t.Errorf("%d messages over %d connections, want 5 over 1", bodies, conns)
	}
	if said := append(r.said("NOOP"), r.said("RSET")...); len(said) != 0 {
		t.Errorf("said %q: Postfix counts these as junk", said)
	}
}

func TestConnectionIsRecycledAfterItsShareOfMessages(t *testing.T) {
	t.Parallel()
	r := startRelay(t, nil)
	c := r.client(map[string]any{"max_messages_per_connection": 2})
	for range 5 {
		_, perr := sendTo(t, c, "ann@example.org")
		wantClass(t, "send", perr, provider.Accepted)
	}
	if conns, bodies := r.count(); conns != 3 || bodies != 5 {
		t.Errorf("%d messages over %d connections, want 5 over 3", bodies, conns)
	}
	eventually(t, "QUIT on the two spent connections", func() bool { return len(r.said("QUIT")) >= 2 })
}

func TestIdleConnectionIsClosed(t *testing.T) {
	t.Parallel()
	r := startRelay(t, nil)
	c := r.client(map[string]any{"idle_timeout": "20ms"})
	_, perr := sendTo(t, c, "ann@example.org")
	wantClass(t, "send", perr, provider.Accepted)
	eventually(t, "QUIT after the idle time", func() bool { return len(r.said("QUIT")) == 1 })
	_, perr = sendTo(t, c, "ann@example.org")
	wantClass(t, "send after that", perr, provider.Accepted)
}

func TestCloseSaysGoodbye(t *testing.T) {
	t.Parallel()
	r := startRelay(t, nil)
	c := r.client(nil)
	_, perr := sendTo(t, c, "ann@example.org")
	wantClass(t, "send", perr, provider.Accepted)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if got := len(r.said("QUIT")); got != 1 {
		t.Errorf("QUIT was said %d times before Close returned, want once", got)
	}
}

// A relay closes idle connections when it likes. The next message finds out by a dead socket or by a 421 that was
// waiting, and goes over a fresh connection, once.
func TestStaleConnectionIsReplacedOnce(t *testing.T) {
	t.Parallel()
	for name, ending := range map[string]string{"closed": hangUp, "421": "421 4.4.2 Error: timeout exceeded"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mails atomic.Int32
			r := startRelay(t, func(r *relay) {
				r.reply = func(conn int, line string) (string, bool) {
					if conn == 1 && strings.HasPrefix(line, "MAIL") && mails.Add(1) == 2 {
						return ending, true
					}
					return "", false
				}
			})
			c := r.client(nil)
			for range 2 {
				_, perr := sendTo(t, c, "ann@example.org")
				wantClass(t, "send", perr, provider.Accepted)
			}
			if conns, bodies := r.count(); conns != 2 || bodies != 2 {
				t.Errorf("%d messages over %d connections, want 2 over 2", bodies, conns)
			}
		})
	}
}

func TestStaleConnectionIsNotReplacedTwice(t *testing.T) {
	t.Parallel()
	var mails atomic.Int32
	r := startRelay(t, func(r *relay) {
		r.reply = func(_ int, line string) (string, bool) {
			return hangUp, strings.HasPrefix(line, "MAIL") && mails.Add(1) > 1
		}
	})
	c := r.client(nil)
	_, perr := sendTo(t, c, "ann@example.org")
	wantClass(t, "first", perr, provider.Accepted)
	_, perr = sendTo(t, c, "ann@example.org")
	wantClass(t, "second", perr, provider.Transient)
	if conns, _ := r.count(); conns != 2 {
		t.Errorf("connections = %d, want 2", conns)
	}
}

// Once the relay has answered a command of the transaction, a lost connection ends the transaction.
func TestReusedConnectionLostLaterIsNotReplaced(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]provider.Class{"RCPT": provider.Transient, "DATA": provider.Transient, ".": provider.Uncertain} {
		var seen atomic.Int32
		r := startRelay(t, func(r *relay) {
			r.reply = func(_ int, got string) (string, bool) {
				return hangUp, strings.HasPrefix(got, line) && seen.Add(1) == 2
			}
		})
		c := r.client(nil)
		_, perr := sendTo(t, c, "ann@example.org")
		wantClass(t, "first", perr, provider.Accepted)
		_, perr = sendTo(t, c, "ann@example.org")
		wantClass(t, "lost at "+line, perr, want)
		if conns, _ := r.count(); conns != 1 {
			t.Errorf("lost at %s: connections = %d, want 1", line, conns)
		}
	}
}

func TestErrorReplyIsFollowedByReset(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) { r.reply = on("RCPT TO:<bad@", "550 5.1.1 User unknown") })
	c := r.client(nil)
	_, perr := sendTo(t, c, "bad@example.org")
	wantClass(t, "bad", perr, provider.BadRecipient)
	_, perr = sendTo(t, c, "ann@example.org")
	wantClass(t, "good", perr, provider.Accepted)
	if conns, _ := r.count(); conns != 1 || len(r.said("RSET")) != 1 {
		t.Errorf("%d connections, %d RSET, want 1 and 1", conns, len(r.said("RSET")))
	}
}

func TestConnectionThatCollectedErrorsIsGivenUp(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) { r.reply = on("RCPT", "550 5.1.1 User unknown") })
	c := r.client(nil)
	for range 2 * errorBudget {
		_, perr := sendTo(t, c, "bad@example.org")
		wantClass(t, "bad", perr, provider.BadRecipient)
	}
	if conns, _ := r.count(); conns < 3 {
		t.Errorf("connections = %d, want at least 3: Postfix punishes a connection with 10 errors", conns)
	}
}

func Test421ClosesTheConnection(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"RCPT", "DATA", "."} {
		var seen atomic.Int32
		r := startRelay(t, func(r *relay) {
			r.reply = func(_ int, got string) (string, bool) {
				return "421 4.3.0 going down", strings.HasPrefix(got, line) && seen.Add(1) == 1
			}
		})
		c := r.client(nil)
		_, perr := sendTo(t, c, "ann@example.org")
		wantClass(t, "421 at "+line, perr, provider.Transient)
		_, perr = sendTo(t, c, "ann@example.org")
		wantClass(t, "next", perr, provider.Accepted)
		if conns, _ := r.count(); conns != 2 {
			t.Errorf("421 at %s: connections = %d, want 2", line, conns)
		}
	}
}

func TestWaitingForAConnectionEndsWithTheContext(t *testing.T) {
	t.Parallel()
	held := make(chan struct{})
	var once sync.Once
	r := startRelay(t, func(r *relay) {
		r.reply = func(_ int, line string) (string, bool) {
			if line == "DATA" {
				once.Do(func() { close(held) })
				return silent, true
			}
			return "", false
		}
	})
	c := r.client(map[string]any{"max_connections": 1})
	first, cancelFirst := context.WithCancel(deadline(t))
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = c.Send(first, sendOf(message("ann@example.org"))) })
	<-held
	second, cancelSecond := context.WithTimeout(deadline(t), 20*time.Millisecond)
	defer cancelSecond()
	_, perr := send(second, t, c, message("bob@example.org"))
	wantClass(t, "no slot", perr, provider.Transient)
	cancelFirst()
	wg.Wait()
	if conns, _ := r.count(); conns != 1 {
		t.Errorf("connections = %d, want 1", conns)
	}
}
