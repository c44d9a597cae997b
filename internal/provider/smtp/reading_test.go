package smtp

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

// read returns the events of a report as lines, and the note about the parts that are not kept.
func read(t *testing.T, c *Client, raw string) []string {
	t.Helper()
	id := mail.IDAt(sentAt)
	b, err := c.Receive(t.Context(), &provider.Hook{Body: []byte(raw), Now: receivedAt, RcptTo: c.verp.address(id)})
	if err != nil {
		t.Fatal(err)
	}
	if b.Note != "" {
		return []string{b.Note}
	}
	var lines []string
	for _, e := range b.Payloads[0].Events {
		if !e.ByMessage {
			t.Errorf("%s: the event is not known by its message", line(e))
		}
		lines = append(lines, line(e))
	}
	return lines
}

// TestEachRecipientGetsTheReplyOfItsOwnBlock checks only the words of replies; other tests check their meaning.
func TestEachRecipientGetsTheReplyOfItsOwnBlock(t *testing.T) {
	t.Parallel()
	c := verpClient(t)
	const head = "From: MAILER-DAEMON@x.test\nDate: Tue, 24 Nov 2026 10:00:00 +0000\nSubject: Mail delivery failed\n"
	for name, tc := range map[string]struct {
		raw  string
		want []string // recipient: words
	}{
		"a reply of several lines is one": {
			"\n  ann@example.org\n    550-We take no mail\n    550-from servers\n    550 without a name\n",
			[]string{"ann@example.org: 550-We take no mail from servers without a name"},
		},
		"with an enhanced code on each line": {
			"\n<ann@example.org>:\n550-5.1.1 The account\n550-5.1.1 that you tried\n550 5.1.1 is gone\nGiving up on 192.0.2.1.\n",
			[]string{"ann@example.org: 550-5.1.1 The account that you tried is gone"},
		},
		"a folded one": {
			"\n<ann@example.org>: host mx.example.org[192.0.2.1] said: 550 5.1.1\n    <ann@example.org>: User unknown in\n    virtual table (in reply to RCPT TO command)\n\nbye\n",
			[]string{"ann@example.org: host mx.example.org[192.0.2.1] said: 550 5.1.1 <ann@example.org>: User unknown in virtual table (in reply to RCPT TO command)"},
		},
		"a folded one ends where the next begins": {
			"\nann@example.org:\n    550 5.1.1 User\n     unknown\n    552 5.2.2 for another\n",
			[]string{"ann@example.org: 550 5.1.1 User unknown"},
		},
		"the children of an alias": {
			"X-Failed-Recipients: x@child.test\n\n  x@child.test\n    (generated from ann@example.org)\n    SMTP error from remote mail server after RCPT TO:<x@child.test>:\n    host mx [192.0.2.1]: 550 no such user\n",
			[]string{"ann@example.org: host mx [192.0.2.1]: 550 no such user"},
		},
		"a list, then a transcript": {
			"\n   ----- The following addresses had permanent fatal errors -----\n<bob@example.org>\n<ann@example.org>\n\n   ----- Transcript -----\n>>> RCPT To:<ann@example.org>\n<<< 550 gone\n550 5.1.1 <ann@example.org>... User unknown\n>>> RCPT To:<bob@example.org>\n<<< 552 full\n",
			[]string{"bob@example.org: 552 full", "ann@example.org: 550 gone"},
		},
		"one reply below several": {
			"\n  ann@example.org\n  bob@example.org\n    550 gone\n",
			[]string{"ann@example.org: 550 gone", "bob@example.org: 550 gone"},
		},
		"one reply for all, elsewhere": {
			"X-Failed-Recipients: ann@example.org, bob@example.org\n\nThe host said:\n550 gone\n",
			[]string{"ann@example.org: 550 gone", "bob@example.org: 550 gone"},
		},
		"what was returned is not read": {
			"\n<ann@example.org>:\nno room\n\n--- Below this line is a copy of the message.\n\n<eve@example.org>: 550 5.1.1 gone\n",
			[]string{"ann@example.org: no room"},
		},
		"the header of what was returned is not read": {
			"\n<ann@example.org>:\nno room\n\nReceived: from x\n<eve@example.org>: 550 5.1.1 gone\n",
			[]string{"ann@example.org: no room"},
		},
	} {
		var got []string
		for _, e := range c.Parse([]byte(head + tc.raw)) {
			if e.Bounce == nil {
				t.Fatalf("%s: %s", name, line(e))
			}
			got = append(got, e.Recipient+": "+e.Bounce.Text)
		}
		slices.Sort(got)
		slices.Sort(tc.want)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestAnAutomaticReplyLeavesNoEvent also checks that a reply that an earlier version kept changes nothing when it is read
// again.
func TestAnAutomaticReplyLeavesNoEvent(t *testing.T) {
	t.Parallel()
	c := verpClient(t)
	const from = "From: Ann <ann@example.org>\nDate: Tue, 24 Nov 2026 10:00:00 +0000\n"
	for _, head := range []string{
		from + "Subject: Automatic reply: Undelivered mail\n", from + "Subject: Undelivered mail\nAuto-Submitted: auto-replied\n",
		from + "Subject: Delivery failed\nX-Autoreply: yes\n", from + "Subject: Delivery failed\nPrecedence: auto_reply\n",
		"From: postmaster@example.org\nDate: Tue, 24 Nov 2026 10:00:00 +0000\nSubject: Mail delivery failed\nAuto-Submitted: auto-replied\n",
	} {
		raw := head + "\nI am away.\n"
		if diff := cmp.Diff([]string{"automatic reply"}, read(t, c, raw)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", head, diff)
		}
		if e := c.Parse([]byte(raw))[0]; e.Type != mail.EventUnmapped || e.Name != nameReply {
			t.Errorf("%s: read again as %s", head, line(e))
		}
	}
}

// TestBouncesFromOtherThanTheNullAddress: such mail is taken if its content says that it is a bounce.
func TestBouncesFromOtherThanTheNullAddress(t *testing.T) {
	t.Parallel()
	c, id := verpClient(t), mail.IDAt(sentAt)
	const date = "Date: Tue, 24 Nov 2026 10:00:00 +0000\n"
	for raw, want := range map[string]int{
		"From: MAILER-DAEMON@x.test\n" + date + "\n<ann@example.org>:\n550 gone\n":                                                           1,
		"From: x@x.test\nX-Failed-Recipients: ann@example.org\n" + date + "\n550 gone\n":                                                     1,
		"From: staff@hotmail.com\nX-HmXmrOriginalRecipient: ann@example.org\n" + date + "\n":                                                 1,
		"From: x@x.test\n" + date + "\n--b\nContent-Type: message/delivery-status\n\nFinal-Recipient: rfc822;ann@example.org\nStatus: 5.0.0": 1,
		"From: postmaster@x.test\nSubject: Undeliverable mail\n" + date + "\n550 gone\n":                                                     0,
	} {
		b, err := c.Receive(t.Context(), &provider.Hook{Body: []byte(raw), Now: receivedAt, RcptTo: c.verp.address(id), MailFrom: "x@x.test"})
		if err != nil || len(b.Payloads) != want {
			t.Errorf("%q: %d payloads, %v; want %d", raw, len(b.Payloads), err, want)
		}
	}
}

// TestHostileTextCostsNoMoreThanItsLength has texts for which a careless reader needs quadratic time.
func TestHostileTextCostsNoMoreThanItsLength(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts those of all goroutines
	c := verpClient(t)
	const head = "From: MAILER-DAEMON@x.test\nDate: Tue, 24 Nov 2026 10:00:00 +0000\n"
	for name, part := range map[string]string{
		"recipients":        "<a@b.test>\n",
		"generated":         "a@b.test\n (generated from a@b.test)\n",
		"codes":             "a@b.test: 550-x\n550-x\n",
		"markup":            "<style><p <",
		"status in the way": "--b\nContent-Type: message/delivery-status\n\n",
		"fields":            "Final-Recipient: rfc822; a@b.test\nAction: failed\n",
		"blank lines":       "\n\n\n--\n\n",
		"nobody's words":    "550-x\n",
	} {
		cost := func(n int) float64 {
			failed := "X-Failed-Recipients: " + strings.Repeat("b@c.test, ", n) + "\n"
			raw := []byte(head + failed + "\n" + strings.Repeat(part, n))
			return testing.AllocsPerRun(1, func() { c.Parse(raw) })
		}
		few, many := cost(100), cost(1000)
		if many > 40*few+1000 {
			t.Errorf("%s: allocations = %.0f for 100 and %.0f for 1000", name, few, many)
		}
	}
}
