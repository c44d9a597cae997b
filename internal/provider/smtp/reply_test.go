package smtp

import (
	"errors"
	"fmt"
	"net/textproto"
	"strings"
	"testing"

	gosmtp "github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
)

func TestRepliesByStage(t *testing.T) {
	t.Parallel()
	type want struct {
		class     provider.Class
		scope     provider.Scope
		elsewhere bool
	}
	var (
		transient = want{class: provider.Transient}
		throttled = want{class: provider.Throttled}
		rejected  = want{class: provider.Rejected}
		elsewhere = want{class: provider.Rejected, elsewhere: true}
		bad       = want{class: provider.BadRecipient}
		account   = want{class: provider.Misconfigured}
		sender    = want{class: provider.Misconfigured, scope: provider.ScopeSender}
		address   = want{class: provider.Misconfigured, scope: provider.ScopeAddress}
		uncertain = want{class: provider.Uncertain}
	)
	for _, c := range []struct {
		at    stage
		reply string
		want  want
	}{
		{atConnect, "421 4.3.2 All server ports are busy", transient},
		{atConnect, "421 4.7.0 mx Error: too many connections from 10.0.0.1", throttled},
		{atConnect, "454 4.7.0 TLS not available due to local problem", throttled},
		{atConnect, "450 4.3.2 Service currently unavailable", transient},
		{atConnect, "554 5.7.1 blocked", account},
		{atConnect, "521 5.3.2 host does not accept mail", account},
		{atConnect, "502 5.5.2 Error: command not recognized", account},
		{atAuth, "535 5.7.8 authentication failed", account},
		{atAuth, "534 5.7.9 mechanism too weak", account},
		{atAuth, "454 4.7.0 Temporary authentication failure", transient},
		{atAuth, "450 4.7.1 Error: too many AUTH commands", throttled},
		{atMail, "421 4.7.0 Error: too many errors", throttled},
		{atMail, "450 4.7.1 Error: too much mail from 10.0.0.1", throttled},
		{atMail, "451 4.3.0 queue file write error", transient},
		{atMail, "452 4.3.1 Insufficient system storage", transient},
		{atMail, "530 5.7.0 Must issue a STARTTLS command first", account},
		{atMail, "550 5.7.1 not owned by user", address},
		{atMail, "553 5.7.1 <a@b>: Sender address rejected: not owned by user x", address},
		{atMail, "553 5.1.8 sender domain not found", sender},
		{atMail, "501 5.1.7 Bad sender address syntax", sender},
		{atMail, "554 5.7.1 <unknown[10.0.0.1]>: Client host rejected: Access denied", account},
		{atMail, "552 5.3.4 Message size exceeds fixed limit", elsewhere},
		{atMail, "552 too big", elsewhere},
		{atMail, "555 5.5.4 Unsupported option: SIZE", account},
		{atMail, "503 5.5.1 Error: nested MAIL command", account},
		{atRcpt, "450 4.2.0 <a@b>: Recipient address rejected: Greylisted", transient},
		{atRcpt, "450 4.7.1 <a@b>: Recipient address rejected: greylisted", transient},
		{atRcpt, "450 4.7.1 Error: too many recipients from 10.0.0.1", throttled},
		{atRcpt, "452 4.5.3 Error: too many recipients", transient},
		{atRcpt, "452 4.2.2 mailbox full", transient},
		{atRcpt, "550 5.1.1 <a@b>: Recipient address rejected: User unknown in local recipient table", bad},
		{atRcpt, "550 5.7.1 no such user here", bad},
		{atRcpt, "550 mailbox unavailable", bad},
		{atRcpt, "551 User not local", bad},
		{atRcpt, "553 5.1.3 bad address", bad},
		{atRcpt, "501 5.1.3 Bad recipient address syntax", bad},
		{atRcpt, "504 5.5.2 <a>: Recipient address rejected: need fully-qualified address", bad},
		{atRcpt, "521 5.3.2 no mail here", bad},
		{atRcpt, "556 5.1.10 null MX", bad},
		{atRcpt, "552 5.2.2 mailbox full", transient},
		{atRcpt, "554 5.7.1 over quota", transient},
		{atRcpt, "552 5.2.3 too large for this mailbox", bad},
		{atRcpt, "554 5.7.1 <a@b>: Relay access denied", account},
		{atRcpt, "554 5.7.1 <x[1.2.3.4]>: Client host rejected: Access denied", account},
		{atRcpt, "554 5.7.1 Service unavailable; Client host [1.2.3.4] blocked using zen", account},
		{atRcpt, "553 5.7.1 <a@b>: Sender address rejected: not logged in", sender},
		{atRcpt, "550 5.7.26 unauthenticated", sender},
		{atRcpt, "550 5.7.515 Access denied", sender},
		{atRcpt, "550 5.7.1 policy for this recipient", bad},
		{atRcpt, "503 5.5.1 need MAIL command", account},
		{atRcpt, "555 5.5.4 Unsupported option: ORCPT", account},
		{atRcpt, "530 5.7.0 Authentication required", account},
		{atRcpt, "553 5.6.7 address needs SMTPUTF8", elsewhere},
		{atData, "451 4.3.0 try later", transient},
		{atData, "554 5.7.1 data command rejected", rejected},
		{atData, "503 5.5.1 RCPT first", account},
		{atDot, "451 4.3.0 Error: queue file write error", transient},
		{atDot, "452 4.3.1 Insufficient system storage", transient},
		{atDot, "451 4.7.1 greylisted by milter", transient},
		{atDot, "421 4.7.0 slow down", throttled},
		{atDot, "552 5.3.4 Message size exceeds limit", elsewhere},
		{atDot, "554 message too large", elsewhere},
		{atDot, "552 5.2.2 over quota", transient},
		{atDot, "554 5.7.1 spam", rejected},
		{atDot, "550 5.7.1 content rejected", rejected},
		{atDot, "554 5.6.0 bad MIME", rejected},
		{atDot, "554 5.4.6 too many hops", rejected},
		{atDot, "500 5.5.2 bare LF", rejected},
		{atDot, "550 5.7.26 DMARC", sender},
		{atDot, "550 5.1.8 sender unknown", sender},
		{atDot, "550 5.1.1 user unknown", bad},
		{atDot, "354 what", uncertain},
		{atRcpt, "354 what", transient},
	} {
		code, text, _ := strings.Cut(c.reply, " ")
		n := 0
		if _, err := fmt.Sscan(code, &n); err != nil {
			t.Fatal(err)
		}
		p, ok := replyOf(&textproto.Error{Code: n, Msg: text})
		if !ok {
			t.Fatalf("%q is no reply", c.reply)
		}
		e, _ := judge(c.at, p)
		if got := (want{e.Class, e.Scope, e.Elsewhere}); got != c.want {
			t.Errorf("%s at %s = %+v, want %+v", c.reply, c.at, got, c.want)
		}
	}
}

// Every reply code at every stage has a class, and only 4xx and 5xx decide anything.
func TestEveryReplyHasAClass(t *testing.T) {
	t.Parallel()
	for _, at := range []stage{atConnect, atAuth, atMail, atRcpt, atData, atDot} {
		for code := 400; code < 600; code++ {
			e, _ := judge(at, reply{code: code})
			switch {
			case e.Class == "" || e.Class == provider.Accepted || e.Class == provider.Uncertain:
				t.Errorf("%d at %s = %q", code, at, e.Class)
			case code < 500 && e.Class != provider.Transient:
				t.Errorf("%d at %s = %s, want transient: a bare 4xx passes", code, at, e.Class)
			case code == 450 && e.Code != "450":
				t.Errorf("code without enhanced status = %q, want the reply code", e.Code)
			}
		}
	}
}

func TestReplyOfReadsEnhancedCodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want reply
	}{
		{&gosmtp.SMTPError{Code: 550, EnhancedCode: gosmtp.EnhancedCode{5, 1, 1}, Message: "no"}, reply{550, "5.1.1", "no"}},
		{&gosmtp.SMTPError{Code: 550, Message: "no"}, reply{550, "", "no"}},
		{fmt.Errorf("x: %w", &textproto.Error{Code: 450, Msg: "4.2.0 later"}), reply{450, "4.2.0", "later"}},
		{&textproto.Error{Code: 450, Msg: "9.9.9 later"}, reply{450, "", "9.9.9 later"}},
		{&textproto.Error{Code: 450}, reply{450, "", ""}},
	} {
		got, ok := replyOf(c.err)
		if !ok || got != c.want {
			t.Errorf("replyOf(%v) = %+v, %t, want %+v", c.err, got, ok, c.want)
		}
	}
	if _, ok := replyOf(errors.New("EOF")); ok {
		t.Error("replyOf took a lost connection for a reply")
	}
}

func TestPartlyRefusedRecipients(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) {
		r.reply = on(
			"RCPT TO:<bad@", "550 5.1.1 <bad@example.org>: User unknown",
			"RCPT TO:<grey@", "450 4.2.0 greylisted",
			"RCPT TO:<far@", "554 5.7.1 Relay access denied",
			"RCPT TO:<full@", "552 5.2.2 mailbox full",
		)
	})
	receipt, perr := sendTo(t, r.client(nil), "bad@example.org", "ann@example.org", "grey@example.org", "far@example.org", "full@example.org")
	wantClass(t, "send", perr, provider.Accepted)
	want := []provider.Refusal{
		{Email: "bad@example.org", Class: provider.BadRecipient, Code: "5.1.1", Detail: "<b***@example.org>: User unknown", Reason: mail.InvalidAddress, Rule: "reply/mailbox_unknown"},
		{Email: "grey@example.org", Class: provider.Transient, Code: "4.2.0", Detail: "greylisted"},
		{Email: "far@example.org", Class: provider.Transient, Code: "5.7.1", Detail: "Relay access denied"},
		{Email: "full@example.org", Class: provider.Transient, Code: "5.2.2", Detail: "mailbox full"},
	}
	if diff := cmp.Diff(want, receipt.Refused); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	if _, bodies := r.count(); bodies != 1 {
		t.Errorf("messages = %d, want 1", bodies)
	}
}

func TestTooManyRecipientsLeavesTheRestForLater(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) { r.reply = on("RCPT TO:<c@", "452 4.5.3 Error: too many recipients") })
	receipt, perr := sendTo(t, r.client(nil), "a@x.org", "b@x.org", "c@x.org", "d@x.org", "e@x.org")
	wantClass(t, "send", perr, provider.Accepted)
	var later []string
	for _, ref := range receipt.Refused {
		if ref.Class != provider.Transient || ref.Code != "4.5.3" {
			t.Errorf("refusal %+v, want transient 4.5.3", ref)
		}
		later = append(later, ref.Email)
	}
	if diff := cmp.Diff([]string{"c@x.org", "d@x.org", "e@x.org"}, later); diff != "" {
		t.Errorf("left for later (-want +got):\n%s", diff)
	}
	if got := len(r.said("RCPT")); got != 3 {
		t.Errorf("RCPT was said %d times, want 3: after 452 4.5.3 the rest is not asked for", got)
	}
}

func TestAllRecipientsRefused(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) {
		r.reply = on("RCPT TO:<bad", "550 5.1.1 User unknown", "RCPT TO:<grey", "450 4.2.0 greylisted", "RCPT TO:<far", "554 5.7.1 Relay access denied")
	})
	c := r.client(nil)
	_, perr := sendTo(t, c, "bad1@x.org", "bad2@x.org")
	wantClass(t, "all bad", perr, provider.BadRecipient)
	if perr == nil || len(perr.Refused) != 2 || perr.Refused[0].Email != "bad1@x.org" || perr.Refused[1].Email != "bad2@x.org" || perr.Code != "5.1.1" {
		t.Errorf("all bad: %+v, want both named with 5.1.1", perr)
	}
	_, perr = sendTo(t, c, "bad1@x.org", "grey@x.org")
	wantClass(t, "one may pass", perr, provider.Transient)
	_, perr = sendTo(t, c, "bad1@x.org", "far@x.org")
	wantClass(t, "one is about us", perr, provider.Misconfigured)
	if _, bodies := r.count(); bodies != 0 || len(r.said("DATA")) != 0 {
		t.Error("DATA was sent for nobody")
	}
}

// Postfix hangs up after 20 errors: with more bad recipients than that, a message would never get past them unless the
// first ones are settled.
func TestManyBadRecipientsMakeProgress(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) { r.reply = on("RCPT TO:<bad", "550 5.1.1 User unknown") })
	c := r.client(nil)
	var to []string
	for i := range 40 {
		to = append(to, fmt.Sprintf("bad%d@x.org", i))
	}
	to = append(to, "ann@x.org")
	for round := range 5 {
		receipt, perr := sendTo(t, c, to...)
		refused := receipt.Refused
		if perr != nil {
			wantClass(t, "round", perr, provider.BadRecipient)
			refused = perr.Refused
		}
		settled := map[string]bool{}
		for _, ref := range refused {
			settled[ref.Email] = ref.Class == provider.BadRecipient
		}
		if perr == nil {
			if settled["ann@x.org"] {
				t.Error("the good recipient was refused")
			}
			return
		}
		var rest []string
		for _, a := range to {
			if !settled[a] {
				rest = append(rest, a)
			}
		}
		if len(rest) == len(to) {
			t.Fatalf("round %d settled nobody", round)
		}
		to = rest
	}
	t.Error("the good recipient was never reached")
}

func Test421AmongTheRecipientsSettlesTheBadOnes(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) {
		r.reply = on("RCPT TO:<bad", "550 5.1.1 User unknown", "RCPT TO:<ann", "421 4.7.0 Error: too many errors")
	})
	for _, to := range [][]string{{"bad@x.org", "ann@x.org"}, {"good@x.org", "bad@x.org", "ann@x.org"}} {
		_, perr := sendTo(t, r.client(nil), to...)
		wantClass(t, "send", perr, provider.BadRecipient)
		if perr == nil || len(perr.Refused) != 1 || perr.Refused[0].Email != "bad@x.org" || perr.Status != 550 {
			t.Errorf("refused = %+v, want the bad one only, with its status", perr)
		}
	}
}

func TestRefusalAfterTheBodyNamesARecipientOnlyWhenThereIsOne(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) { r.reply = on(".", "550 5.1.1 User unknown", "RCPT TO:<bad", "550 5.1.1 User unknown") })
	c := r.client(nil)
	_, perr := sendTo(t, c, "bad@x.org", "ann@x.org")
	wantClass(t, "one accepted recipient", perr, provider.BadRecipient)
	if perr == nil || len(perr.Refused) != 2 {
		t.Errorf("refused = %+v, want both", perr)
	}
	_, perr = sendTo(t, c, "ann@x.org", "bob@x.org")
	wantClass(t, "two accepted recipients", perr, provider.Rejected)
}

func TestRelayThatNeverStopsTalkingIsCutOff(t *testing.T) {
	t.Parallel()
	flood := strings.Repeat("250-"+strings.Repeat("x", 500)+"\r\n", 4000) + "250 end"
	r := startRelay(t, func(r *relay) { r.reply = on("RCPT", flood) })
	_, perr := sendTo(t, r.client(nil), "ann@example.org")
	wantClass(t, "2 MB of reply", perr, provider.Transient)
}

// FuzzReply checks that the readers of replies never panic and that their results are bounded.
func FuzzReply(f *testing.F) {
	f.Add(250, "2.0.0 Ok: queued as 4QX")
	f.Add(550, "5.1.1 <a@b>: User unknown")
	f.Add(-1, "\x00")
	f.Add(628, "0")
	f.Fuzz(func(t *testing.T, code int, text string) {
		if id := queueID(text); len(id) > 128 || strings.ContainsAny(id, " <>\r\n\x00") {
			t.Errorf("queueID(%q) = %q", text, id)
		}
		p, ok := replyOf(&textproto.Error{Code: code, Msg: text})
		if !ok {
			t.Fatal("no reply")
		}
		refusal := 400 <= code && code <= 599
		for _, at := range []stage{atConnect, atAuth, atMail, atRcpt, atData, atDot} {
			if e, _ := judge(at, p); e.Class == "" || e.Class == provider.Accepted || (e.Class == provider.Uncertain && (at != atDot || refusal)) {
				t.Errorf("judge(%s, %d %q) = %q", at, code, text, e.Class)
			}
		}
	})
}
