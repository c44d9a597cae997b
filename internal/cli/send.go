package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	netmail "net/mail"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
)

type sendCmd struct {
	Input string `arg:"" optional:"" placeholder:"-" help:"\"-\" reads the JSON body of POST /v1/send from standard input, instead of the flags for the message."`

	messageFlags

	IdempotencyKey string        `help:"The same key with the same message is accepted once."`
	Wait           bool          `help:"Wait until the result is known."`
	Timeout        time.Duration `default:"60s" help:"How long --wait waits at most."`
	format
}

// messageFlags are the fields of a message.
type messageFlags struct {
	From     string   `group:"msg" help:"Sender: address, or \"Name <address>\"."`
	To       []string `group:"msg" sep:"none" help:"Recipient (repeat)."`
	Cc       []string `group:"msg" sep:"none" help:"Copy (repeat)."`
	Bcc      []string `group:"msg" sep:"none" help:"Blind copy (repeat)."`
	ReplyTo  []string `group:"msg" sep:"none" help:"Address for replies (repeat)."`
	Subject  string   `group:"msg" help:"Subject."`
	Text     string   `group:"msg" help:"Plain text body; @FILE reads a file, @@ stands for an @."`
	HTML     string   `name:"html" group:"msg" help:"HTML body; @FILE reads a file."`
	File     []string `group:"msg" sep:"none" help:"Attach this file (repeat)."`
	Calendar string   `group:"msg" placeholder:"FILE" help:"Send the invitation in this .ics file; its METHOD gives the method."`
	Header   []string `group:"msg" sep:"none" placeholder:"NAME:VALUE" help:"Extra header (repeat)."`
	Tag      []string `group:"msg" sep:"none" help:"Tag (repeat)."`
	Meta     []string `group:"msg" sep:"none" placeholder:"KEY=VALUE" help:"Metadata (repeat)."`

	Stream      string    `group:"way" help:"Stream; \"transactional\" when absent."`
	Account     string    `group:"way" help:"Pin the message to this account."`
	OnAmbiguous string    `group:"way" enum:",reconcile,resend,never" default:"" placeholder:"POLICY" help:"What to do if the outcome of a call is unknown: reconcile, resend or never."`
	SendAt      time.Time `group:"way" span:"ahead" help:"Do not send it before this time."`
	ExpiresAt   time.Time `group:"way" span:"ahead" help:"Do not send it after this time."`
}

// Help implements kong.HelpProvider.
func (*sendCmd) Help() string {
	return `Prints the id of the accepted message. With --wait the exit code is 1 if the message does not end as sent or delivered.

Examples:

  sendgate send --from shop@example.com --to ann@example.org --subject Hello --text "Hi Ann"
  sendgate send --from shop@example.com --to ann@example.org --subject Invoice --text @body.txt --file invoice.pdf --wait
  sendgate send --from shop@example.com --to ann@example.org --subject Fitting --text "Monday at nine" --calendar fitting.ics
  echo '{"from":"shop@example.com","to":"ann@example.org","subject":"Hi","text":"Hi"}' | sendgate send -`
}

// Run implements the command.
func (c *sendCmd) Run(ctx context.Context, s *Streams) error {
	body, err := c.body(s)
	if err != nil {
		return err
	}
	client, err := s.caller()
	if err != nil {
		return err
	}
	result, err := client.SendRaw(ctx, body, c.IdempotencyKey)
	if err != nil {
		return err
	}
	if c.Wait {
		return c.follow(ctx, s, client, result)
	}
	return c.show(s, result, func(w io.Writer) {
		row(w, "id", result.ID)
		row(w, "status", result.Status)
		for _, r := range result.Recipients {
			row(w, "recipient", r.Email+" "+r.Status)
		}
		row(w, "next", s.program()+" messages show "+result.ID)
	})
}

// body returns the JSON of the request, from the flags or from standard input.
func (c *sendCmd) body(s *Streams) ([]byte, error) {
	if c.Input == "" {
		m, err := c.message(s)
		if err != nil {
			return nil, err
		}
		return json.Marshal(m)
	}
	if c.Input != "-" {
		return nil, usagef("unexpected argument %q: give the message with flags, or \"-\" to read JSON from standard input", c.Input)
	}
	if !reflect.ValueOf(c.messageFlags).IsZero() {
		return nil, usagef("\"-\" reads the whole message from standard input: leave out the flags for the message")
	}
	body, err := io.ReadAll(s.In)
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	if !json.Valid(body) {
		return nil, usagef("standard input is not JSON")
	}
	return body, nil
}

// follow polls the message until it has a status that is not open, or the time is over.
func (c *sendCmd) follow(ctx context.Context, s *Streams, client mailClient, sent *api.SendResult) error {
	if !c.JSON {
		fmt.Fprintln(s.Err, "accepted as", sent.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	for {
		m, err := client.Message(ctx, sent.ID)
		if ctx.Err() != nil {
			return fmt.Errorf("message %s was accepted, but its result is not known yet; ask later: sendgate messages show %[1]s", sent.ID)
		}
		if err != nil {
			return err
		}
		if !open(m.Status) {
			if err := showMessage(s, c.format, m); err != nil {
				return err
			}
			if m.Status != "sent" && m.Status != "delivered" {
				return fmt.Errorf("message %s ended as %s", m.ID, m.Status)
			}
			return nil
		}
		pause(ctx, 200*time.Millisecond)
	}
}

// open reports whether a status may still change.
func open(status string) bool {
	switch status {
	case "scheduled", "queued", "sending", "deferred", "unknown":
		return true
	default:
		return false
	}
}

// message builds the request from the flags. A flag that it can't read is a usage error; the server checks the rest.
func (c *messageFlags) message(s *Streams) (*api.SendRequest, error) {
	m := &api.SendRequest{Subject: c.Subject, Tags: c.Tag, Stream: c.Stream, OnAmbiguous: c.OnAmbiguous, From: address(c.From)}
	if c.From == "" || len(c.To)+len(c.Cc)+len(c.Bcc) == 0 {
		return nil, usagef("a message needs --from and --to (see sendgate send --help)")
	}
	m.To, m.Cc, m.Bcc, m.ReplyTo = addresses(c.To), addresses(c.Cc), addresses(c.Bcc), addresses(c.ReplyTo)
	if c.Account != "" {
		m.Account = &c.Account
	}
	if !c.SendAt.IsZero() {
		m.SendAt = &c.SendAt
	}
	if !c.ExpiresAt.IsZero() {
		m.ExpiresAt = &c.ExpiresAt
	}
	var err error
	if m.Headers, err = pairs("--header", c.Header, ":"); err != nil {
		return nil, err
	}
	if m.Metadata, err = pairs("--meta", c.Meta, "="); err != nil {
		return nil, err
	}
	if m.Text, err = textOrFile(s, c.Text); err != nil {
		return nil, err
	}
	if m.HTML, err = textOrFile(s, c.HTML); err != nil {
		return nil, err
	}
	if m.Calendar, err = calendar(s, c.Calendar); err != nil {
		return nil, err
	}
	m.Attachments, err = attachments(s, c.File)
	return m, err
}

// calendar reads an .ics file. The first METHOD line in it gives the method; the server checks the rest.
func calendar(s *Streams, file string) (*api.Calendar, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(s.path(file))
	if err != nil {
		return nil, fmt.Errorf("read calendar: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if name, method, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "METHOD") {
			return &api.Calendar{Method: strings.TrimSpace(method), Content: string(b)}, nil
		}
	}
	return nil, usagef("--calendar: %s has no METHOD line, such as METHOD:REQUEST, so mail programs would show no invitation", file)
}

// address reads "Name <address>". It passes anything else to the server as it is, which reports mistakes.
func address(text string) api.Address {
	if a, err := netmail.ParseAddress(text); err == nil && strings.HasSuffix(strings.TrimSpace(text), ">") {
		return api.Address{Email: a.Address, Name: a.Name}
	}
	return api.Address{Email: strings.TrimSpace(text)}
}

func addresses(texts []string) []api.Address {
	list := make([]api.Address, 0, len(texts))
	for _, t := range texts {
		list = append(list, address(t))
	}
	return list
}

// pairs reads repeated flags of the form name, separator, value.
func pairs(flag string, list []string, separator string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	m := map[string]string{}
	for _, pair := range list {
		k, v, ok := strings.Cut(pair, separator)
		if !ok || k == "" {
			return nil, usagef("%s wants name%svalue, got %q", flag, separator, pair)
		}
		if _, twice := m[k]; twice {
			return nil, usagef("%s names %q twice", flag, k)
		}
		m[k] = strings.TrimPrefix(v, " ")
	}
	return m, nil
}

// textOrFile returns the text, or the content of the file for @FILE.
func textOrFile(s *Streams, text string) (string, error) {
	file, ok := strings.CutPrefix(text, "@")
	if !ok || strings.HasPrefix(file, "@") { // "@@home" is the text "@home"
		return strings.TrimPrefix(text, "@"), nil
	}
	b, err := os.ReadFile(s.path(file))
	if err != nil {
		return "", fmt.Errorf("read body: %w", err)
	}
	return string(b), nil
}

func attachments(s *Streams, files []string) ([]api.Attachment, error) {
	var list []api.Attachment
	for _, f := range files {
		b, err := os.ReadFile(s.path(f))
		if err != nil {
			return nil, fmt.Errorf("read attachment: %w", err)
		}
		list = append(list, api.Attachment{
			Filename: filepath.Base(f), ContentType: mime.TypeByExtension(filepath.Ext(f)), Content: base64.StdEncoding.EncodeToString(b),
		})
	}
	return list, nil
}
