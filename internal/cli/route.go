package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/sendgate/sendgate/api"
)

type routeCmd struct {
	Explain routeExplainCmd `cmd:"" help:"Show which account would take a message now, and why the others would not."`
}

type routeExplainCmd struct {
	Message string `arg:"" optional:"" help:"Id of a message of any tenant, or \"-\" to read the JSON body of POST /v1/send from standard input."`
	File    string `help:"Read that body from a file."`
	format
}

// Help implements kong.HelpProvider.
func (*routeExplainCmd) Help() string {
	return `Nothing is stored or sent.

Examples:

  sendgate route explain 01a2b3c4-5d6e-7f80-9a1b-2c3d4e5f6071
  sendgate route explain --file message.json
  echo '{"from":"shop@example.com","to":"ann@example.org","subject":"Hi","text":"Hi"}' | sendgate route explain -`
}

// Run implements the command.
func (c *routeExplainCmd) Run(ctx context.Context, s *Streams) error {
	if (c.Message == "") == (c.File == "") {
		return usagef("want the id of a message, or --file, or - for standard input")
	}
	client, err := s.operator()
	if err != nil {
		return err
	}
	var x *api.Explanation
	if c.File == "" && c.Message != "-" {
		x, err = client.ExplainMessage(ctx, c.Message)
	} else {
		var body []byte
		if body, err = c.body(s); err == nil {
			x, err = client.ExplainRaw(ctx, body)
		}
	}
	if err != nil {
		return err
	}
	return c.show(s, x, func(w io.Writer) {
		row(w, "stream", x.Facts.Stream)
		row(w, "sender domain", x.Facts.SenderDomain)
		row(w, "recipients", strconv.Itoa(x.Facts.Recipients)+" in "+strings.Join(x.Facts.RecipientDomains, ", "))
		row(w, "bytes", strconv.FormatInt(x.Facts.Bytes, 10))
		for _, line := range decisionLines(x.Decision) {
			row(w, line)
		}
	})
}

// body reads the message from the file or from standard input. It checks only that it is JSON; the server checks the rest.
func (c *routeExplainCmd) body(s *Streams) ([]byte, error) {
	from := cmp.Or(c.File, "-")
	b, err := readInput(s, from)
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	if !json.Valid(b) {
		return nil, usagef("%s is not JSON", map[bool]string{true: "standard input", false: from}[from == "-"])
	}
	return b, nil
}

// readInput reads a file, or standard input for "-".
func readInput(s *Streams, file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(s.In)
	}
	return os.ReadFile(s.path(file))
}
