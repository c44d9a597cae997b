package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sendgate/sendgate/api"
)

type auditCmd struct {
	List   auditListCmd   `cmd:"" default:"withargs" help:"Show who changed or read what, newest first."`
	Verify auditVerifyCmd `cmd:"" help:"Verify that nobody changed, removed or moved entries of the audit."`
}

type auditListCmd struct {
	Actor  string    `placeholder:"KEY" help:"Only what was done with this key (id or name), or by \"system\" or \"stranger\"."`
	Action string    `help:"Only this action, such as pool.update, or all actions on a kind of object: pool."`
	Target string    `help:"Only changes of this account, pool, key, tenant or address."`
	Since  time.Time `help:"Only changes at or after this time."`
	Until  time.Time `help:"Only changes before this time."`
	paging
	format
}

// Help implements kong.HelpProvider.
func (*auditListCmd) Help() string {
	return "Examples:\n\n  sendgate audit --since 24h\n  sendgate audit --action account --target ses\n  sendgate audit --limit 200 --json"
}

// Run implements the command.
func (c *auditListCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	page, err := client.Audit(ctx, api.AuditFilter{
		Actor: c.Actor, Action: c.Action, Target: c.Target, Since: c.Since, Until: c.Until, Cursor: c.Cursor, Limit: c.Limit,
	})
	if err != nil {
		return err
	}
	return c.showPage(s, page, page.NextCursor, func(w io.Writer) {
		head(w, "ID", "AT", "WHO", "FROM", "ACTION", "TARGET", "DETAIL")
		for _, e := range page.Data {
			row(w, strconv.FormatInt(e.ID, 10), stamp(e.At), changedBy(e), cmp.Or(e.Address, "-"), e.Action, e.Target, changeText(e))
		}
	})
}

// changedBy names who made a change.
func changedBy(e api.AuditEntry) string {
	if e.ActorName == "" {
		return e.Actor
	}
	return e.ActorName + " (" + e.Actor + ")"
}

// changeText returns what an entry changed, or else its details, or a dash if it has neither.
func changeText(e api.AuditEntry) string {
	switch {
	case len(e.Before) > 0 && len(e.After) > 0:
		return shorten(string(e.Before), 60) + " -> " + shorten(string(e.After), 60)
	case len(e.Detail) == 0 || string(e.Detail) == "null":
		return "-"
	}
	return shorten(string(e.Detail), 100)
}

type auditVerifyCmd struct {
	Expect string `placeholder:"HASH" help:"The hash of the last link as an earlier run printed it. Without it, a chain whose end was cut off looks whole."`
	format
}

// Help implements kong.HelpProvider.
func (*auditVerifyCmd) Help() string {
	return `Each entry of the audit is linked to the one before it by a hash. This reads all of them, computes the hashes here, and says where an entry was changed, removed, added or moved. ` +
		`It also prints the hash of the last link. Keep that where who may change the database can't: the next run verifies with --expect that nothing up to it was cut off or made anew. ` +
		`The exit code is 1 if anything is wrong.

Examples:

  sendgate audit verify
  sendgate audit verify --expect 9f64a747e1b97f131fabb6b447296c9b6f0201e79fb3c5356e6c77e89b6a806a`
}

// auditReport is the answer of "audit verify".
type auditReport struct {
	Links  int64            `json:"links"`
	Head   string           `json:"head"` // hash of the last link
	Faults []api.AuditFault `json:"faults"`
}

// Run implements the command.
func (c *auditVerifyCmd) Run(ctx context.Context, s *Streams, client adminClient) error {
	if raw, err := hex.DecodeString(c.Expect); err != nil || c.Expect != "" && len(raw) != sha256.Size {
		return usagef("--expect takes a hash: %d hex digits", 2*sha256.Size)
	}
	v := api.AuditVerifier{Expect: strings.ToLower(c.Expect)}
	var links atomic.Int64
	p := startProgress(s.Err, func(time.Duration) string { return count(links.Load()) + " links verified" })
	err := c.pages(ctx, client, &v, &links)
	p.stop()
	if err != nil {
		return err
	}
	report := auditReport{Links: v.Links(), Head: v.Head(), Faults: v.Faults()}
	err = c.show(s, report, func(w io.Writer) {
		row(w, "links", strconv.FormatInt(report.Links, 10))
		row(w, "last hash", cmp.Or(report.Head, "-"))
		for _, f := range report.Faults {
			row(w, strings.ReplaceAll(f.Kind, "_", " "), faultText(f))
		}
		if len(report.Faults) == 0 {
			row(w, "result", "the chain holds")
		}
	})
	if err == nil && len(report.Faults) > 0 {
		return errShown
	}
	return err
}

// pages reads the whole chain.
func (*auditVerifyCmd) pages(ctx context.Context, client adminClient, v *api.AuditVerifier, links *atomic.Int64) error {
	for cursor := ""; ; {
		page, err := client.AuditChain(ctx, cursor)
		if err != nil {
			return err
		}
		v.Add(page)
		links.Store(v.Links())
		if cursor = page.NextCursor; cursor == "" {
			return nil
		}
	}
}

// faultText says where a fault is, and what it is.
func faultText(f api.AuditFault) string {
	var where []string
	if f.N > 0 {
		where = append(where, fmt.Sprintf("link %d", f.N))
	}
	if f.ID > 0 {
		where = append(where, fmt.Sprintf("entry %d", f.ID))
	}
	if len(where) == 0 {
		return f.Detail
	}
	return strings.Join(where, ", ") + ": " + f.Detail
}
