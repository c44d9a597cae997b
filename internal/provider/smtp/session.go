package smtp

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/smtpcode"
)

// errorBudget is how many error replies a connection may collect between two accepted messages. Postfix slows down at 10
// and hangs up at 20 (postconf(5) smtpd_soft_error_limit, smtpd_hard_error_limit).
const errorBudget = 15

// session is one open connection. One goroutine at a time uses it.
type session struct {
	client *gosmtp.Client
	wire   *wire

	reused    bool // came out of the pool
	dirty     bool // needs RSET before the next transaction
	broken    bool // must not be used again
	messages  int  // bodies given to the server
	errors    int  // error replies since the last acceptance
	idleTimer *time.Timer
}

// transact runs one transaction. stale says that the connection had died before its first reply to this transaction. Nothing was
// sent then, and a fresh connection may be tried. The end of the context closes the connection.
func (s *session) transact(ctx context.Context, j *job) (receipt provider.Receipt, perr *provider.Error, stale bool) {
	stop := context.AfterFunc(ctx, func() { _ = s.wire.Close() })
	defer func() {
		if !stop() {
			s.broken = true
		}
	}()
	if perr := s.fits(j); perr != nil {
		return receipt, perr, false
	}
	if err := s.begin(j); err != nil {
		perr = s.failed(ctx, atMail, err)
		return receipt, perr, s.reused && s.broken && ctx.Err() == nil
	}
	refused, perr := s.recipients(ctx, j)
	if perr != nil {
		return receipt, perr, false
	}
	receipt, perr = s.data(ctx, j, len(j.rcpts)-len(refused))
	receipt.Refused = append(append(receipt.Refused, j.refused...), refused...)
	if perr != nil && perr.Class == provider.BadRecipient {
		perr.Refused = s.blame(j, refused, perr)
	}
	if perr != nil && perr.Class == provider.Uncertain {
		perr.Refused = receipt.Refused
	}
	return receipt, perr, false
}

// fits compares the job with what the server's EHLO offers: SIZE (RFC 1870) and SMTPUTF8. If it does not fit, another relay may
// offer more.
func (s *session) fits(j *job) *provider.Error {
	if limit, ok := s.client.MaxMessageSize(); ok && limit > 0 && len(j.msg) > limit {
		return &provider.Error{
			Class: provider.Rejected, Elsewhere: true, Code: "5.3.4",
			Detail: fmt.Sprintf("message of %d bytes is over the relay's limit of %d", len(j.msg), limit),
		}
	}
	if ok, _ := s.client.Extension("SMTPUTF8"); j.utf8 && !ok {
		return &provider.Error{
			Class: provider.Rejected, Elsewhere: true, Code: "5.6.7",
			Detail: "an address is not ASCII and the relay does not offer SMTPUTF8",
		}
	}
	return nil
}

// begin sends MAIL FROM, after RSET if an earlier transaction was left open. ENVID carries our id into bounces (RFC 3461) if the
// server offers it.
func (s *session) begin(j *job) error {
	if s.dirty {
		if err := s.client.Reset(); err != nil {
			return err
		}
	}
	s.dirty = true
	return s.client.Mail(j.from, &gosmtp.MailOptions{
		Size: int64(len(j.msg)), UTF8: j.utf8, Return: gosmtp.DSNReturnHeaders, EnvelopeID: j.id,
	})
}

// recipients sends RCPT TO for each recipient and returns those that the server refused. An error means that the transaction
// cannot go on.
func (s *session) recipients(ctx context.Context, j *job) ([]provider.Refusal, *provider.Error) {
	var t tally
	for i, rcpt := range j.rcpts {
		if t.full || s.errors >= errorBudget {
			t.postpone(j.rcpts[i:], &provider.Error{Code: "4.5.3", Detail: "left for another transaction"})
			break
		}
		err := s.client.Rcpt(rcpt, rcptOptions(j, rcpt))
		if err == nil {
			t.accepted++
			continue
		}
		perr := s.failed(ctx, atRcpt, err)
		if s.broken {
			return nil, t.lost(j, perr)
		}
		t.refuse(rcpt, perr)
	}
	if t.accepted == 0 {
		return nil, t.verdict(j)
	}
	return t.refused, nil
}

func rcptOptions(j *job, rcpt string) *gosmtp.RcptOptions {
	o := &gosmtp.RcptOptions{Notify: j.notify}
	if isASCII(rcpt) {
		o.OriginalRecipientType, o.OriginalRecipient = gosmtp.DSNAddressTypeRFC822, rcpt
	}
	return o
}

// data sends the body and reads the verdict.
func (s *session) data(ctx context.Context, j *job, accepted int) (provider.Receipt, *provider.Error) {
	w, err := s.client.Data()
	if err != nil {
		return provider.Receipt{}, s.failed(ctx, atData, err)
	}
	s.messages++
	before := s.wire.written.Load()
	resp, err := writeBody(w, j.msg)
	if err == nil {
		return s.accepted(resp.StatusText), nil
	}
	if p, ok := replyOf(err); ok {
		if p.code/100 == 2 { // some servers say 251 or 252 here
			return s.accepted(p.text), nil
		}
		perr := s.failed(ctx, atDot, err)
		if perr.Scope == provider.ScopeAddress && j.sandboxed(perr.Detail) {
			perr.Class, perr.Scope, perr.Elsewhere, perr.Suspect = provider.Rejected, provider.ScopeAccount, true, true
		}
		if perr.Class == provider.BadRecipient && accepted > 1 {
			perr.Class = provider.Rejected // it is about one of them and does not say which
		}
		return provider.Receipt{}, perr
	}
	perr := s.lostConnection(ctx, atDot, err)
	if s.wire.written.Load() > before {
		perr.Class = provider.Uncertain
	}
	return provider.Receipt{}, perr
}

// sandboxed reports whether a relay that verifies addresses (SES) says that it doesn't know a recipient. Another account may be
// able to send to them, and this account goes on for the others. If all mail gets this answer, the account is at fault; the
// adapter of SES does the same.
func (j *job) sandboxed(text string) bool {
	text = strings.ToLower(text)
	return strings.Contains(text, "not verified") && !strings.Contains(text, strings.ToLower(j.from)) &&
		slices.ContainsFunc(j.rcpts, func(rcpt string) bool { return strings.Contains(text, strings.ToLower(rcpt)) })
}

// writeBody writes the message and the final dot. go-smtp's writer doubles leading dots; the message has CRLF only.
func writeBody(w *gosmtp.DataCommand, msg []byte) (*gosmtp.DataResponse, error) {
	if _, err := w.Write(msg); err != nil {
		return nil, err
	}
	return w.CloseWithResponse()
}

func (s *session) accepted(text string) provider.Receipt {
	s.errors, s.dirty = 0, false
	return provider.Receipt{ProviderMessageID: queueID(text), Detail: text}
}

// blame names the one accepted recipient that the server refused after the body, besides those refused before.
func (s *session) blame(j *job, refused []provider.Refusal, perr *provider.Error) []provider.Refusal {
	out := append([]provider.Refusal(nil), j.refused...)
	was := map[string]bool{}
	for _, r := range refused {
		was[r.Email] = true
		if r.Class == provider.BadRecipient {
			out = append(out, r)
		}
	}
	for _, rcpt := range j.rcpts {
		if !was[rcpt] {
			out = append(out, refusal(rcpt, provider.BadRecipient, perr))
		}
	}
	return out
}

// failed turns an error into an outcome and decides whether the connection can still be used. It can after an error reply. It
// cannot after 421 (RFC 5321 section 3.8), a lost connection, a timeout or a line that is not SMTP.
func (s *session) failed(ctx context.Context, at stage, err error) *provider.Error {
	p, ok := replyOf(err)
	if !ok {
		return s.lostConnection(ctx, at, err)
	}
	s.errors++
	if p.code == 421 || p.code < 400 {
		s.broken = true
	}
	e, rule := judge(at, p)
	if rule == smtpcode.SessionLimit {
		s.broken = true
	}
	e.Err = err
	return e
}

func (s *session) lostConnection(ctx context.Context, at stage, err error) *provider.Error {
	s.broken = true
	return unreachable(ctx, at.String(), err)
}

// quit sends QUIT and closes the connection.
func (s *session) quit() {
	s.client.CommandTimeout = quitTimeout
	if s.broken || s.client.Quit() != nil {
		_ = s.wire.Close()
	}
}

// tally counts the results for the recipients of one transaction.
type tally struct {
	accepted int
	refused  []provider.Refusal
	account  *provider.Error // the first refusal that is about us, not about the recipient
	soft     *provider.Error // the first that is temporary
	hard     *provider.Error // the first that is final for a recipient
	full     bool            // the server takes no more recipients
}

// refuse records the refusal of a recipient, by its class.
func (t *tally) refuse(rcpt string, e *provider.Error) {
	class := e.Class
	if t.accepted > 0 && takesNoMore(e) {
		t.postpone([]string{rcpt}, e)
		t.full = true
		return
	}
	switch class {
	case provider.BadRecipient:
		if t.hard == nil {
			t.hard = e
		}
	case provider.Misconfigured, provider.Throttled, provider.Rejected:
		// For this recipient it means: not in this transaction. Alone in the next one, the same reply decides it.
		class = provider.Transient
		if t.account == nil {
			t.account = e
		}
	case provider.Transient, provider.Accepted, provider.Uncertain:
		class = provider.Transient
		if t.soft == nil {
			t.soft = e
		}
	}
	t.refused = append(t.refused, refusal(rcpt, class, e))
}

func refusal(rcpt string, class provider.Class, e *provider.Error) provider.Refusal {
	r := provider.Refusal{Email: rcpt, Class: class, Code: e.Code, Detail: e.Detail}
	if class == provider.BadRecipient {
		v := smtpcode.Classify(strconv.Itoa(e.Status), e.Code, e.Detail)
		r.Reason, r.Rule = v.Reason, v.Rule
	}
	return r
}

// takesNoMore reports whether a server that accepted recipients before now says that this transaction is full: 452, bare or as
// 4.5.3 (RFC 5321 section 4.5.3.1.10), or the words of other servers for it. A used-up rate limit is not that.
func takesNoMore(e *provider.Error) bool {
	switch {
	case strings.HasSuffix(e.Code, ".5.3"):
		return true
	case e.Class == provider.Throttled:
		return false
	}
	return e.Status == 452 && e.Code == strconv.Itoa(e.Status) || strings.Contains(strings.ToLower(e.Detail), "too many recipients")
}

// postpone leaves recipients for another transaction. That one is another call of Send, with its own slot of the account's
// limits, its own intent and its own outcome. The engine makes it at once, and the pool still has this connection for it.
func (t *tally) postpone(rcpts []string, why *provider.Error) {
	for _, r := range rcpts {
		t.refused = append(t.refused, provider.Refusal{Email: r, Class: provider.Transient, Code: why.Code, Detail: why.Detail, Full: true})
	}
}

// bad lists the recipients that were refused for good.
func (t *tally) bad() []provider.Refusal {
	var bad []provider.Refusal
	for _, r := range t.refused {
		if r.Class == provider.BadRecipient {
			bad = append(bad, r)
		}
	}
	return bad
}

// verdict is the outcome when the server took no recipient. If the dialogue was cut short after some were found bad, those are
// reported; otherwise the rest would never be tried.
func (t *tally) verdict(j *job) *provider.Error {
	switch {
	case t.account != nil:
		return t.account
	case t.soft != nil:
		return t.soft
	case t.hard == nil:
		return &provider.Error{Class: provider.Transient, Detail: "relay took no recipient"}
	}
	e := *t.hard
	e.Refused = append(append([]provider.Refusal(nil), j.refused...), t.bad()...)
	return &e
}

// lost is the outcome when the connection ended during the recipients. If the server hung up with 421, the recipients already
// found bad are reported as bad: they may be the cause, and a new try would end the same way.
func (t *tally) lost(j *job, perr *provider.Error) *provider.Error {
	if t.hard != nil && perr.Status == 421 {
		return (&tally{refused: t.refused, hard: t.hard}).verdict(j)
	}
	return perr
}
