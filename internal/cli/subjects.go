package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sendgate/sendgate/api"
)

type subjectsCmd struct {
	Export subjectsExportCmd `cmd:"" help:"Write all that is stored about an address, as JSON lines."`
	Erase  subjectsEraseCmd  `cmd:"" help:"Erase what is stored about an address. It gets no mail afterwards."`
}

type subjectsExportCmd struct {
	Address string `arg:"" help:"The address of the person."`
	Tenant  string `help:"Only what this tenant stored; that of all tenants when absent."`
}

// Help implements kong.HelpProvider.
func (*subjectsExportCmd) Help() string {
	return `Each line is {"kind": "...", "row": {...}}: messages that the address got or sent, with body, calls, events with the payloads of providers in base64, tries of webhooks; and suppressions. ` +
		`The key needs the scope subjects:read. The export is audited.

Example:

  sendgate subjects export ann@example.org > ann.jsonl`
}

// Run implements the command.
func (c *subjectsExportCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	out := json.NewEncoder(s.Out)
	out.SetEscapeHTML(false)
	for r := (api.SubjectRequest{Address: c.Address, Tenant: c.Tenant}); ; {
		page, err := client.ExportSubject(ctx, r)
		if err != nil {
			return err
		}
		for _, row := range page.Data {
			if err := out.Encode(row); err != nil {
				return err
			}
		}
		if r.Cursor = page.Cursor; r.Cursor == "" {
			return nil
		}
	}
}

type subjectsEraseCmd struct {
	Address       string `arg:"" help:"The address of the person."`
	Tenant        string `help:"Only what this tenant stored; that of all tenants when absent."`
	CancelWaiting bool   `help:"Cancel messages that wait for the address. Those to several people go to the others."`
	Yes           bool   `help:"Do not ask."`
	format
}

// Help implements kong.HelpProvider.
func (*subjectsEraseCmd) Help() string {
	return `Counts first, and asks. Messages to this address alone lose subject and body; in others the address and the name are removed. Events lose the payloads of providers, which keep data of their own: ` +
		`the command says what, and how to erase it there. What stays is a keyed hash of the address, so that the person is not mailed again; "suppressions remove" lifts it. ` +
		`Run it again if it was interrupted, or if it says that messages were open. The exit code is 1 if something was left. The key needs the scopes subjects:read and subjects:write.

Examples:

  sendgate subjects erase ann@example.org
  sendgate subjects erase ann@example.org --tenant shop --cancel-waiting --yes`
}

// erasureReport is the answer of "subjects erase".
type erasureReport struct {
	Found  *api.SubjectCount `json:"found"`
	Erased api.SubjectErased `json:"erased"`
}

// Run implements the command.
func (c *subjectsEraseCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	found, err := client.CountSubject(ctx, api.SubjectRequest{Address: c.Address, Tenant: c.Tenant})
	if err != nil {
		return err
	}
	if !c.Yes {
		fmt.Fprintf(s.Err, "%d messages (%d of them open), %d suppressions, %d other events. This can't be undone.\n", found.Messages, found.Open, found.Suppressions, found.Events)
		if err := askToErase(s); err != nil {
			return err
		}
	}
	var done atomic.Int64
	p := startProgress(s.Err, func(time.Duration) string { return count(done.Load()) + " messages erased" })
	sum, err := c.steps(ctx, client, &done)
	p.stop()
	if err != nil {
		return err
	}
	report := erasureReport{Found: found, Erased: sum}
	err = c.show(s, report, func(w io.Writer) {
		row(w, "messages erased", strconv.Itoa(sum.Messages))
		row(w, "other events erased", strconv.Itoa(sum.Events))
		row(w, "cancelled", strconv.Itoa(sum.Cancelled))
		row(w, "left, because open", strconv.Itoa(sum.Open))
		row(w, "kept", "a keyed hash of the address, so that it is not mailed again")
		for _, a := range found.Accounts {
			row(w, "at "+a.Account, fmt.Sprintf("%d messages; %s", a.Messages, a.Keeps))
			row(w, "  to erase it", a.Erase)
			if len(a.Sources) > 0 {
				row(w, "  source", strings.Join(a.Sources, " ")+", read "+a.Read)
			}
		}
	})
	if err == nil && sum.Open > 0 {
		fmt.Fprintln(s.Err, "sendgate: some messages are open: run this again when they are settled")
		return errShown
	}
	return err
}

// steps does the whole erasure and adds up what it did.
func (c *subjectsEraseCmd) steps(ctx context.Context, client adminClient, done *atomic.Int64) (sum api.SubjectErased, err error) {
	for r := (api.SubjectErasure{Address: c.Address, Tenant: c.Tenant, CancelWaiting: c.CancelWaiting}); ; {
		e, err := client.EraseSubject(ctx, r)
		if err != nil {
			return sum, err
		}
		sum.Cancelled += e.Cancelled
		sum.Messages += e.Messages
		sum.Events += e.Events
		sum.Open += e.Open
		done.Store(int64(sum.Messages))
		if r.Cursor = e.Cursor; r.Cursor == "" {
			return sum, nil
		}
	}
}

// askToErase asks on the terminal. Without one, only --yes goes on.
func askToErase(s *Streams) error {
	if f, ok := s.In.(*os.File); ok && !isTTY(f) || s.In == nil {
		return usagef("there is no terminal to ask at: add --yes")
	}
	fmt.Fprint(s.Err, "Erase it? [y/N] ")
	answer, _ := bufio.NewReader(s.In).ReadString('\n')
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return fmt.Errorf("nothing was changed")
	}
	return nil
}
