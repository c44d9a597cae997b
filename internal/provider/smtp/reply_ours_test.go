package smtp

import (
	"fmt"
	"net/textproto"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/provider"
)

func judged(t *testing.T, at stage, line string) *provider.Error {
	t.Helper()
	code, text, _ := strings.Cut(line, " ")
	n := 0
	if _, err := fmt.Sscan(code, &n); err != nil {
		t.Fatal(err)
	}
	p, ok := replyOf(&textproto.Error{Code: n, Msg: text})
	if !ok {
		t.Fatalf("%q is no reply", line)
	}
	e, _ := judge(at, p)
	return e
}

// A reply about our quota makes the account wait for a while, at any stage of the session. It never ends the message and
// never counts against the recipient.
func TestRefusalsAboutOurQuotaHoldTheAccount(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		wait time.Duration
		line string
	}{
		{dayPause, "550 5.4.5 Daily user sending limit exceeded"},
		{dayPause, "550 5.4.5 Daily SMTP relay sending limit exceeded for user. For more information on SMTP relay sending limits contact your admin"},
		{dayPause, "550 5.7.1 Daily SMTP relay limit exceeded for customer"},
		{0, "450 4.2.1 Peak SMTP relay limit exceeded for customer. This is a temporary error"},
		{dayPause, "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients"},
		{finalPause, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message due to a permanent exception with message The message can't be submitted because the sender's submission quota was exceeded"},
		{dayPause, "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for sending email to external recipients"},
		{finalPause, "550 5.7.705 Service unavailable. Access denied, tenant has exceeded threshold"},
		{dayPause, "454 Throttling failure: Daily message quota exceeded"},
		{0, "454 Throttling failure: Maximum sending rate exceeded"},
		{0, "451 You've exceeded your messaging limits"},
		{dayPause, "451 Authentication failed: Maximum credits exceeded"},
		{hourPause, "550 You have exceeded the sending limit of 200 emails per hour"},
		{dayPause, "550 shop@example.com has exceeded its 24-hour sending limit. Messages to 250 recipients out of 250 allowed have been sent"},
		{hourPause, "550 Domain example.com has exceeded the max emails per hour (100/100 (100%)) allowed. Message discarded"},
		{hourPause, "550 Domain example.com has exceeded the max defers and failures per hour (5/5 (55%)) allowed. Message discarded"},
		{finalPause, "554 5.7.1 <ann@example.org>: Recipient address rejected: Policy rejection; Message quota exceeded"},
		{20 * time.Minute, "554 5.7.1 <shop@example.com>: Sender address rejected: Rate limit exceeded, try again in 20 minutes"},
		{0, "451 4.7.1 Ratelimit \"out_ratelimit\" exceeded"},
		{finalPause, "550 Sender rate overlimit - 65.2 / 1h"},
		{finalPause, "550 too many messages"},
		{time.Hour, "550 Too many emails sent from your account, retry after 3600 seconds"},
		{finalPause, "550 5.4.6 Unusual sending activity detected. Please try after sometime"},
		{finalPause, "550 Ip frequency limited"},
		{dayPause, "452 4.7.1 You have reached your monthly plan limit"},
		{dayPause, "550 5.7.1 Monthly free tier quota used up"},
		{0, "550 5.7.0 Too many emails per second. Please upgrade your plan"},
		{finalPause, "554 5.2.0 STOREDRV.Submission.Exception:OutboundSpamException; WASCL UserAction verdict is not None. Actual verdict is RefuseQuota"},
		{0, "432 4.3.2 Concurrent connections limit exceeded"},
		{finalPause, "554 5.7.0 Your message could not be sent. The limit on the number of allowed outgoing messages was exceeded. Try again later"},
	} {
		wait, line := c.wait, c.line
		for _, at := range []stage{atMail, atRcpt, atData, atDot} {
			e := judged(t, at, line)
			if e.Class != provider.Throttled || e.RetryAfter != wait {
				t.Errorf("%s at %s = %s for %s, want throttled for %s", line, at, e.Class, e.RetryAfter, wait)
			}
		}
	}
}

// A reply about our identity parks the sender, or the account if it is about the account. It never ends the message.
func TestRefusalsAboutOurIdentityParkIt(t *testing.T) {
	t.Parallel()
	for line, scope := range map[string]provider.Scope{
		"554 Message rejected: Email address is not verified. The following identities failed the check in region EU-WEST-1: shop@example.com": provider.ScopeAddress,
		"550 5.7.60 SMTP; Client does not have permissions to send as this sender":                                                             provider.ScopeAddress,
		"554 5.2.252 SendAsDenied; relay@example.com not allowed to send as shop@example.com":                                                  provider.ScopeAddress,
		"550 5.7.60 No permission": provider.ScopeAddress,
		"553 5.7.1 <shop@example.com>: Sender address rejected: not owned by user relay":                                                          provider.ScopeAddress,
		"550 The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved":                        provider.ScopeAddress,
		"550 5.7.1 The 'From' address you supplied is not a Sender Signature on your account":                                                     provider.ScopeAddress,
		"550 5.7.1 Unconfigured Sending Domain <example.com>":                                                                                     provider.ScopeSender,
		"550 5.7.1 Domain example.com is not allowed to send: the domain is unverified and requires DNS configuration":                            provider.ScopeSender,
		"550 5.7.26 This mail has been blocked because the sender is unauthenticated":                                                             provider.ScopeSender,
		"554 5.7.1 <ann@example.org>: Recipient address rejected: <relay@example.com> is not authorized to send messages from <shop@example.com>": provider.ScopeAddress,
		"553 Mail from must equal authorized user":                                                                                                provider.ScopeAddress,
		"553 From address not verified - see http://help.example.net/sendfrom.html":                                                               provider.ScopeAddress,
		"550 relaying mail to example.org is not allowed":                                                                                         provider.ScopeAccount,
		"550 not local sender over smtp":                                                                                                          provider.ScopeSender,
		"553 Relaying disallowed as shop@example.com":                                                                                             provider.ScopeAddress,
		"550 5.7.1 Client was not authenticated":                                                                                                  provider.ScopeAccount,
		"530 5.7.57 Client not authenticated to send mail":                                                                                        provider.ScopeAccount,
		"554 5.7.1 Unauthenticated senders not allowed":                                                                                           provider.ScopeAccount,
		"550 5.1.8 Access denied, bad outbound sender AS(42004)":                                                                                  provider.ScopeAccount,
		"550 message sending for this account is disabled":                                                                                        provider.ScopeAccount,
		"554 Message rejected: Sending paused for this account":                                                                                   provider.ScopeAccount,
		"550 5.7.1 Your account has been suspended":                                                                                               provider.ScopeAccount,
		"502 5.7.0 Your SMTP account is not yet activated":                                                                                        provider.ScopeAccount,
		"550 5.7.0 Mail relay denied":                                                                                                             provider.ScopeAccount,
		"550-5.7.1 Invalid credentials for relay [192.0.2.1]. The IP address you've registered doesn't match":                                     provider.ScopeAccount,
		"554 Access denied: User `arn:aws:iam::1:user/x' is not authorized to perform `ses:SendRawEmail'":                                         provider.ScopeAccount,
	} {
		line = strings.Replace(line, "550-", "550 ", 1)
		for _, at := range []stage{atMail, atRcpt, atData, atDot} {
			e := judged(t, at, line)
			if e.Class != provider.Misconfigured || e.Scope != scope {
				t.Errorf("%s at %s = %s %q, want misconfigured %q", line, at, e.Class, e.Scope, scope)
			}
		}
	}
}

// Texts that look like those above but are about one recipient or one message.
func TestRefusalsOfOneRecipientHoldNobodyElse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at   stage
		line string
		want provider.Class
	}{
		{atRcpt, "450 4.2.1 The user you are trying to contact is receiving mail too quickly", provider.Transient},
		{atRcpt, "552 5.2.2 The email account that you tried to reach is over quota", provider.Transient},
		{atRcpt, "451 4.5.1 The recipient <ann@example.org> has exceeded their message rate limit. Try again later", provider.Transient},
		{atRcpt, "550 5.2.1 The email account that you tried to reach is disabled", provider.BadRecipient},
		{atRcpt, "550 5.7.1 RESOLVER.RST.NotAuthorized; not authorized", provider.BadRecipient},
		{atRcpt, "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required", provider.BadRecipient},
		{atRcpt, "452 4.5.3 Error: too many recipients", provider.Transient},
		{atRcpt, "552 5.5.3 Too many recipients", provider.Transient},
		{atRcpt, "550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages", provider.Transient},
		{atRcpt, "550 5.1.1 recipient overquota", provider.Transient},
		{atDot, "550 Postfach ist voll", provider.Transient},
		{atMail, "552 5.2.2 over quota", provider.Misconfigured},
		{atDot, "421 4.7.0 Too many messages in this connection", provider.Transient},
		{atDot, "550 This message has exceeded the max number of messages per session. Open a new session and try again", provider.Transient},
		{atDot, "554 5.7.1 This message looks like spam", provider.Rejected},
		{atDot, "552 5.7.0 Our system detected an illegal attachment on your message", provider.Rejected},
	} {
		if e := judged(t, c.at, c.line); e.Class != c.want {
			t.Errorf("%s at %s = %s, want %s", c.line, c.at, e.Class, c.want)
		}
	}
}

func TestASandboxBlamesTheRecipientAndNotTheSender(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) {
		r.reply = on(".", "554 Message rejected: Email address is not verified. The following identities failed the check in region EU-WEST-1: ann@example.org")
	})
	_, perr := sendTo(t, r.client(nil), "ann@example.org")
	wantClass(t, "a recipient that the sandbox does not know", perr, provider.Rejected)
	if perr == nil || !perr.Elsewhere || !perr.Suspect || perr.Scope != provider.ScopeAccount {
		t.Errorf("error = %+v, want it to go elsewhere, and the account to blame when others meet the same", perr)
	}
}

func TestQuotaThatEndsAmongTheRecipientsCostsNobody(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) {
		r.reply = on("RCPT TO:<late", "550 5.4.5 Daily user sending limit exceeded", "RCPT TO:<bad", "550 5.1.1 User unknown")
	})
	c := r.client(nil)
	receipt, perr := sendTo(t, c, "ann@x.org", "bad@x.org", "late@x.org")
	wantClass(t, "one taken", perr, provider.Accepted)
	got := map[string]provider.Class{}
	for _, ref := range receipt.Refused {
		got[ref.Email] = ref.Class
	}
	if diff := cmp.Diff(map[string]provider.Class{"bad@x.org": provider.BadRecipient, "late@x.org": provider.Transient}, got); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	_, perr = sendTo(t, c, "late@x.org")
	wantClass(t, "the late one alone", perr, provider.Throttled)
	_, perr = sendTo(t, c, "bad@x.org", "late@x.org")
	wantClass(t, "none taken", perr, provider.Throttled)
}

func TestALimitOfTheConnectionEndsIt(t *testing.T) {
	t.Parallel()
	r := startRelay(t, func(r *relay) {
		r.reply = func(conn int, line string) (string, bool) {
			return "450 4.7.1 Too many messages per session", conn == 1 && strings.HasPrefix(line, "MAIL")
		}
	})
	c := r.client(nil)
	_, perr := sendTo(t, c, "ann@x.org")
	wantClass(t, "over the limit", perr, provider.Transient)
	_, perr = sendTo(t, c, "ann@x.org")
	wantClass(t, "on another connection", perr, provider.Accepted)
}

// The rows of replies.tsv that a relay said.
func TestKnownRepliesOfARelay(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../smtpcode/testdata/replies.tsv")
	if err != nil {
		t.Fatal(err)
	}
	stages := map[string]stage{"relay at MAIL": atMail, "relay at RCPT": atRcpt, "relay at the final dot": atDot}
	tried := 0
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		at, ok := stages[f[0]]
		if !ok {
			continue
		}
		tried++
		e := judged(t, at, f[1])
		if got := strings.TrimSpace(string(e.Class) + " " + string(e.Scope)); got != f[4] {
			t.Errorf("%s: %s = %s, want %s", f[0], f[1], got, f[4])
		}
		if r := refusal("ann@example.org", provider.BadRecipient, e); at == atRcpt && e.Class == provider.BadRecipient && string(r.Reason.Class()) != f[2] {
			t.Errorf("%s: %s condemns the address as %s, want %s", f[0], f[1], r.Reason, f[2])
		}
	}
	if tried < 10 {
		t.Errorf("%d replies, want the rows of relays", tried)
	}
}
