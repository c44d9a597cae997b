package smtp

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sendgate/sendgate/internal/provider"
)

// limited is a relay that takes so many recipients a transaction, and says this to the next one. At the final dot it
// says what dot returns, if anything.
func limited(t *testing.T, n int, says string, dot func() string) *relay {
	t.Helper()
	var mu sync.Mutex
	taken := 0
	return startRelay(t, func(r *relay) {
		r.reply = func(_ int, line string) (string, bool) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case line == "." && dot != nil:
				text := dot()
				return text, text != ""
			case strings.HasPrefix(line, "MAIL"):
				taken = 0
			case strings.HasPrefix(line, "RCPT TO:<grey"):
				return "450 4.2.0 greylisted", true
			case strings.HasPrefix(line, "RCPT TO:<bad"):
				return "550 5.1.1 User unknown", true
			case strings.HasPrefix(line, "RCPT") && taken == n:
				return says, true
			case strings.HasPrefix(line, "RCPT"):
				taken++
			}
			return "", false
		}
	})
}

// fullRefusals separates the recipients for whom there was no room from the others.
func fullRefusals(refused []provider.Refusal) (full, others []string) {
	for _, ref := range refused {
		if ref.Full {
			full = append(full, ref.Email)
		} else {
			others = append(others, ref.Email)
		}
	}
	return full, others
}

func TestRelayOfNRecipientsATransactionGetsTheRestInTheNext(t *testing.T) {
	t.Parallel()
	for _, says := range []string{
		"452 4.5.3 Error: too many recipients", "452 too many recipients", "452-4.5.3 Your message has too many recipients\r\n452 4.5.3 go on",
		"452 4.5.3 Recipients belong to multiple regions ATTR38", "451 4.5.3 later", "552 5.5.3 Too many recipients", "550 5.5.3 too many recipients",
		"552 Too many recipients", "450 too many recipients in this transaction",
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			r := limited(t, 100, says, nil)
			c := r.client(map[string]any{"max_messages_per_connection": 1000})
			var to []string
			for i := range 1000 {
				to = append(to, fmt.Sprintf("u%d@example.org", i))
			}
			calls := 0
			for left := to; len(left) > 0; calls++ {
				receipt, perr := sendTo(t, c, left...)
				wantClass(t, "send", perr, provider.Accepted)
				full, others := fullRefusals(receipt.Refused)
				if len(others) > 0 || len(full) >= len(left) {
					t.Fatalf("call %d: %d left for the next, refused %v", calls, len(full), others)
				}
				left = full
			}
			if conns, messages := r.count(); conns != 1 || messages != 10 || calls != 10 {
				t.Errorf("%d calls, %d messages over %d connections, want 10, 10 and 1", calls, messages, conns)
			}
			for _, a := range to {
				// Once when the transaction was full, and once when it was taken.
				if n := len(r.said("RCPT TO:<" + a + ">")); n > 2 {
					t.Errorf("%s was named %d times", a, n)
				}
			}
		})
	}
}

func TestOnlyAFullTransactionIsFollowedAtOnce(t *testing.T) {
	t.Parallel()
	for says, full := range map[string]bool{
		"452 4.5.3 too many recipients":                       true,
		"452 4.2.2 mailbox full":                              false,
		"452 4.3.1 insufficient system storage":               false,
		"450 4.7.1 Error: too many recipients from 192.0.2.1": false,
		"451 4.3.0 try later":                                 false,
	} {
		r := limited(t, 2, says, nil)
		receipt, perr := sendTo(t, r.client(nil), "bad@x.org", "a@x.org", "grey@x.org", "b@x.org", "c@x.org", "d@x.org")
		wantClass(t, says, perr, provider.Accepted)
		got, others := fullRefusals(receipt.Refused)
		want := []string{"c@x.org", "d@x.org"}
		if !full {
			want = nil
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: for the next transaction %v, want %v", says, got, want)
		}
		if !slices.Contains(others, "bad@x.org") || !slices.Contains(others, "grey@x.org") {
			t.Errorf("%s: refused otherwise %v, want bad and grey among them", says, others)
		}
	}
}

// A relay that takes no recipient does not count as full, because trying again at once would never end.
func TestNobodyTakenIsNotFull(t *testing.T) {
	t.Parallel()
	r := limited(t, 0, "452 4.5.3 Error: too many recipients", nil)
	_, perr := sendTo(t, r.client(nil), "a@x.org", "b@x.org")
	wantClass(t, "send", perr, provider.Transient)
}

// The second transaction is a separate call: the result of the first one is settled before the second begins.
func TestLostAnswerOfTheSecondTransactionSaysNothingOfTheFirst(t *testing.T) {
	t.Parallel()
	dots := 0
	r := limited(t, 2, "452 4.5.3 too many recipients", func() string {
		if dots++; dots == 2 {
			return hangUp
		}
		return ""
	})
	c := r.client(nil)
	receipt, perr := sendTo(t, c, "a@x.org", "b@x.org", "c@x.org", "d@x.org")
	wantClass(t, "first transaction", perr, provider.Accepted)
	left, _ := fullRefusals(receipt.Refused)
	_, perr = sendTo(t, c, append(left, "e@x.org", "f@x.org")...)
	wantClass(t, "second transaction", perr, provider.Uncertain)
	if left, _ = fullRefusals(perr.Refused); !slices.Equal(left, []string{"e@x.org", "f@x.org"}) {
		t.Errorf("surely not taken: %v, want e and f", left)
	}
}
