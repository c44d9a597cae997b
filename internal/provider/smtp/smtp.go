// Package smtp sends through a mail relay: Postfix on the same machine, a company's submission server, any host that
// speaks RFC 5321. It decides what a reply means (reply.go, a table by stage), keeps a pool of connections and signs with
// DKIM. Package mime builds the message's bytes, and the engine decides what follows from a class.
//
// One Send is one transaction. Recipients that did not fit into it go in another transaction, which is another Send.
//
// If the relay closed a connection while it was idle, the connection is replaced once, before anything of the message was
// written. That is a reconnect, not a second try. After the first byte of the body no failure is retried here: without the
// reply to the final dot nobody knows the outcome (RFC 1047), which is Uncertain.
//
// A message that the relay took may still bounce. With a bounce domain each message has an envelope sender of its own
// (verp.go), and reports to that address become events (events.go): delivery status notifications (dsn.go), bounces in
// free text (bounce.go) and complaints (arf.go). The address alone decides which message a report is about; nothing in the
// report is trusted for that. The report says which recipient it is about.
//
// The most likely mistake of a newcomer is to read the code without the stage: 550 at RCPT TO is about one recipient, at MAIL
// FROM about our sender, at the greeting about us. Only words about our quota or identity mean the same at every stage.
// Package smtpcode reads them. It also reads the replies in reports, in which the stage is lost.
//
// Sources: RFC 5321, 3207, 3461, 1870, 6531; RFC 3464, 6522, 6533, 5965, 3834; Postfix's postconf(5), smtpd(8), bounce(8).
package smtp

import (
	"context"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/provider/mime"
	"github.com/sendgate/sendgate/internal/seal"
)

// Client sends through one relay. It is safe for concurrent use.
type Client struct {
	cfg    Config
	signer *signer
	pool   *pool
	tokens *tokens // nil except for auth xoauth2
	scrub  func(string) string
	verp   *verp // nil without BounceDomain
}

// The engine finds these by a type assertion.
var (
	_ provider.EventParser   = (*Client)(nil)
	_ provider.HeaderChecker = (*Client)(nil)
)

// New checks the configuration and makes a Client. It opens no connection.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	signer, err := newSigner(cfg.DKIM)
	if err != nil {
		return nil, err
	}
	d := newDialer(cfg)
	return &Client{cfg: cfg, signer: signer, pool: newPool(cfg, d.dial), tokens: d.tokens, scrub: scrubber(cfg), verp: newVERP(cfg)}, nil
}

// scrubber makes replies safe to store: servers often echo commands, and AUTH commands hold the password. The rules are those of
// esphttp, so that the details of all adapters read alike.
func scrubber(cfg Config) func(string) string {
	secrets := []seal.Secret{cfg.AccessToken, cfg.ClientSecret, cfg.RefreshToken}
	if !cfg.Password.IsZero() {
		secrets = append(secrets, cfg.Password, seal.NewSecret("\x00"+cfg.Username+"\x00"+cfg.Password.Reveal()))
	}
	return esphttp.New(esphttp.Options{Secrets: secrets}).Scrub
}

// Capabilities says what this relay can carry.
func (c *Client) Capabilities() provider.Capabilities { return c.cfg.Capabilities() }

// Close ends the idle connections with QUIT and waits for it, at most a second. No Send may be running.
func (c *Client) Close() error {
	c.pool.close()
	c.tokens.close()
	return nil
}

// Send implements provider.Provider.
func (c *Client) Send(ctx context.Context, s *provider.Send) (provider.Receipt, error) {
	j, perr := c.prepare(s)
	if perr == nil && len(j.rcpts) == 0 {
		perr = j.nobody()
	}
	var receipt provider.Receipt
	if perr == nil {
		receipt, perr = c.deliver(ctx, j)
	}
	if perr != nil {
		return provider.Receipt{}, c.scrubbed(perr)
	}
	receipt.Detail = c.scrub(receipt.Detail)
	c.scrubRefusals(receipt.Refused)
	return receipt, nil
}

// deliver runs the job on a pooled connection, and on a fresh one if the pooled one turns out to be dead.
func (c *Client) deliver(ctx context.Context, j *job) (provider.Receipt, *provider.Error) {
	s, perr := c.pool.get(ctx)
	if perr != nil {
		return provider.Receipt{}, perr
	}
	receipt, perr, stale := s.transact(ctx, j)
	if stale {
		if s, perr = c.pool.replace(ctx, s); perr != nil {
			return provider.Receipt{}, perr
		}
		receipt, perr, _ = s.transact(ctx, j)
	}
	c.pool.put(s)
	return receipt, perr
}

// job is one planned transaction.
type job struct {
	id      string
	from    string
	rcpts   []string
	msg     []byte
	utf8    bool               // an address needs SMTPUTF8
	notify  []gosmtp.DSNNotify // what to report to the bounce address; nil leaves it to the relay
	refused []provider.Refusal
}

// prepare builds and signs the message, and checks every address in the form in which it is sent. An address that cannot be sent
// over SMTP is refused here; the others go on.
func (c *Client) prepare(s *provider.Send) (*job, *provider.Error) {
	msg, err := mime.Build(s.Message)
	if err == nil {
		msg, err = c.signer.sign(msg)
	}
	if err != nil {
		return nil, &provider.Error{Class: provider.Rejected, Detail: err.Error(), Err: err}
	}
	j := &job{id: s.Message.ID.String(), msg: msg, utf8: needsUTF8(s)}
	j.from, j.notify = c.bounceAddress(s.Message)
	if !wireSafe(j.from) {
		return nil, &provider.Error{Class: provider.Rejected, Detail: "sender address can't be sent over SMTP"}
	}
	for _, a := range s.Envelope() {
		if wireSafe(a.Email) {
			j.rcpts = append(j.rcpts, a.Email)
			continue
		}
		j.refused = append(j.refused, provider.Refusal{
			Email: a.Email, Class: provider.BadRecipient, Code: "5.1.3", Detail: "address can't be sent over SMTP",
		})
	}
	return j, nil
}

// bounceAddress returns the envelope sender of a message, and what to report there. If bounces go back to From, the author gets
// the relay's default, which is failures only.
func (c *Client) bounceAddress(m *mail.Message) (string, []gosmtp.DSNNotify) {
	notify := []gosmtp.DSNNotify{gosmtp.DSNNotifyFailure, gosmtp.DSNNotifyDelayed}
	switch {
	case c.cfg.BounceDomain != "":
		if c.cfg.NotifySuccess {
			notify = append(notify, gosmtp.DSNNotifySuccess)
		}
		return c.verp.address(m.ID), notify
	case c.cfg.EnvelopeFrom != "":
		return c.cfg.EnvelopeFrom, notify
	default:
		return m.From.Email, nil
	}
}

// needsUTF8 reports whether any address of envelope or header is not ASCII (RFC 6531 section 3.1). Texts do not matter: they
// are encoded to ASCII, which every next hop takes.
func needsUTF8(s *provider.Send) bool {
	m := s.Message
	if m.From.NeedsSMTPUTF8() {
		return true
	}
	for _, list := range [][]mail.Address{s.To, s.Cc, s.Bcc, m.To, m.Cc, m.ReplyTo} {
		for _, a := range list {
			if a.NeedsSMTPUTF8() {
				return true
			}
		}
	}
	return false
}

// nobody is the outcome of a job without a usable recipient.
func (j *job) nobody() *provider.Error {
	return &provider.Error{Class: provider.BadRecipient, Code: "5.1.3", Detail: "no recipient can be sent to over SMTP", Refused: j.refused}
}

func (c *Client) scrubbed(e *provider.Error) *provider.Error {
	e.Detail = c.scrub(e.Detail)
	c.scrubRefusals(e.Refused)
	if e.Err != nil {
		e.Err = &quiet{text: e.Detail, err: e.Err}
	}
	return e
}

func (c *Client) scrubRefusals(rs []provider.Refusal) {
	for i := range rs {
		rs[i].Detail = c.scrub(rs[i].Detail)
	}
}

// quiet prints the scrubbed text and lets errors.Is and errors.As see the cause.
type quiet struct {
	text string
	err  error
}

// Error implements error.
func (q *quiet) Error() string { return q.text }

// Unwrap returns the cause, whose own text is not scrubbed.
func (q *quiet) Unwrap() error { return q.err }
