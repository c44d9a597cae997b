package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sendgate/sendgate/api"
	"github.com/sendgate/sendgate/internal/mail"
	"github.com/sendgate/sendgate/internal/record"
)

// BulkStore changes many messages at once.
type BulkStore interface {
	BulkCount(ctx context.Context, f record.Bulk) (int, error)
	Bulk(ctx context.Context, actor string, f record.Bulk) (record.BulkPage, error)
}

// bulkStatuses are the statuses that each action takes. The first is the default; "" stands for queued and scheduled.
var bulkStatuses = map[record.BulkAction][]mail.Status{
	record.BulkCancel:  {"", mail.Queued, mail.Scheduled},
	record.BulkFail:    {"", mail.Queued, mail.Scheduled, mail.Unknown},
	record.BulkRequeue: {"", mail.Queued, mail.Unknown},
	record.BulkResend:  {mail.Failed, mail.FailedUnknown, mail.Expired, mail.Cancelled},
}

// bulkSpan is how far back messages that have ended are looked for, if the request does not say.
const bulkSpan = 24 * time.Hour

// bulkPlace is what a cursor of a bulk action holds. Only a dry run makes the first one, so nobody changes what was not counted.
type bulkPlace struct {
	Matched     int
	Since       time.Time
	After, Upto mail.ID
}

// bulk counts the messages that match (dry run), or does the action to the next page of them. The first page that changes
// messages writes the action, its filter and the count to the audit.
func (s *Server) bulk(r *http.Request, in api.BulkRequest) (out api.BulkResult, err error) {
	f, err := s.bulkOf(r.Context(), in)
	if err != nil {
		return out, err
	}
	l := listing{name: "bulk", tenant: f.Tenant, filter: bulkFilter(in)}
	if in.DryRun {
		return s.countBulk(r.Context(), f, l)
	}
	if in.Cursor == "" {
		return out, invalid("cursor", "missing", "is required: the same request with dry_run counts the messages and gives the cursor")
	}
	at, err := cursorAt(s.cursors, l, in.Cursor, readPlace)
	if err != nil {
		return out, err
	}
	f.Since, f.After, f.Upto = at.Since, at.After, at.Upto
	if at.After.IsZero() {
		in.To, in.From, in.Since = veiled(in.To), veiled(in.From), at.Since
		f.Audit = map[string]any{"filter": json.RawMessage(bulkFilter(in)), "matched": at.Matched, "at_least": at.Matched >= record.MaxCounted}
	}
	page, err := s.store.Bulk(r.Context(), principal(r).ID, f)
	if err != nil {
		return out, afterStore(err)
	}
	out = api.BulkResult{
		Matched: at.Matched, AtLeast: at.Matched >= record.MaxCounted, Done: page.Done, MaybeSent: page.MaybeSent, Skipped: page.Skipped,
	}
	if !page.Last.IsZero() {
		at.After = page.Last
		out.Cursor = s.cursors.seal(l, at.String())
	}
	return out, nil
}

// countBulk counts, and makes the cursor with which the action begins. Messages that come later are not part of it.
func (s *Server) countBulk(ctx context.Context, f record.Bulk, l listing) (out api.BulkResult, err error) {
	now := s.clock()
	if f.Action == record.BulkResend && f.Since.IsZero() {
		f.Since = now.Add(-bulkSpan)
	}
	f.Upto = mail.IDAt(now.Add(time.Millisecond))
	n, err := s.store.BulkCount(ctx, f)
	if err != nil {
		return out, err
	}
	place := bulkPlace{Matched: n, Since: f.Since, Upto: f.Upto}
	return api.BulkResult{Matched: n, AtLeast: n >= record.MaxCounted, Cursor: s.cursors.seal(l, place.String())}, nil
}

// bulkFilter is the request without its cursor in canonical form. A cursor is bound to it.
func bulkFilter(in api.BulkRequest) string {
	in.DryRun, in.Cursor = false, ""
	raw, _ := json.Marshal(in) // strings, times that were read from JSON, and booleans always encode
	return string(raw)
}

// veiled hides the local part of an address.
func veiled(address string) string {
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		return "***" + address[at:]
	}
	return address
}

// String implements fmt.Stringer. A time that is not set is written as 0.
func (p bulkPlace) String() string {
	var since int64
	if !p.Since.IsZero() {
		since = p.Since.UnixNano()
	}
	return fmt.Sprintf("%d %d %s %s", p.Matched, since, p.After, p.Upto)
}

func readPlace(text string) (p bulkPlace, err error) {
	var since int64
	var after, upto string
	if _, err := fmt.Sscanf(text, "%d %d %s %s", &p.Matched, &since, &after, &upto); err != nil {
		return p, err
	}
	if since != 0 {
		p.Since = time.Unix(0, since).UTC()
	}
	if p.After, err = mail.ParseID(after); err != nil {
		return p, err
	}
	p.Upto, err = mail.ParseID(upto)
	return p, err
}

// bulkOf checks a request.
func (s *Server) bulkOf(ctx context.Context, in api.BulkRequest) (f record.Bulk, err error) {
	var bad complaints
	f = record.Bulk{Action: record.BulkAction(in.Action), Force: in.Force}
	statuses, known := bulkStatuses[f.Action]
	if !known {
		return f, invalid("action", "unknown_action", "must be cancel, fail, requeue or resend")
	}
	f.Status = mail.Status(in.Status)
	if !slices.Contains(statuses, f.Status) {
		bad.complain("status", "unknown_status", fmt.Sprintf("must be one of %q for this action", statuses))
	}
	for _, text := range []struct {
		field, value string
		to           *string
	}{{"tag", in.Tag, &f.Tag}, {"stream", in.Stream, &f.Stream}, {"account", in.Account, &f.Account}} {
		if len(text.value) > maxParameter || !clean(text.value) {
			bad.complain(text.field, "invalid_text", fmt.Sprintf("must have at most %d bytes and no control characters", maxParameter))
		}
		*text.to = text.value
	}
	for _, address := range []struct {
		field, value string
		to           *string
	}{{"to", in.To, &f.To}, {"from", in.From, &f.From}} {
		if address.value == "" {
			continue
		}
		a, err := mail.ParseAddress(address.value)
		if err != nil {
			bad.complain(address.field, "invalid_address", "must be one email address")
		}
		*address.to = a.Email
	}
	for _, at := range []struct {
		field string
		value time.Time
		to    *time.Time
	}{{"since", in.Since, &f.Since}, {"until", in.Until, &f.Until}} {
		if !at.value.IsZero() && (at.value.Year() < 1970 || at.value.Year() > 9998) {
			bad.complain(at.field, "invalid_time", errTime.Error())
		}
		*at.to = at.value
	}
	if f.Filter == (record.Filter{}) && in.Tenant == "" && !in.All {
		bad.complain("all", "missing", "must be true if there is no filter")
	}
	if err := bad.err(); err != nil {
		return f, err
	}
	if in.Tenant != "" {
		t, err := s.tenant(ctx, in.Tenant)
		if err != nil {
			return f, err
		}
		if t == nil {
			return f, invalid("tenant", "unknown_tenant", "is not a tenant")
		}
		f.Tenant = t.ID
	}
	if again := f.Status == mail.Unknown && f.Action == record.BulkRequeue || f.Status == mail.FailedUnknown; again && !f.Force {
		return f, refuse(http.StatusConflict, "maybe_sent",
			"A provider may have sent messages of this status already. Repeat the request with force to risk second copies.")
	}
	return f, nil
}
