package smtp

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // CRAM-MD5 is made of it
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	gosmtp "github.com/emersion/go-smtp"

	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/esphttp"
	"github.com/sendgate/sendgate/internal/seal"
)

// Mechanisms that the setting auth may name, besides auto.
const (
	authAuto    = "auto"
	authPlain   = "plain"
	authLogin   = "login"
	authCRAMMD5 = "cram-md5"
	authXOAUTH2 = "xoauth2"
)

// passwordMechanisms are the mechanisms for a user name and a password, in the order of auto. CRAM-MD5 comes last: some
// servers offer it although they keep only a hash of the password, with which it can't work.
var passwordMechanisms = []string{"PLAIN", "LOGIN", "CRAM-MD5"}

// Limits of the exchange of one AUTH command.
const (
	maxAuthLine   = 510 // RFC 4954 section 4: a longer initial response goes on a line of its own, after the server asks for it
	maxChallenges = 4   // no mechanism here has more than two
)

// login is the user name and the secret that a session authenticates with. The secret is the password, or a token in its place.
type login struct {
	user, secret string
}

// offered reads the mechanisms from the server's reply to EHLO. Old Exchange servers write AUTH=LOGIN, which some clients expect,
// besides or in place of the line that RFC 4954 defines.
func offered(dialogue string) []string {
	var names []string
	for _, m := range authLines.FindAllStringSubmatch(dialogue, -1) {
		for _, name := range strings.Fields(strings.ToUpper(m[1])) {
			if mechanismName.MatchString(name) && !slices.Contains(names, name) && len(names) < 20 {
				names = append(names, name)
			}
		}
	}
	return names
}

var (
	authLines     = regexp.MustCompile(`(?im)^250[- ]AUTH[ \t=]+(.*?)\r?$`)
	mechanismName = regexp.MustCompile(`^[A-Z0-9_-]{1,20}$`) // RFC 4422 section 3.1
)

// authenticate logs in. With auto, it goes on to the next mechanism if the server refuses one that it offers. It begins with the
// mechanism that worked last.
func (d *dialer) authenticate(ctx context.Context, c *gosmtp.Client, conn net.Conn, offer []string, l login) *provider.Error {
	names, perr := d.mechanisms(offer)
	if perr != nil {
		return perr
	}
	var said *provider.Error // the error to report: a refused password before a refused mechanism
	for _, name := range names {
		err := d.attempt(c, conn, name, l)
		if err == nil {
			d.works.Store(&name)
			return nil
		}
		p, replied := replyOf(err)
		if said == nil || p.code == 535 && said.Status != 535 {
			said = d.refusal(ctx, name, offer, l, err)
		}
		if !replied || p.code < 500 || p.code == 535 && p.enhanced != "" {
			break // the connection, the server or the password is at fault, and another mechanism would not help
		}
	}
	return said
}

// mechanisms lists the mechanisms to try. If the setting and the offer do not fit together, the error says why.
func (d *dialer) mechanisms(offer []string) ([]string, *provider.Error) {
	if len(offer) == 0 {
		return nil, refuse(fmt.Sprintf("username is set, but the relay offers no AUTH (port %d, tls %s): "+
			"correct port or tls, or remove username if it wants no login", d.cfg.Port, d.cfg.TLS))
	}
	names := []string{strings.ToUpper(d.cfg.Auth)}
	if d.cfg.Auth == authAuto {
		names = slices.Clone(passwordMechanisms)
		if last := d.works.Load(); last != nil {
			names = append([]string{*last}, slices.DeleteFunc(names, func(n string) bool { return n == *last })...)
		}
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !slices.Contains(offer, n) || n != "CRAM-MD5" && !d.private() })
	if len(names) == 0 {
		return nil, refuse(fmt.Sprintf("the relay offers AUTH %s, and auth is %s: %s", strings.Join(offer, ", "), d.cfg.Auth, d.advice(offer)))
	}
	return names, nil
}

// private reports whether the channel may carry a password. On loopback nobody can listen.
func (d *dialer) private() bool {
	return d.cfg.TLS != None || d.cfg.AllowPlaintext || isLoopback(d.cfg.Host)
}

// advice says which setting to change when no mechanism can be used.
func (d *dialer) advice(offer []string) string {
	usable := slices.DeleteFunc(slices.Clone(passwordMechanisms), func(n string) bool { return !slices.Contains(offer, n) })
	switch {
	case !d.private():
		return "set tls to starttls or implicit"
	case len(usable) > 0:
		return "set auth to auto or " + strings.ToLower(strings.Join(usable, " or "))
	case slices.Contains(offer, "XOAUTH2"):
		return "set auth to xoauth2, with token_url and client_id"
	default:
		return "none of them is known here; want PLAIN, LOGIN, CRAM-MD5 or XOAUTH2"
	}
}

// attempt runs one mechanism to its end. Some servers refuse the form of the first command before they ask anything; then attempt
// begins again in the other form.
func (d *dialer) attempt(c *gosmtp.Client, conn net.Conn, name string, l login) error {
	m := mechanismOf(name, l)
	x := &exchange{conn: conn, r: bufio.NewReader(conn), wait: c.CommandTimeout}
	defer func() { _ = conn.SetDeadline(time.Time{}) }()
	err := x.run(name, m, m.early)
	if m.initial != "" && !x.asked && formRefused(err, m.early) {
		err = x.run(name, m, !m.early)
	}
	if err == nil && x.r.Buffered() > 0 {
		return errors.New("server sent data after its reply to AUTH")
	}
	return err
}

// formRefused reports whether a reply may be about the form of the command. A 535 is about the credentials, unless the command
// had none.
func formRefused(err error, early bool) bool {
	p, ok := replyOf(err)
	return ok && (p.code == 500 || p.code == 501 || p.code == 535 && !early)
}

// mechanism is the client's side of one SASL mechanism.
type mechanism struct {
	initial string                                  // the client's first response; "" if the server begins
	early   bool                                    // initial goes with the command
	answer  func(challenge string, said int) string // said is how many responses we have sent so far
}

// mechanismOf returns the client side of a mechanism by its name.
func mechanismOf(name string, l login) mechanism {
	switch name {
	case "PLAIN":
		ir := "\x00" + l.user + "\x00" + l.secret
		return mechanism{initial: ir, early: true, answer: func(string, int) string { return ir }}
	case "LOGIN":
		return mechanism{initial: l.user, answer: l.answer}
	case "CRAM-MD5":
		return mechanism{answer: func(challenge string, _ int) string {
			mac := hmac.New(md5.New, []byte(l.secret)) // RFC 2195 section 2
			mac.Write([]byte(challenge))
			return l.user + " " + hex.EncodeToString(mac.Sum(nil))
		}}
	default:
		return xoauth2(l)
	}
}

// answer is LOGIN, which has no standard (draft-murchison-sasl-login, MS-XLOGIN). The user name is not sent with the command:
// some servers ignore it there, and some refuse it. Servers word their prompts freely. A prompt without a known word is answered
// by its position, because the order is the same everywhere.
func (l login) answer(prompt string, said int) string {
	prompt = strings.ToLower(prompt)
	switch {
	case containsAny(prompt, []string{"pass", "pwd", "kennwort", "secret"}):
		return l.secret
	case containsAny(prompt, []string{"user", "name", "login", "account"}) || said == 0:
		return l.user
	default:
		return l.secret
	}
}

// xoauth2 is the mechanism of Google and Microsoft ("OAuth 2.0 Mechanism", "Authenticate an IMAP, POP or SMTP connection
// using OAuth"). A server that refuses the token says why in a challenge. It sends its reply after an empty answer to that.
func xoauth2(l login) mechanism {
	ir := "user=" + l.user + "\x01auth=Bearer " + l.secret + "\x01\x01"
	early := len("AUTH XOAUTH2 ")+base64.StdEncoding.EncodedLen(len(ir)) <= maxAuthLine
	return mechanism{initial: ir, early: early, answer: func(challenge string, said int) string {
		if said == 0 || strings.TrimSpace(challenge) == "" {
			return ir
		}
		return ""
	}}
}

// exchange is the dialogue of AUTH commands. We do not use that of go-smtp: it ends at a challenge that is not Base64, and at an
// empty challenge without a space.
type exchange struct {
	conn  net.Conn
	r     *bufio.Reader
	wait  time.Duration
	asked bool   // the server has sent a challenge
	why   string // the challenge with which XOAUTH2 refuses
}

// run sends AUTH, with the initial response if early is set, and answers challenges until the final reply.
func (x *exchange) run(name string, m mechanism, early bool) error {
	line, said := "AUTH "+name, 0
	if early {
		line, said = line+" "+encode(m.initial), 1
	}
	for range maxChallenges + 1 {
		code, text, err := x.ask(line)
		switch {
		case err != nil:
			return err
		case code/100 == 2:
			return nil
		case code != 334:
			return &refusedLogin{reply: &textproto.Error{Code: code, Msg: text}, why: x.why}
		}
		x.asked = true
		challenge := decode(text)
		if said > 0 && name == "XOAUTH2" {
			x.why = reason(challenge)
		}
		line = encode(m.answer(challenge, said))
		said++
	}
	return errors.New("server asks on and on after AUTH " + name)
}

// ask sends a line and reads the reply. A reply that is only a code is valid too.
func (x *exchange) ask(line string) (code int, text string, err error) {
	if err := x.conn.SetDeadline(time.Now().Add(x.wait)); err != nil {
		return 0, "", err
	}
	if _, err := io.WriteString(x.conn, line+"\r\n"); err != nil {
		return 0, "", fmt.Errorf("write command: %w", err)
	}
	var texts []string
	for r := textproto.NewReader(x.r); ; {
		got, err := r.ReadLine()
		if err != nil {
			return 0, "", err
		}
		digits, rest := got[:min(len(got), 3)], got[min(len(got), 3):]
		if code, err = strconv.Atoi(digits); err != nil || code < 200 || code > 599 {
			return 0, "", textproto.ProtocolError("the reply to AUTH is not SMTP")
		}
		texts = append(texts, strings.TrimSpace(strings.TrimPrefix(rest, "-")))
		if !strings.HasPrefix(rest, "-") {
			return code, strings.Join(texts, " "), nil
		}
	}
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// decode returns the text of a challenge. Some servers omit the padding. Some send the prompt as plain text, which may by chance
// be valid Base64 of unreadable bytes.
func decode(text string) string {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	plain := strings.TrimRight(string(b), "\x00\r\n")
	if err != nil || !utf8.ValidString(plain) || strings.ContainsFunc(plain, unicode.IsControl) {
		return text
	}
	return plain
}

// reason reads the challenge with which a server refuses a token. It returns only the status and the scope that a token needs.
func reason(challenge string) string {
	var why struct{ Status, Scope string }
	if json.Unmarshal([]byte(challenge), &why) != nil || why.Status == "" {
		return ""
	}
	if why.Scope != "" {
		return "status " + why.Status + ", wants a token of the scope " + why.Scope
	}
	return "status " + why.Status
}

// refusedLogin is a reply that ends the exchange.
type refusedLogin struct {
	reply *textproto.Error
	why   string // why a token was refused
}

// Error implements error.
func (r *refusedLogin) Error() string { return r.reply.Error() }

// Unwrap lets replyOf find the reply.
func (r *refusedLogin) Unwrap() error { return r.reply }

// refusesLogin reports whether the relay refused the credential for good.
func refusesLogin(e *provider.Error) bool {
	_, refused := errors.AsType[*refusedLogin](e.Err)
	return refused && e.Class == provider.Misconfigured
}

// refusal is the outcome of a failed attempt. It names the setting and the offer. A server may echo what we sent, so the secret
// is scrubbed here: the account's scrubber does not know a token.
func (d *dialer) refusal(ctx context.Context, name string, offer []string, l login, err error) *provider.Error {
	e := d.failed(ctx, atAuth, err)
	if e.Class == provider.Misconfigured {
		e.Detail += fmt.Sprintf(" (AUTH %s was refused; auth is %s, the relay offers %s", name, d.cfg.Auth, strings.Join(offer, ", "))
		if r, ok := errors.AsType[*refusedLogin](err); ok && r.why != "" {
			e.Detail += "; " + r.why
		}
		e.Detail += ")"
	}
	secret := []seal.Secret{seal.NewSecret(l.secret)}
	if initial := mechanismOf(name, l).initial; initial != l.user {
		secret = append(secret, seal.NewSecret(initial))
	}
	e.Detail = esphttp.New(esphttp.Options{Secrets: secret}).Scrub(e.Detail)
	return e
}
